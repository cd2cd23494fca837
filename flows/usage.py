"""What a run uses, written down while it runs, so that collecting garbage leaves it alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from infra.compute import get_store
from infra.settings import get_settings
from infra.usage import RunUse, enter, leave
from tasks.report import run_id


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
