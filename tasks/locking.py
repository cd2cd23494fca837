"""Each stage once: runs that need the same stage at the same time compute it once, wherever they run.

Prefect's transactions take a lock before they look for a result, and release it after they have kept one, or after the
stage has failed (also between two attempts, so that a run that waits can go on). This manager leaves the lock out where
the result is there already, so that a cached stage costs no more than reading its record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from prefect import get_run_logger
from prefect.context import TaskRunContext

from infra.compute import get_store
from infra.locks import Claim
from infra.progress import StageEvent, publish
from tasks.records import forget, look_up
from tasks.report import run_id

WAITING = "waiting for another run that computes the same stage"
_FIRST_PAUSE, _SHORT_PAUSE, _LONGEST_PAUSE = 0.1, 0.3, 1.0


class StageLocks:
    """Prefect's `LockManager` on `infra.locks`; keys are those of stages."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], Claim | None] = {}
        """By key and holder; None where the result was there, so that there is nothing to lock."""

    async def aacquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """Wait until the stage is computed, or is this run's to compute. Cancelling the run ends the waiting."""
        context = TaskRunContext.get()
        again = context is not None and bool(context.task.refresh_cache)

        async def there() -> bool:
            return not again and await look_up(key)

        async with asyncio.timeout(acquire_timeout):
            shown = context.task.name if context is not None else ""
            self._held[key, holder] = None if await there() else await claimed(key, there, shown)
        return True

    def release_lock(self, key: str, holder: str) -> None:
        forget()
        if (claim := self._held.pop((key, holder), None)) is not None:
            claim.release()

    def is_lock_holder(self, key: str, holder: str) -> bool:
        return (key, holder) in self._held

    def is_locked(self, key: str) -> bool:
        return any(claim is not None for (held, _), claim in list(self._held.items()) if held == key)

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:  # noqa: ASYNC109
        """True at once: whoever reads a record without having asked for its lock gets what is there."""
        return True

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        return True

    def acquire_lock(self, key: str, holder: str, acquire_timeout: Any = None, hold_timeout: Any = None) -> bool:
        raise NotImplementedError("Stages are asynchronous tasks; see aacquire_lock.")


async def claimed(name: str, there: Callable[[], Awaitable[bool]], stage: str) -> Claim | None:
    """The lock of that name, held; or None when, after waiting or not, `there` says that it is not needed any more.

    While others hold it, one of this process asks the store now and then and the others wait for that one, so that many
    may wait at little cost. Says in the log that it waits, and for what.
    """
    locks = (await asyncio.to_thread(get_store)).locks
    pause, waited = _FIRST_PAUSE, False
    mine: Claim | None = None
    other: Claim | None = None
    try:
        while True:
            if waited and (mine is not None or (other is not None and other.released)) and await there():
                return None
            if mine is None:
                claim, new = locks.claim(name)
                mine, other = (claim, None) if new else (None, claim)
            if mine is not None and await asyncio.to_thread(mine.try_acquire):
                if await there():
                    return None
                held, mine = mine, None
                return held
            if not waited:
                waited = True
                get_run_logger().info("%s: %s", stage, WAITING)
                publish(StageEvent(run_id(), stage, "progress", detail=WAITING))
            await asyncio.sleep(pause)
            # Who waits for another run of this process asks nobody and may look often.
            pause = min(pause * 1.5, _LONGEST_PAUSE if mine is not None else _SHORT_PAUSE)
    finally:
        if mine is not None:
            mine.release()
