"""The stages of a run that are computed: what each is asked, run as a task and reported."""

from __future__ import annotations

from typing import Any

from infra.artifacts import ArtifactRef, StageOutcome
from speech.registry import Resolved
from speech.schema import AlignParams, ClusterParams, DiarizeParams, EmbedParams, MergeParams
from tasks.calls import AsrOptions, StageCall, asr_call, segment_call
from tasks.decoding import Recording
from tasks.models import Models, argument, pinned
from tasks.report import RunLog
from tasks.stage import run_stage


async def segment(log: RunLog, recording: Recording, models: Models) -> StageOutcome:
    """Who is active when: one pass of the segmentation model, read by ASR and by diarization."""
    return await run_stage(log, segment_call(recording, models))


async def asr(log: RunLog, recording: Recording, segmentation: ArtifactRef, models: Models, asked: AsrOptions) -> StageOutcome:
    """The text of every chunk. The artifact's meta says the language."""
    return await run_stage(log, asr_call(recording, segmentation, models, asked))


async def align(
    log: RunLog, recording: Recording, text: ArtifactRef, aligner: Resolved, *, batch_size: int | None
) -> StageOutcome:
    """The words of `text` with their times, from wav2vec2 or from Whisper's own cross-attention."""
    call = StageCall(
        stage="align",
        inputs={"audio": recording.audio, "asr": text},
        params=AlignParams(model=argument(aligner)).model_dump(mode="json"),
        models={"align": pinned(aligner)},
        duration=recording.duration,
        batch_size=batch_size,
        label=aligner.name,
    )
    return await run_stage(log, call)


async def embed(
    log: RunLog, recording: Recording, segmentation: ArtifactRef, models: Models, *, batch_size: int | None
) -> StageOutcome:
    """The costly half of diarization: a speaker embedding for every stretch of the segmentation. It knows nothing of how many
    speakers are asked for."""
    call = StageCall(
        stage="embed",
        inputs={"audio": recording.audio, "segmentation": segmentation},
        params=EmbedParams(model=argument(models.diarization)).model_dump(mode="json"),
        models={"embedding": pinned(models.diarization)},
        duration=recording.duration,
        batch_size=batch_size,
        label=models.diarization.name,
    )
    return await run_stage(log, call)


async def cluster(
    log: RunLog,
    recording: Recording,
    segmentation: ArtifactRef,
    embeddings: ArtifactRef,
    models: Models,
    speakers: ClusterParams,
) -> StageOutcome:
    """The cheap half of diarization: turns of as many speakers as there are, or as were asked for."""
    call = StageCall(
        stage="cluster",
        inputs={"segmentation": segmentation, "embeddings": embeddings},
        params=speakers.model_dump(mode="json"),
        models={"embedding": pinned(models.diarization)},
        duration=recording.duration,
        label=_how_many(speakers),
    )
    return await run_stage(log, call)


async def diarize(log: RunLog, recording: Recording, models: Models, speakers: ClusterParams) -> StageOutcome:
    """Turns of speakers straight from the audio."""
    params = DiarizeParams(model=argument(models.diarization), **speakers.model_dump())
    call = StageCall(
        stage="diarize",
        inputs={"audio": recording.audio},
        params=params.model_dump(mode="json"),
        models={"diarization": pinned(models.diarization)},
        duration=recording.duration,
        label=models.diarization.name,
    )
    return await run_stage(log, call)


async def merge(
    log: RunLog,
    recording: Recording,
    text: ArtifactRef,
    *,
    alignment: ArtifactRef | None,
    diarization: ArtifactRef | None,
    options: dict[str, Any],
) -> StageOutcome:
    """Segments with one speaker each; without `diarization`, without speakers; without `alignment`, without word times."""
    inputs = {"audio": recording.audio, "asr": text, "alignment": alignment, "diarization": diarization}
    call = StageCall(
        stage="merge",
        inputs={kind: ref for kind, ref in inputs.items() if ref is not None},
        params=MergeParams(options=options).model_dump(mode="json"),
        models={},
        duration=recording.duration,
        label="with speakers" if diarization else "without speakers",
    )
    return await run_stage(log, call)


def _how_many(speakers: ClusterParams) -> str:
    low, high = speakers.min_speakers, speakers.max_speakers
    if speakers.num_speakers:
        return f"{speakers.num_speakers} speakers"
    if low or high:
        return f"{low or 1} to {high or 'any number of'} speakers"
    return "an unknown number of speakers"
