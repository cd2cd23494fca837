"""Voices: a speaker embedding for every stretch of the segmentation."""

from __future__ import annotations

from infra.artifacts import ArtifactRef, StageOutcome
from speech.schema import EmbedParams
from tasks.calls import StageCall
from tasks.models import Models, argument, pinned
from tasks.recording import Recording
from tasks.report import RunLog
from tasks.stage import run_stage, stage_task

embed_task = stage_task("embed")


async def embed(
    log: RunLog, recording: Recording, segmentation: ArtifactRef, models: Models, *, batch_size: int | None
) -> StageOutcome:
    """The costly half of diarization; it knows nothing of how many speakers are asked for."""
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
