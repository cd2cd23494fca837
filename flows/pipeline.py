"""One recording, end to end: which step follows which, whoever performs them. Needs no Prefect."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from flows.glossaries import with_glossary
from flows.options import LAYOUT, echoed
from flows.request import TranscribeRequest
from flows.result import TranscribeResult
from infra.artifacts import ArtifactRef, StageOutcome
from infra.compute import computes_here
from infra.names import display_name, output_stem
from infra.prices import total_cost
from infra.settings import get_settings
from speech.glossary import Replacement
from speech.languages import only_language
from speech.registry import ATTENTION
from speech.schema import ClusterParams, StreamParams
from stenoflow.errors import ArtifactMissing, StenoError
from tasks.calls import (
    Found,
    StageCall,
    align_call,
    asr_call,
    cluster_call,
    diarize_call,
    embed_call,
    join_call,
    merge_call,
    segment_call,
)
from tasks.decoding import FetchCall, Recording
from tasks.models import Models, resolve_aligners, resolve_models
from tasks.rendering import ExportCall, Exported, KnownVoices, Output, check_output, check_overwrites, export_call
from tasks.reports import Reports, describe


class Steps(Protocol):
    """What performs the steps: a flow run, each as a task of its own; or a command, out of the store alone."""

    @property
    def log(self) -> Reports: ...
    @property
    def owner(self) -> str:
        """Whose glossaries and voices are meant."""
        ...

    def voices(self, request: TranscribeRequest) -> tuple[str, ...]:
        """The sets of enrolled voices that the speakers are compared with."""
        ...

    async def fetch(self, call: FetchCall) -> Recording: ...
    async def compute(self, call: StageCall) -> StageOutcome: ...
    async def export(self, call: ExportCall) -> Exported: ...
    def apart(self, names: Sequence[str]) -> Sequence[Steps]: ...


class Written(NamedTuple):
    """A transcript whose files are written."""

    recording: Recording
    transcript: ArtifactRef
    exported: Exported
    failure: BaseException | None
    """Of diarization: the transcript has no speakers."""


async def pipeline(steps: Steps, request: TranscribeRequest) -> Written:
    """Perform the steps. Raises the errors of `stenoflow.errors`; a failed diarization is no error."""
    log = steps.log
    output = output_of(request)
    request, replacements = await with_glossary(request, steps.owner)
    for source in request.sources:
        await check_output(output, request.shown_as, source)
    models = await resolve_models(request)
    log.note(*models.warnings)

    recording, each = await _fetched(steps, request)
    log.duration = recording.duration
    log.note(*recording.warnings)
    await check_overwrites(output, recording, request.source)
    found, failure = await _found(each, request, recording, models)
    merged = _merge(request, models, recording, found, replacements, failed=failure is not None)
    transcript = (await steps.compute(merged)).artifact
    sets, diarization = steps.voices(request), found[0].diarization
    voices = KnownVoices(sets=sets, diarization=diarization) if sets and diarization is not None and len(found) == 1 else None
    exported = await steps.export(export_call(transcript, output, recording, request.source, voices))
    log.note(*exported.warnings)
    return Written(recording, transcript, exported, failure)


def result_of(written: Written, log: Reports, seconds: float) -> TranscribeResult:
    """What came of a run that took so many seconds."""
    failure, exported = written.failure, written.exported
    error = describe(failure) if failure is not None else None
    happened = failure.happened if isinstance(failure, StenoError) and failure.cure else error
    if happened:
        log.note(f"Speakers are missing because diarization failed: {happened}")
    stages = log.in_order()
    return TranscribeResult(
        source_name=written.recording.name,
        transcript=written.transcript,
        audio=written.recording.audio,
        files=exported.files,
        language=exported.language,
        language_probability=exported.language_probability,
        languages=exported.languages,
        duration=written.recording.duration,
        words=exported.words,
        speakers=exported.speakers,
        speaker_matches=exported.speaker_matches,
        stages=stages,
        warnings=tuple(log.warnings),
        degraded=failure is not None,
        total_seconds=round(seconds, 3),
        cost=total_cost(stage.cost for stage in stages),
        error=error,
        happened=happened,
    )


def fetch_calls(request: TranscribeRequest, *, again: bool = False, naming: bool = False) -> tuple[FetchCall, ...]:
    """The recording that is asked for, or each track of the session. With `naming`, voices are compared with known ones."""
    alone = not request.together
    mixed = not alone or (request.channels == "auto" and (naming or not request.diarize))
    return tuple(
        FetchCall(
            source=source,
            label=request.shown_as if alone else display_name(source),
            named=alone and request.name is not None,
            allow_truncated=request.allow_truncated,
            again=again,
            max_duration=request.max_duration,
            track=request.track,
            language=request.language,
            channels="mix" if mixed else request.channels,
        )
        for source in request.sources
    )


async def _after_segmentation(
    request: TranscribeRequest, recording: Recording, models: Models, speakers: ClusterParams | None
) -> tuple[StageCall, ...]:
    """What will be asked of models then, as far as that is certain: a backend elsewhere begins with it at once."""
    if computes_here(get_settings(), request.compute):
        return ()
    calls = [asr_call(recording, None, models, request)]
    language = only_language(request.language)
    if request.align and language and request.task == "transcribe":
        (aligner,) = await resolve_aligners(request.align_model, [language], models.asr, spoken=True, backend=request.compute)
        if aligner.kind != ATTENTION:
            calls.append(align_call(recording, None, aligner, batch_size=request.batch_size))
    if speakers is not None and not models.diarization.engine.end_to_end:
        calls.append(embed_call(recording, None, models, batch_size=request.batch_size))
    return tuple(calls)


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, numbered where two are the same."""
    return [
        name if names.count(name) == 1 else f"{name} ({names[: index + 1].count(name)})" for index, name in enumerate(names)
    ]


