"""One recording, end to end: which step follows which, whoever performs them. Needs no Prefect."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple, Protocol

from flows.options import LAYOUT, echoed
from flows.request import TranscribeRequest
from flows.result import TranscribeResult
from infra.artifacts import ArtifactRef, StageOutcome
from infra.compute import computes_here
from infra.prices import total_cost
from infra.settings import get_settings
from speech.registry import ATTENTION
from speech.schema import ClusterParams
from stenoflow.errors import ArtifactMissing, StenoError
from tasks.calls import StageCall, align_call, asr_call, cluster_call, diarize_call, embed_call, merge_call, segment_call
from tasks.decoding import FetchCall, Recording
from tasks.models import Models, resolve_aligner, resolve_models
from tasks.rendering import ExportCall, Exported, KnownVoices, Output, check_output, check_overwrites, export_call
from tasks.reports import Reports, describe


class Steps(Protocol):
    """What performs the steps: a flow run, each as a task of its own; or a command, out of the store alone."""

    @property
    def log(self) -> Reports: ...
    def voices(self, request: TranscribeRequest) -> tuple[str, ...]:
        """The sets of enrolled voices that the speakers are compared with."""
        ...

    async def fetch(self, call: FetchCall) -> Recording: ...
    async def compute(self, call: StageCall) -> StageOutcome: ...
    async def export(self, call: ExportCall) -> Exported: ...


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
    await check_output(output, request.shown_as, request.source)
    models = await resolve_models(request)
    log.note(*models.warnings)

    recording = await steps.fetch(fetch_call(request, again="fetch" in log.redo))
    log.duration = recording.duration
    log.note(*recording.warnings)
    await check_overwrites(output, recording, request.source)
    then = await _after_segmentation(request, recording, models)
    segmentation = (await steps.compute(segment_call(recording, models, then))).artifact
    text, turns = await asyncio.gather(
        _words(steps, request, recording, segmentation, models),
        _speakers(steps, request, recording, segmentation, models),
        return_exceptions=True,  # a failed diarization must not end ASR, nor lose its text
    )
    if isinstance(text, BaseException):
        raise text
    if isinstance(turns, asyncio.CancelledError | ArtifactMissing):
        raise turns
    failure = turns if isinstance(turns, BaseException) else None
    diarization = None if isinstance(turns, BaseException) else turns

    options = _echo(request, models, text, recording, failed=failure is not None)
    merged = merge_call(recording, text.asr, alignment=text.alignment, diarization=diarization, options=options)
    transcript = (await steps.compute(merged)).artifact
    sets = steps.voices(request)
    voices = KnownVoices(sets=sets, diarization=diarization) if sets and diarization is not None else None
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


def fetch_call(request: TranscribeRequest, *, again: bool = False) -> FetchCall:
    """The recording that is asked for."""
    return FetchCall(
        source=request.source,
        label=request.shown_as,
        named=request.name is not None,
        allow_truncated=request.allow_truncated,
        again=again,
        max_duration=request.max_duration,
        track=request.track,
        language=request.language,
    )


async def _after_segmentation(request: TranscribeRequest, recording: Recording, models: Models) -> tuple[StageCall, ...]:
    """What will be asked of models then, as far as that is certain: a backend elsewhere begins with it at once."""
    if computes_here(get_settings(), request.compute):
        return ()
    calls = [asr_call(recording, None, models, request)]
    if request.align and request.language and request.task == "transcribe":
        aligner = await resolve_aligner(request.align_model, request.language, models.asr, spoken=True, backend=request.compute)
        if aligner.kind != ATTENTION:
            calls.append(align_call(recording, None, aligner, batch_size=request.batch_size))
    if request.diarize and not models.diarization.engine.end_to_end:
        calls.append(embed_call(recording, None, models, batch_size=request.batch_size))
    return tuple(calls)


class _Text(NamedTuple):
    asr: ArtifactRef
    alignment: ArtifactRef | None
    aligner: str | None


async def _words(
    steps: Steps, request: TranscribeRequest, recording: Recording, segmentation: ArtifactRef, models: Models
) -> _Text:
    """The branch of the words: asr, then align."""
    text = (await steps.compute(asr_call(recording, segmentation, models, request))).artifact
    if not request.align:
        steps.log.skip("align", "not asked for")
        return _Text(text, None, None)
    spoken = request.task == "transcribe" and text.meta.get("segments", 1) > 0
    aligner = await resolve_aligner(
        request.align_model, text.meta["language"], models.asr, spoken=spoken, backend=request.compute
    )
    if aligner.warning:
        steps.log.note(aligner.warning)
    words = await steps.compute(align_call(recording, text, aligner, batch_size=request.batch_size))
    return _Text(text, words.artifact, aligner.name)


async def _speakers(
    steps: Steps, request: TranscribeRequest, recording: Recording, segmentation: ArtifactRef, models: Models
) -> ArtifactRef | None:
    """The branch of the speakers: embed, then cluster; or one stage, where the diarizer is end to end."""
    if not request.diarize:
        steps.log.skip("embed", "not asked for")
        steps.log.skip("diarize", "not asked for")
        return None
    speakers = ClusterParams(**request.model_dump(include=set(ClusterParams.model_fields)))
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
