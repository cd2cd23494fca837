"""Who is active when: one pass of the segmentation model, read by ASR and by diarization."""

from __future__ import annotations

from infra.artifacts import StageOutcome
from speech.schema import SegmentParams
from tasks.models import Models, argument, pinned
from tasks.recording import Recording
from tasks.report import RunLog
from tasks.stage import StageCall, run_stage, stage_task

segment_task = stage_task("segment")


async def segment(log: RunLog, recording: Recording, models: Models) -> StageOutcome:
    """Speech activity per frame and speaker."""
    call = StageCall(
        stage="segment",
        inputs={"audio": recording.audio},
        params=SegmentParams(model=argument(models.diarization)).model_dump(mode="json"),
        models={"segmentation": pinned(models.diarization)},
        duration=recording.duration,
        label=models.diarization.name,
    )
    return await run_stage(log, segment_task, call)