class _Text(NamedTuple):
    asr: ArtifactRef
    alignment: ArtifactRef | None
    aligner: str | None


class _Part(NamedTuple):
    """What was found in the recording, or on one of its channels."""

    recording: Recording
    text: _Text
    diarization: ArtifactRef | None


async def _fetched(steps: Steps, request: TranscribeRequest) -> tuple[Recording, Sequence[Steps]]:
    """The recording, and what performs the further steps: for each of its channels or tracks, or for all of it."""
    calls = fetch_calls(request, again="fetch" in steps.log.redo, naming=bool(steps.voices(request)))
    if len(calls) == 1:
        recording = await steps.fetch(calls[0])
        parts = recording.apart()
        return recording, steps.apart([part.stem for part in parts]) if parts else [steps]
    each = steps.apart([output_stem(call.label) for call in calls])
    tracks = await asyncio.gather(*(step.fetch(call) for step, call in zip(each, calls, strict=True)))
    longest = max(tracks, key=lambda track: track.duration)
    warnings = [f"{track.stem}: {warning}" for track in tracks for warning in track.warnings]
    name = request.shown_as
    whole = {"name": name, "stem": output_stem(name), "warnings": tuple(warnings), "tracks": tuple(tracks)}
    return longest.model_copy(update=whole), each


async def _found(
    each: Sequence[Steps], request: TranscribeRequest, recording: Recording, models: Models
) -> tuple[list[_Part], BaseException | None]:
    """What the branches leave of the recording, or of each of its channels or tracks; and why a diarization failed."""
    channels = recording.apart() or (recording,)
    speakers = speakers_asked(request, len(channels))
    at_once = asyncio.Semaphore(1 if computes_here(get_settings(), request.compute) else len(channels))

    async def one(steps: Steps, channel: Recording) -> tuple[_Part, BaseException | None]:
        async with at_once:
            return await _branches(steps, request, channel, models, speakers)

    done = await asyncio.gather(*map(one, each, channels), return_exceptions=True)  # what others found is not lost
    for ended in done:
        if isinstance(ended, BaseException):
            raise ended
    parts, failures = zip(*(ended for ended in done if not isinstance(ended, BaseException)), strict=True)
    return list(parts), next((failure for failure in failures if failure is not None), None)


def speakers_asked(request: TranscribeRequest, channels: int) -> ClusterParams | None:
    """How many speakers to tell apart on each channel; None for one each. The request's numbers are those of all channels together."""
    asked = ClusterParams(**request.model_dump(include=set(ClusterParams.model_fields)))
    most = asked.num_speakers or asked.max_speakers
    if not request.diarize or (channels > 1 and max(most or 0, asked.min_speakers or 0) <= channels):
        return None
    if channels == 1:
        return asked
    return ClusterParams(max_speakers=most - channels + 1 if most else None)


