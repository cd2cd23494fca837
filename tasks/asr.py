"""The words: Whisper over the stretches of speech."""

from __future__ import annotations

from typing import Literal

from infra.artifacts import ArtifactRef, StageOutcome
from speech.schema import AsrParams
from tasks.models import Models, argument, pinned
from tasks.recording import Recording
from tasks.report import RunLog
from tasks.stage import StageCall, run_stage, stage_task

asr_task = stage_task("asr")


async def asr(
    log: RunLog,
    recording: Recording,
    segmentation: ArtifactRef,
    models: Models,
    *,
    language: str | None,
    task: Literal["transcribe", "translate"],
    initial_prompt: str | None,
    hotwords: str | None,
    batch_size: int,
) -> StageOutcome:
    """The text of every chunk. The artifact's meta says the language."""
    params = AsrParams(
        model=argument(models.asr),
        language=language,
        task=task,
        initial_prompt=initial_prompt or None,
        hotwords=hotwords or None,
    )
    call = StageCall(
        stage="asr",
        inputs={"audio": recording.audio, "segmentation": segmentation},
        params=params.model_dump(mode="json"),
        models={"asr": pinned(models.asr)},
        duration=recording.duration,
        batch_size=batch_size,
        label=models.asr.name,
    )
    return await run_stage(log, asr_task, call)
