"""Speakers: the embeddings grouped into as many voices as there are, or as were asked for."""

from __future__ import annotations

from infra.artifacts import ArtifactRef, StageOutcome
from speech.schema import ClusterParams
from tasks.calls import StageCall
from tasks.models import Models, pinned
from tasks.recording import Recording
from tasks.report import RunLog
from tasks.stage import run_stage, stage_task

cluster_task = stage_task("cluster")


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


def _asked(num: int | None, low: int | None, high: int | None) -> str:
    if num:
        return f"{num} speakers"
    if low or high:
        return f"{low or 1} to {high or 'any number of'} speakers"
    return "any number of speakers"
