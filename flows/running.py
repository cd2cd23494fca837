"""What surrounds the stages of every run: it is counted, can be cancelled, shows its progress and keeps what it uses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from flows.attempts import refuse_after_crashes
from flows.cancellation import cancelled_from_outside
from flows.outcome import RunOutcome, error_of, keep_outcome
from flows.progress import progress_shown
from flows.report import publish_failure
from flows.request import TranscribeRequest
from flows.usage import artifacts_in_use
from stenoflow.errors import StageCancelled
from tasks.report import RunLog, redone_from, run_id


@contextlib.asynccontextmanager
async def running(request: TranscribeRequest) -> AsyncIterator[RunLog]:
    """Run the stages of one recording inside this block. An error leaves it after its report and outcome are written."""
    log = RunLog(redo=redone_from(request.redo_from), backend=request.compute)
    async with artifacts_in_use(request.retention_days), progress_shown(), cancelled_from_outside():
        try:
            await refuse_after_crashes()
            yield log
        except BaseException as error:
            with contextlib.suppress(Exception):
                await _keep_failure(log, request, error)
            raise


async def _keep_failure(log: RunLog, request: TranscribeRequest, error: BaseException) -> None:
    cancelled = isinstance(error, asyncio.CancelledError | StageCancelled)
    outcome = RunOutcome(
        run=run_id(),
        state="canceled" if cancelled else "failed",
        error=None if cancelled else error_of(error),
        stages=log.in_order(),
        warnings=tuple(log.warnings),
    )
    await keep_outcome(outcome)
    if not cancelled:
        await publish_failure(log, request, error)
