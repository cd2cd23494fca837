"""One recording, end to end. This is the whole pipeline; each step is one click away."""

from __future__ import annotations

import asyncio
import time
from typing import Any, NamedTuple, cast

from prefect import flow
from prefect.states import Failed

from flows.options import LAYOUT, echoed
from flows.outcome import keep_outcome, outcome_of
from flows.report import publish_report
from flows.request import TranscribeRequest, without_folders
from flows.result import DiarizationFailed, TranscribeResult
from flows.running import running
from flows.served import requested, served
from flows.usage import recomputing_what_is_lost
from infra import headstart
from infra.artifacts import ArtifactRef
from infra.names import display_name
from infra.prices import total_cost
from speech.schema import ClusterParams
from stenoflow.errors import ArtifactMissing, StenoError
from tasks.decoding import Recording
from tasks.export import Exported, Output, check_output, check_overwrites, export
from tasks.fetch import fetch
from tasks.models import Models, resolve_aligner, resolve_models
from tasks.records import RecordStorage
from tasks.report import RunLog, describe, run_id
from tasks.stages import align, asr, cluster, diarize, embed, merge, segment


def _run_name() -> str:
    return display_name(without_folders(requested("name")) or requested("source"))


@flow(name="transcribe", flow_run_name=_run_name, persist_result=False, validate_parameters=False)
@served
async def transcribe(request: TranscribeRequest) -> TranscribeResult:
    """Turn one recording into a speaker-attributed, word-timed transcript.

    Raises the errors of `stenoflow.errors`, and DiarizationFailed when the transcript could be written
    without speakers only.

    Args:
        request: The recording, the options, and where the files go.
    """
    async with running(request) as log:
        result = await recomputing_what_is_lost(request.source, lambda: _run(log, request))
    if result.degraded and request.on_diarization_failure == "fail":
        return cast(TranscribeResult, _partial(result))
    return result


# Nothing is stored there. Left out, Prefect asks its server twice per run which storage is its default, with new clients.
transcribe.result_storage = RecordStorage()


async def _run(log: RunLog, request: TranscribeRequest) -> TranscribeResult:
    began = time.perf_counter()
    output = _output(request)
    await check_output(output, request.shown_as, request.source)
    models = await resolve_models(request)
    log.note(*models.warnings)

    recording = await fetch(
        log,
        request.source,
        name=request.shown_as,
        named=request.name is not None,
        allow_truncated=request.allow_truncated,
        max_duration=request.max_duration,
        track=request.track,
        language=request.language,
    )
    await check_overwrites(output, recording, request.source)
    segmentation = (await segment(log, recording, models)).artifact
    text, turns = await asyncio.gather(
        _words(log, request, recording, segmentation, models),
        _speakers(log, request, recording, segmentation, models),
        return_exceptions=True,  # a failed diarization must not end ASR, nor lose its text
    )
    if isinstance(text, BaseException):
        raise text
    if isinstance(turns, asyncio.CancelledError | ArtifactMissing):
        raise turns
    failure = turns if isinstance(turns, BaseException) else None
    diarization = None if isinstance(turns, BaseException) else turns

    options = _echo(request, models, text, recording, failed=failure is not None)
    transcript = (
        await merge(log, recording, text.asr, alignment=text.alignment, diarization=diarization, options=options)
    ).artifact
    exported = await export(log, transcript, output, recording, request.source)

    seconds = time.perf_counter() - began + headstart.seconds_before(began)
    result = _result(log, recording, transcript, exported, failure=failure, seconds=seconds)
    await keep_outcome(outcome_of(run_id(), result))
    await publish_report(result)
    return result


class _Text(NamedTuple):
    asr: ArtifactRef
    alignment: ArtifactRef | None
    aligner: str | None


async def _words(
    log: RunLog, request: TranscribeRequest, recording: Recording, segmentation: ArtifactRef, models: Models
) -> _Text:
    """The branch of the words: asr, then align."""
    text = await asr(log, recording, segmentation, models, request)
    if not request.align:
        log.skip("align", "not asked for")
        return _Text(text.artifact, None, None)
    spoken = request.task == "transcribe" and text.artifact.meta.get("segments", 1) > 0
    aligner = await resolve_aligner(
        request.align_model, text.artifact.meta["language"], models.asr, spoken=spoken, backend=request.compute
    )
    if aligner.warning:
        log.note(aligner.warning)
    words = await align(log, recording, text.artifact, aligner, batch_size=request.batch_size)
    return _Text(text.artifact, words.artifact, aligner.name)


async def _speakers(
    log: RunLog, request: TranscribeRequest, recording: Recording, segmentation: ArtifactRef, models: Models
) -> ArtifactRef | None:
    """The branch of the speakers: embed, then cluster; or one stage, where the diarizer is end to end."""
    if not request.diarize:
        log.skip("embed", "not asked for")
        log.skip("diarize", "not asked for")
        return None
    speakers = ClusterParams(**request.model_dump(include=set(ClusterParams.model_fields)))
    if models.diarization.engine.end_to_end:
        log.skip("embed", f"{models.diarization.name} needs none")
        return (await diarize(log, recording, models, speakers)).artifact
    voices = await embed(log, recording, segmentation, models, batch_size=request.batch_size)
    turns = await cluster(log, recording, segmentation, voices.artifact, models, speakers)
    return turns.artifact


def _output(request: TranscribeRequest) -> Output:
    return Output(
        formats=request.formats,
        output_dir=request.output_dir,
        output_file=request.output_file,
        overwrite=request.overwrite,
        render=request.model_dump(include=set(LAYOUT)),
    )


def _echo(request: TranscribeRequest, models: Models, text: _Text, recording: Recording, *, failed: bool) -> dict[str, Any]:
    """The effective options, as the transcript repeats them: those that shape it, not where it comes from or goes.

    `track` is among them where the recording has several.
    """
    used = {
        "model": models.asr.name,
        "align_model": text.aligner,
        "diarization_model": models.diarization.name if request.diarize else None,
    }
    track = {"track": recording.track.model_dump(mode="json", exclude_none=True)} if recording.track is not None else {}
    asked = {name: value for name, value in echoed(request).items() if name not in used}
    return asked | used | track | ({"diarization": "failed"} if failed else {})


def _result(
    log: RunLog,
    recording: Recording,
    transcript: ArtifactRef,
    exported: Exported,
    *,
    failure: BaseException | None,
    seconds: float,
) -> TranscribeResult:
    error = describe(failure) if failure is not None else None
    happened = failure.happened if isinstance(failure, StenoError) and failure.cure else error
    if happened:
        log.note(f"Speakers are missing because diarization failed: {happened}")
    stages = log.in_order()
    return TranscribeResult(
        source_name=recording.name,
        transcript=transcript,
        files=exported.files,
        language=exported.language,
        language_probability=exported.language_probability,
        duration=recording.duration,
        words=exported.words,
        speakers=exported.speakers,
        stages=stages,
        warnings=tuple(log.warnings),
        degraded=failure is not None,
        total_seconds=round(seconds, 3),
        cost=total_cost(stage.cost for stage in stages),
        error=error,
        happened=happened,
    )


def _partial(result: TranscribeResult) -> Any:
    """A failed state that says what was saved. Callers of the flow get DiarizationFailed, which has the result."""
    message = (
        f"Written without speakers, because diarization failed: {result.error} "
        "Run again (or press Retry) to repeat only diarization, merge and export."
    )
    return Failed(name="Partial", message=message, data=DiarizationFailed(message, result))
