"""What runs leave in Prefect's database and in the store: erased with a run, pruned by age, collected.

Our own Prefect server is asked for more than Prefect's API offers (`flows.prefect_compat.pruning` answers); one that somebody else
started does not know of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import Field

from infra import usage
from infra.collect import DAY, Limits, collect
from infra.collected import Collected
from infra.compute import get_store
from infra.settings import StenoSettings
from infra.store import Store
from stenoflow.types import Frozen

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

ERASE, PRUNE = "/stenoflow/erase", "/stenoflow/prune"
OURS = ("transcribe", "batch", "evaluate", "gc", "notify")
"""Our flows, by their names."""
_PRUNING = 1800.0
"""Seconds that pruning may take: years of runs, the first time."""
PROGRESS = ("listing", "remov", "would remove")
"""Prefixes of progress lines."""
NOT_OURS = "The Prefect server was not started by Stenoflow: its own settings determine the retention of runs and events."


class Erasure(Frozen):
    """Ended runs to erase: all they left but their rows."""

    runs: tuple[UUID, ...] = Field(max_length=200)


class Ages(Frozen):
    """Days after which is deleted what ended runs of ours left; never where it is None."""

    run_days: float | None = Field(None, ge=0)
    event_days: float | None = Field(None, ge=0)
    log_days: float | None = Field(None, ge=0)
    runs: tuple[UUID, ...] = ()
    """Runs to delete whatever their age, if they have ended."""
    dry_run: bool = False


class Pruned(Frozen):
    """What was or would be deleted."""

    runs: tuple[str, ...] = ()
    """Their ids."""
    events: int = 0
    logs: int = 0


async def erase(client: PrefectClient, runs: Iterable[UUID]) -> bool:
    """Have everything deleted that these ended runs left in Prefect's database, but their own rows; False where the server
    is not ours. Raises httpx's errors."""
    body = Erasure(runs=tuple(runs)).model_dump(mode="json")
    return await _ask(client, ERASE, body) is not None


async def prune(client: PrefectClient, ages: Ages) -> Pruned | None:
    """Have old runs of ours deleted with all that they left; None where the server is not ours. Raises httpx's errors."""
    answer = await _ask(client, PRUNE, ages.model_dump(mode="json"), timeout=_PRUNING)
    return None if answer is None else Pruned.model_validate(answer)


async def _ask(client: PrefectClient, path: str, body: dict[str, Any], **options: Any) -> Any:
    import httpx

    try:
        response = await client.request("POST", path, json=body, **options)  # type: ignore[arg-type]
    except httpx.HTTPStatusError as error:
        if error.response.status_code in (404, 405):
            return None
        raise
    response.raise_for_status()
    return response.json()


# -- with the store -----------------------------------------------------------------------------------------------------


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
        runs=tuple(await asyncio.to_thread(_expired_runs, store, kept.grace_hours * 3600)),
        dry_run=limits.dry_run,
    )
    pruned = await prune(client, ages) if client is not None else None
    if pruned is not None and not limits.dry_run:
        await asyncio.to_thread(_release_runs, store, pruned.runs)
    if client is not None and pruned is None:
        report(NOT_OURS)
    collected = await asyncio.to_thread(collect, store, settings, limits, report)
    if pruned is None:
        return collected
    return collected.model_copy(update={"runs": len(pruned.runs), "events": pruned.events, "logs": pruned.logs})


def _expired_runs(store: Store, grace: float) -> list[UUID]:
    """Runs whose own retention is over. `grace` in seconds, as for `infra.usage.Use.active`."""
    names = [file.path.rpartition("/")[2] for file in store.files(f"records/{usage.USES}")]
    uses = filter(None, (usage.read_use(store, name) for name in names if not name.startswith(usage.CLAIM)))
    found = []
    for use in uses:
        with contextlib.suppress(ValueError):
            found += [UUID(use.run)] if use.expired(time.time(), grace) else []
    return found


def _release_runs(store: Store, runs: Iterable[str]) -> None:
    """Delete the usage records and outcomes of these ended runs, so that gc can delete their artifacts.

    What a run was promised for longer (`retention_days`) stays until then.
    """
    for run in runs:
        use = usage.read_use(store, run)
        if use is not None and not (use.retention is not None and time.time() < use.beat + use.retention):
            usage.write_use(store, use.model_copy(update={"ended": True, "retention": 0.0}))
        store.delete_record(f"runs/{run}")
