"""What can be refused at once, before Prefect is started: within milliseconds, and without a trace on disk."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from infra.names import expanded, output_stem, path_of, scheme_of
from stenoflow.errors import EmptyMedia, InvalidOption, OutputNotWritable, SourceDenied, SourceError, SourceNotFound, StenoError

if TYPE_CHECKING:
    from flows.request import TranscribeRequest
    from infra.settings import StenoSettings


def check_together(requests: list[TranscribeRequest]) -> None:
    """Refuse requests that would write over one another. Raises InvalidOption."""
    if len(requests) < 2:
        return
    if requests[0].output_file:
        raise InvalidOption("--output-file applies to one recording; with several, give --output-dir and --format.")
    if sum(request.source == "-" for request in requests) > 1:
        raise InvalidOption("Standard input (-) can be read only once.")
    taken: dict[str, str] = {}
    for request in requests:
        name = request.shown_as
        stem = output_stem(name)
        if stem in taken:
            raise InvalidOption(
                f"{taken[stem]} and {name} would both be written to {stem}.{request.formats[0]}; run them separately, each with its own --output-dir."
            )
        taken[stem] = name


def check_request(request: TranscribeRequest, settings: StenoSettings) -> None:
    """Refuse what cannot work: the model's name, the source, the output folder. Raises the errors the run would raise."""
    check_models(request, settings)
    if request.sources.count("-") > 1:
        raise InvalidOption("Standard input (-) can be read only once.")
    for source in request.sources:
        check_source(source)
    check_output(request.output_dir, request.output_file)
    check_targets(request)


def check_targets(request: TranscribeRequest) -> None:
    """Raise OutputIsRecording when a file to be written is the recording itself."""
    from infra import outputs
    from infra.written import refuse_source

    stem = output_stem(request.shown_as)
    for name in (request.output_file,) if request.output_file else (f"{stem}.{format_}" for format_ in request.formats):
        for source in request.sources:
            refuse_source(outputs.joined(request.output_dir, name), source)


def check_models(request: TranscribeRequest, settings: StenoSettings) -> None:
    """Names only; a hub id that is not pinned may need the network, and is left to the run."""
    from infra.compute import host_of
    from speech.languages import only_language
    from speech.models import resolve_align, resolve_asr, resolve_diarization
    from speech.registry import ALIASES

    models, offline, host = settings.models_path, settings.offline, host_of(settings, request.compute)
    if request.diarize:
        resolve_diarization(request.diarization_model, models_dir=models, offline=offline, host=host)
    name = settings.model if request.model == "auto" else request.model
    if "/" in name and not name.startswith(("/", ".", "~")) and not Path(name).exists() and name not in ALIASES:
        return
    asr = resolve_asr(name, request.language, models_dir=models, offline=offline, task=request.task, host=host)
    language = only_language(request.language)
    if request.align and language and "/" not in request.align_model:
        resolve_align(request.align_model, language, asr, models_dir=models, offline=offline, host=host)


def check_source(source: str) -> None:
    """Raise SourceNotFound, SourceDenied, SourceError or EmptyMedia for a local file that cannot be a recording."""
    if source == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise SourceError("Standard input is a terminal; pipe a recording into `steno transcribe -`, or give a file.")
        return
    path = local_path(source)
    if path is None:
        return
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise SourceError(f"{source} is a folder; transcribe all that is in it with `steno batch {source}`.")
        if path.is_file():  # opening a named pipe would wait for its writer
            path.open("rb").close()
    except FileNotFoundError:
        raise SourceNotFound(f"There is no file {source}.") from None
    except PermissionError:
        raise SourceDenied(f"{source} is not readable by this user; check its permissions.") from None
    except OSError as error:
        raise SourceNotFound(f"{source} cannot be opened ({error.strerror}).") from None
    if size == 0 and path.is_file():
        raise EmptyMedia(f"{source} is empty (0 bytes).")


def local_path(source: str) -> Path | None:
    """The local file that a source names; None for URLs and standard input."""
    if scheme_of(source) == "file":
        return Path(path_of(source))
    return None if source == "-" or scheme_of(source) else expanded(source)


def check_output(output_dir: str, output_file: str | None) -> None:
    """Raise OutputNotWritable unless a file could be written there; the folder itself is left to be made when there is one."""
    target = (
        output_dir
        if not output_file
        else f"{output_dir}/{output_file}"
        if scheme_of(output_dir)
        else str(Path(output_dir) / output_file)
    )
    if scheme_of(target) or (output_file and scheme_of(output_file)):
        return
    folder = Path(target).expanduser().absolute()
    if output_file:
        if folder.is_dir():
            raise OutputNotWritable(f"--output-file {output_file} is a folder; give a file in it.")
        folder = folder.parent
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise OutputNotWritable(
            f"The output folder {folder} cannot be created: {nearest} is a file; choose another --output-dir."
        )
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise OutputNotWritable(f"The output folder {folder} is not writable ({why}); choose another --output-dir.") from error


def refused_at_once(requests: list[TranscribeRequest], settings: StenoSettings) -> dict[int, StenoError]:
    """By position: why a request need not be tried."""
    refused: dict[int, StenoError] = {}
    for position, request in enumerate(requests):
        try:
            check_request(request, settings)
        except StenoError as error:
            refused[position] = error
    return refused
