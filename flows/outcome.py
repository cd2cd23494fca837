"""How a run ended, kept in the store: what a batch, a retry and the REST API read when the run was another process's.

Under `records/runs/<flow run id>`, so that any machine that sees the store finds it, whichever Prefect server ran it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Literal

from flows.result import DiarizationFailed, StageReport, TranscribeResult
from infra.compute import get_store
from infra.voices import forget_names
from speech.stored import parsed
from stenoflow.errors import OutputNotWritable, Retry, StenoError, StorageFull
from stenoflow.types import Frozen

_log = logging.getLogger(__name__)


class RunError(Frozen):
    """Why a run failed, for people (`message`) and for programs (`code`)."""

    code: str
    message: str
    happened: str = ""
    """Where `message` names a cure that is the command line's: what happened, without it."""
    retry: Retry = Retry.NEVER
    """Whether trying the same thing again can help."""
    exit_code: int = 1


class RunOutcome(Frozen):
    """How one execution of a run ended. Never transcript text."""

    run: str
    """The flow run's id."""
    state: Literal["completed", "partial", "failed", "canceled"]
    """`partial`: exported, but without the speakers that were asked for."""
    result: TranscribeResult | None = None
    error: RunError | None = None
    stages: tuple[StageReport, ...] = ()
    warnings: tuple[str, ...] = ()


def error_of(error: BaseException) -> RunError:
    """The error as outcomes carry it; what is not ours is named by its kind only."""
    if isinstance(error, StenoError):
        happened = error.happened if error.cure else ""
        return RunError(code=error.code, message=error.message, happened=happened, retry=error.retry, exit_code=error.exit_code)
    return RunError(code="unexpected", message=f"unexpected {type(error).__name__}")


def outcome_of(run: str, result: TranscribeResult) -> RunOutcome:
    """The outcome of a run that exported a transcript."""
    error = None
    if result.degraded:
        message, happened = result.error or "", result.happened or ""
        error = RunError(code=DiarizationFailed.code, message=message, happened=happened, exit_code=7)
    return RunOutcome(
        run=run,
        state="partial" if result.degraded else "completed",
        result=result,
        error=error,
        stages=result.stages,
        warnings=result.warnings,
    )


async def keep_outcome(outcome: RunOutcome) -> None:
    """Write the outcome, in place of that of an earlier attempt. A store that may only be read does not fail the run."""
    store = get_store()
    try:
        await asyncio.to_thread(store.write_record, f"runs/{outcome.run}", outcome.model_dump_json().encode())
        await asyncio.to_thread(forget_names, store, outcome.run)
    except (OutputNotWritable, StorageFull) as error:
        _log.warning("Could not store the outcome of the run: %s", error.message)


async def read_outcome(run: str) -> RunOutcome | None:
    """How the run ended last; None when it never did, or its record was collected or is damaged."""
    content = await asyncio.to_thread(get_store().read_record, f"runs/{run}")
    try:
        return parsed(RunOutcome, content) if content else None
    except ValueError:
        _log.warning("Could not read the outcome of run %s: its record is damaged.", run)
        return None
