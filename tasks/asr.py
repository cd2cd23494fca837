"""The words: Whisper over the stretches of speech."""

from __future__ import annotations

from infra.artifacts import StageOutcome
from tasks.calls import StageCall
from tasks.report import RunLog
from tasks.stage import run_stage, stage_task

asr_task = stage_task("asr")


async def asr(log: RunLog, call: StageCall) -> StageOutcome:
    """The text of every chunk; `call` is an `asr_call`. The artifact's meta says the language."""
    return await run_stage(log, asr_task, call)