async def _branches(
    steps: Steps, request: TranscribeRequest, recording: Recording, models: Models, speakers: ClusterParams | None
) -> tuple[_Part, BaseException | None]:
    """Both branches, of words and of speakers, and why the second failed."""
    then = await _after_segmentation(request, recording, models, speakers)
    segmentation = (await steps.compute(segment_call(recording, models, then))).artifact
    text, turns = await asyncio.gather(
        _words(steps, request, recording, segmentation, models),
        _speakers(steps, request, recording, segmentation, models, speakers),
        return_exceptions=True,  # a failed diarization must not end ASR, nor lose its text
    )
    if isinstance(text, BaseException):
        raise text
    if isinstance(turns, asyncio.CancelledError | ArtifactMissing):
        raise turns
    failure = turns if isinstance(turns, BaseException) else None
    return _Part(recording, text, None if isinstance(turns, BaseException) else turns), failure


def _merge(
    request: TranscribeRequest,
    models: Models,
    recording: Recording,
    parts: Sequence[_Part],
    replacements: tuple[Replacement, ...],
    *,
    failed: bool,
) -> StageCall:
    """What puts together what was found."""
    text = max((part.text for part in parts), key=lambda text: text.asr.meta.get("words", 0))
    options = _echo(request, models, text, recording, failed=failed)
    if not recording.apart():
        left = {"alignment": text.alignment, "diarization": parts[0].diarization}
        return merge_call(recording, text.asr, **left, options=options, replacements=replacements)
    found = [Found(part.recording, part.text.asr, part.text.alignment, part.diarization) for part in parts]
    if recording.tracks:
        streams = [StreamParams(name=name) for name in _distinct([track.stem for track in recording.tracks])]
    else:
        streams = [StreamParams(channel=part.recording.audio.meta["channel"]) for part in parts]
    return join_call(recording, found, streams, options=options, replacements=replacements)


async def _words(
    steps: Steps, request: TranscribeRequest, recording: Recording, segmentation: ArtifactRef, models: Models
) -> _Text:
    """The branch of the words: asr, then align."""
    text = (await steps.compute(asr_call(recording, segmentation, models, request))).artifact
    if not request.align:
        steps.log.skip("align", "not asked for")
        return _Text(text, None, None)
    spoken = request.task == "transcribe" and text.meta.get("segments", 1) > 0
    languages = list(dict.fromkeys([text.meta["language"], *text.meta.get("languages", ())]))
    aligner, *others = await resolve_aligners(
        request.align_model, languages, models.asr, spoken=spoken, backend=request.compute
    )
    steps.log.note(*dict.fromkeys(model.warning for model in (aligner, *others) if model.warning))
    further = dict(zip(languages[1:], others, strict=True))
    words = await steps.compute(align_call(recording, text, aligner, batch_size=request.batch_size, others=further))
    return _Text(text, words.artifact, aligner.name)


async def _speakers(
    steps: Steps,
    request: TranscribeRequest,
    recording: Recording,
    segmentation: ArtifactRef,
    models: Models,
    speakers: ClusterParams | None,
) -> ArtifactRef | None:
    """The branch of the speakers: embed, then cluster; or one stage, where the diarizer is end to end."""
    if speakers is None:
        why = "each channel is a speaker" if request.diarize else "not asked for"
        steps.log.skip("embed", why)
        steps.log.skip("diarize", why)
        return None
    if models.diarization.engine.end_to_end:
        steps.log.skip("embed", f"{models.diarization.name} needs none")
        return (await steps.compute(diarize_call(recording, models, speakers))).artifact
    voices = await steps.compute(embed_call(recording, segmentation, models, batch_size=request.batch_size))
    return (await steps.compute(cluster_call(recording, segmentation, voices.artifact, models, speakers))).artifact


def output_of(request: TranscribeRequest) -> Output:
    """Where the request's files go, and what they look like."""
    return Output(
        formats=request.formats,
        output_dir=request.output_dir,
        output_file=request.output_file,
        overwrite=request.overwrite,
        render=request.model_dump(include=set(LAYOUT)),
    )


def _echo(request: TranscribeRequest, models: Models, text: _Text, recording: Recording, *, failed: bool) -> dict[str, Any]:
    """The effective options, as the transcript repeats them: those that shape it, not where it comes from or goes.

    `track` is among them where the recording has several, `channels` where they were transcribed separately.
    """
    used = {
        "model": models.asr.name,
        "align_model": text.aligner,
        "diarization_model": models.diarization.name if request.diarize else None,
    }
    track = {"track": recording.track.model_dump(mode="json", exclude_none=True)} if recording.track is not None else {}
    apart = {"channels": "separate"} if recording.channels else {}
    asked = {name: value for name, value in echoed(request).items() if name not in used}
    return asked | used | track | apart | ({"diarization": "failed"} if failed else {})
