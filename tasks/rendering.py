"""A transcript in every format asked for, and where it may be written; rendering only, never a model. Needs no Prefect."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from infra import outputs
from infra.artifacts import ArtifactRef
from infra.compute import get_store
from infra.handles import revealed
from infra.jobs import ProgressSink, in_thread
from infra.names import STDIN, output_stem, scheme_of, without_secrets
from infra.settings import StenoSettings, get_settings
from infra.storage_errors import NO_SPACE, RemoteFault, remote_fault
from infra.voices import voices_in
from infra.written import known_as, refuse_others, refuse_source, write_for
from speech.enrolled import NOBODY, Matches, matched
from speech.schema import Diarization
from speech.stored import read_json
from stenoflow.errors import OutputNotWritable, StenoError, StorageFull, TransientError
from stenoflow.types import Frozen, Transcript, VoiceMatch
from tasks.decoding import Recording


class Output(Frozen):
    """Where the files go, and what they look like."""

    formats: tuple[str, ...]
    output_dir: str
    output_file: str | None = None
    render: dict[str, Any]
    """Fields of `speech.formats.RenderOptions`."""
    overwrite: bool = False
    """Replace files that were not written for this recording."""

    def targets(self, stem: str) -> dict[str, str]:
        """Format to path or URL."""
        if self.output_file:
            return {self.output_file.rpartition(".")[2].lower(): outputs.joined(self.output_dir, self.output_file)}
        return {format_: outputs.joined(self.output_dir, f"{stem}.{format_}") for format_ in self.formats}


class KnownVoices(Frozen):
    """Which enrolled voices the speakers are compared with."""

    sets: tuple[str, ...]
    """As `infra.voices` calls them."""
    diarization: ArtifactRef


class ExportCall(Frozen):
    transcript: ArtifactRef
    output: Output
    stem: str
    recording: str | None
    """Its path, where it is a file of this machine."""
    recordings: tuple[str, ...]
    """What the recording is known by (`infra.written`)."""
    warnings: tuple[str, ...]
    """What was noticed about the recording itself. Not in the artifact, which several recordings of the same samples share."""
    voices: KnownVoices | None = None


class Exported(Frozen):
    """The files, and the few facts of the transcript that the run reports."""

    files: dict[str, str]
    language: str
    language_probability: float | None = None
    languages: tuple[str, ...] = ()
    duration: float
    words: int
    speakers: int
    speaker_matches: dict[str, VoiceMatch] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def export_call(
    transcript: ArtifactRef, output: Output, recording: Recording, source: str, voices: KnownVoices | None = None
) -> ExportCall:
    """The files of that recording's transcript."""
    return ExportCall(
        transcript=transcript,
        output=output,
        stem=recording.stem,
        recording=None if recording.tracks or scheme_of(source) or source == STDIN else source,
        recordings=_known_as(source, recording),
        warnings=recording.warnings,
        voices=voices,
    )


async def check_output(output: Output, name: str, source: str) -> None:
    """Refuse an output that cannot be written before anything is downloaded or computed. Raises OutputNotWritable and its kinds."""
    targets = list(output.targets(output_stem(name)).values())
    if not targets:
        return

    def check(_: ProgressSink) -> None:
        address = revealed(source, get_settings())
        for target in targets:
            refuse_source(target, address)
        _check_target(targets[0], get_settings())

    await in_thread(check, lambda _: None, "export")


async def check_overwrites(output: Output, recording: Recording, source: str) -> None:
    """Refuse outputs in whose place is what was not written for this recording. Raises OutputExists, OutputIsRecording."""
    targets = list(output.targets(recording.stem).values())

    def check(_: ProgressSink) -> None:
        for target in targets:
            with refusals(target):
                refuse_others(target, _known_as(source, recording), get_settings(), overwrite=output.overwrite)

    if targets:
        await in_thread(check, lambda _: None, "export")


def _known_as(source: str, recording: Recording) -> tuple[str, ...]:
    return known_as(revealed(source, get_settings()), recording.audio.sha256)


def render_and_write(call: ExportCall, report: ProgressSink) -> Exported:
    """Write the files. Raises ArtifactMissing, OutputNotWritable and its kinds, StorageFull."""
    from speech.formats import RenderOptions, render

    settings = get_settings()
    with get_store(settings).local(call.transcript) as path:
        transcript = read_json(Transcript, path)
    found = recognised(call.voices, settings) if call.voices is not None else NOBODY
    warnings = tuple(dict.fromkeys([*call.warnings, *transcript.warnings, *found.warnings]))
    transcript = transcript.model_copy(update={"warnings": warnings, "speaker_matches": found.speakers})
    targets = call.output.targets(call.stem)
    options = RenderOptions(uri=call.stem, audio=_beside(call.recording, call.output.output_dir), **call.output.render)
    rendered = {target: render(transcript, format_, options) for format_, target in targets.items()}
    _write_all(rendered, call, settings, report)
    return Exported(
        files=targets,
        language=transcript.language,
        language_probability=transcript.language_probability,
        languages=transcript.languages,
        duration=transcript.duration,
        words=len(transcript.word_segments),
        speakers=len(transcript.speakers),
        speaker_matches=found.speakers,
        warnings=transcript.warnings,
    )


def recognised(voices: KnownVoices, settings: StenoSettings) -> Matches:
    """Which speakers are enrolled. Raises ArtifactMissing."""
    store = get_store(settings)
    enrolled = voices_in(store, voices.sets)
    if not enrolled:
        return NOBODY
    with store.local(voices.diarization) as path:
        return matched(read_json(Diarization, path), enrolled)


def _beside(recording: str | None, output_dir: str) -> str | None:
    """The recording as a page in that folder refers to it; None where it cannot."""
    if recording is None or outputs.is_url(output_dir) or not Path(recording).is_file():
        return None
    with contextlib.suppress(ValueError):  # two drives of Windows
        return Path(os.path.relpath(recording, output_dir)).as_posix()
    return None


def _write_all(rendered: Mapping[str, bytes], call: ExportCall, settings: StenoSettings, report: ProgressSink) -> None:
    for done, (target, content) in enumerate(rendered.items()):
        report(done / len(rendered))
        with refusals(target):
            write_for(target, call.recordings, content, settings, overwrite=call.output.overwrite)


def _check_target(target: str, settings: StenoSettings) -> None:
    with refusals(target):
        if outputs.is_url(target):
            try:
                outputs.check_bucket(target, settings)
            except FileNotFoundError as error:
                raise OutputNotWritable(
                    f"There is no bucket {str(error)!r} to write the files to", cure="create it or choose another --output-dir"
                ) from None
        else:
            if Path(target).is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=Path(target).parent):
                pass


@contextlib.contextmanager
def refusals(target: str) -> Iterator[None]:
    """Say which output was refused and why, in our own errors."""
    try:
        yield
    except StenoError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise StorageFull(
                f"No space left while writing {without_secrets(target)}", cure="free some, or choose another --output-dir"
            ) from error
        if outputs.is_url(target) and remote_fault(error) is RemoteFault.TRANSIENT:
            raise TransientError(f"The storage of {without_secrets(target)} did not respond; try again later.") from error
        if not isinstance(error, OSError):
            raise
        why = error.strerror or type(error).__name__
        raise OutputNotWritable(
            f"The output {without_secrets(target)} is not writable ({why})", cure="choose another --output-dir"
        ) from error
