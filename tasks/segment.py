"""Who is active when: one pass of the segmentation model, read by ASR and by diarization."""

from __future__ import annotations

from infra.artifacts import StageOutcome
from tasks.calls import segment_call
from tasks.models import Models
from tasks.recording import Recording
from tasks.report import RunLog
from tasks.stage import run_stage, stage_task

segment_task = stage_task("segment")


async def segment(log: RunLog, recording: Recording, models: Models) -> StageOutcome:
    """Speech activity per frame and speaker."""
    return await run_stage(log, segment_task, segment_call(recording, models))
