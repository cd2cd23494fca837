"""Pruning Prefect's database and collecting the store's garbage, in this order: what only pruned runs used goes with them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from flows.upkeep.asking import Ages, prune
from flows.upkeep.store import expired_runs, release_runs
from infra.collect import DAY, Limits, collect
from infra.collected import Collected
from infra.compute import get_store
from infra.settings import StenoSettings

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

PROGRESS = ("listing", "remov", "would remove")
"""Beginnings of the lines that tell what is being done."""
NOT_OURS = "Prefect's server was not started by Stenoflow: its own settings say how long it keeps runs and events."


async def collected_everywhere(
    client: PrefectClient | None, settings: StenoSettings, limits: Limits, report: Callable[[str], None]
) -> Collected:
    """What was removed, by the settings' retention and these limits; without a client the store's alone.

    Raises httpx's errors, and those of `infra.collect.collect`.
    """
    store, kept = await asyncio.to_thread(get_store, settings), settings.retention
    wanted = [kept.run_days, None if limits.older_than is None else limits.older_than / DAY]
    ages = Ages(
        run_days=min((days for days in wanted if days is not None), default=None),
        event_days=kept.event_days,
        log_days=kept.log_days,
        runs=tuple(await asyncio.to_thread(expired_runs, store, kept.grace_hours * 3600)),
        dry_run=limits.dry_run,
    )
    pruned = await prune(client, ages) if client is not None else None
    if pruned is not None and not limits.dry_run:
        await asyncio.to_thread(release_runs, store, pruned.runs)
    if client is not None and pruned is None:
        report(NOT_OURS)
    collected = await asyncio.to_thread(collect, store, settings, limits, report)
    if pruned is None:
        return collected
    return collected.model_copy(update={"runs": len(pruned.runs), "events": pruned.events, "logs": pruned.logs})
