"""Speakers: voices embedded, and grouped into as many as there are or as were asked for; or told apart by a model end to end."""

from __future__ import annotations

from infra.artifacts import ArtifactRef, StageOutcome
from speech.schema import ClusterParams, DiarizeParams, EmbedParams
from tasks.calls import StageCall
from tasks.models import Models, argument, pinned
from tasks.recording import Recording
from tasks.report import RunLog
from tasks.stage import run_stage, stage_task

embed_task = stage_task("embed")
cluster_task = stage_task("cluster")
diarize_task = stage_task("diarize")


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
    return await run_stage(log, embed_task, call)


async def cluster(
    log: RunLog,
    recording: Recording,
    segmentation: ArtifactRef,
    embeddings: ArtifactRef,
    models: Models,
    *,
    num_speakers: int | None,
    min_speakers: int | None,
    max_speakers: int | None,
) -> StageOutcome:
    """The cheap half of diarization, reported as `diarize`: turns of speakers."""
    params = ClusterParams(
        num_speakers=num_speakers,
        min_speakers=min_speakers,
        max_speakers=max_speakers,
    )
    call = StageCall(
        stage="cluster",
        inputs={"segmentation": segmentation, "embeddings": embeddings},
        params=params.model_dump(mode="json"),
        models={"embedding": pinned(models.diarization)},
        duration=recording.duration,
        label=_asked(num_speakers, min_speakers, max_speakers),
    )
    return await run_stage(log, cluster_task, call)


async def diarize(
    log: RunLog,
    recording: Recording,
    models: Models,
    *,
    num_speakers: int | None,
    min_speakers: int | None,
    max_speakers: int | None,
) -> StageOutcome:
    """Turns of speakers straight from the audio."""
    params = DiarizeParams(
        model=argument(models.diarization), num_speakers=num_speakers, min_speakers=min_speakers, max_speakers=max_speakers
    )
    call = StageCall(
        stage="diarize",
        inputs={"audio": recording.audio},
        params=params.model_dump(mode="json"),
        models={"diarization": pinned(models.diarization)},
        duration=recording.duration,
        label=models.diarization.name,
    )
    return await run_stage(log, diarize_task, call)


def _asked(num: int | None, low: int | None, high: int | None) -> str:
    if num:
        return f"{num} speakers"
    if low or high:
        return f"{low or 1} to {high or 'any number of'} speakers"
    return "any number of speakers"
