"""What a run uses, written down while it runs, so that collecting garbage leaves it alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from prefect import get_run_logger

from infra.compute import get_store
from infra.names import STDIN
from infra.settings import get_settings
from infra.usage import RunUse, enter, leave
from stenoflow.errors import ArtifactMissing
from tasks.report import run_id

_TIMES_LOST = 2
"""How often a run looks for what it needs from the start again because the same artifact is lost."""
_MOST_LOST = 40
"""And because of different ones: where a store was damaged as a whole, each stage finds out when it reads its input."""

T = TypeVar("T")


@contextlib.asynccontextmanager
async def artifacts_in_use(retention_days: float | None) -> AsyncIterator[None]:
    """Protect the artifacts and records that stages inside this block read or write, and for `retention_days` after it.

    Without `retention_days` the settings' (STENO_RETENTION__DAYS) apply; without those they stay until somebody has them
    collected by age or size.
    """
    run = run_id()
    if not run:
        yield
        return
    days = retention_days if retention_days is not None else get_settings().retention.days
    use = RunUse(await asyncio.to_thread(get_store), run, days)
    await use.begin()
    enter(use)
    beating = asyncio.create_task(use.beat())
    try:
        yield
    finally:
        beating.cancel()
        leave()
        await asyncio.shield(use.end())


async def recomputing_what_is_lost(sources: Sequence[str], stages: Callable[[], Awaitable[T]]) -> T:
    """Run the stages, and run them again when an artifact vanished under them: what is there still comes from the cache.

    Artifacts in use are not collected; this is for those that people delete, or whose disk damages them. Raises
    ArtifactMissing when it happens again and again, or when the recording came from a pipe and cannot be read twice.
    """
    times: Counter[str] = Counter()
    while True:
        try:
            return await stages()
        except ArtifactMissing as lost:
            times[lost.message] += 1
            if STDIN in sources or times[lost.message] > _TIMES_LOST or times.total() > _MOST_LOST:
                raise
            get_run_logger().warning("%s This run recomputes it.", lost.message)
