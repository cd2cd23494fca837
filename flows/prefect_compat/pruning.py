"""What our server answers beyond Prefect's API: old runs of ours leave its database, and what a run left is erased.

The routes are on Prefect's API app, behind the same authentication; private to our clients (`flows.upkeep`), and in no schema. Runs
of other people's flows are left alone.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from prefect.server.database import orm_models as orm
from prefect.server.schemas.states import TERMINAL_STATES

from flows.prefect_compat.database import on_sqlite, transaction
from flows.prefect_compat.erasing import StoredEvents, erase, erase_events, rows_of
from flows.upkeep import ERASE, OURS, PRUNE, Ages, Erasure, Pruned

_RUNS = 50
"""In one transaction, which locks SQLite for writing."""
_EVENTS = 1000
_WORTH_IT = 0.1
"""Share of SQLite's pages that are free from which on the file is written anew; until then they are used again."""


def add_to(app: Any, stored: StoredEvents) -> None:
    """Add the routes to what `prefect.server.api.server.create_app` made; its `api_app` is what is served under `/api`."""

    async def erased(erasure: Erasure) -> dict[str, int]:
        stored.forget(erasure.runs)
        async with transaction() as session:
            count = await erase(session, erasure.runs)
        await _forget_log()
        return {"rows": count}

    async def pruned(ages: Ages) -> Pruned:
        return await _prune(ages, stored)

    app.api_app.add_api_route(ERASE, erased, methods=["POST"], include_in_schema=False)
    app.api_app.add_api_route(PRUNE, pruned, methods=["POST"], include_in_schema=False)


async def _prune(ages: Ages, stored: StoredEvents) -> Pruned:
    """Delete what is older, in many short transactions; what that was."""
    runs: list[UUID] = []
    if ages.run_days is not None:
        runs += await _prune_runs(orm.FlowRun.state_timestamp < _ago(ages.run_days), stored, dry_run=ages.dry_run)
    for start in range(0, len(ages.runs), _RUNS):
        these = [run for run in ages.runs[start : start + _RUNS] if run not in runs]
        runs += await _prune_runs(orm.FlowRun.id.in_(these), stored, dry_run=ages.dry_run)
    events = await _prune_events(_ago(ages.event_days), ages.dry_run) if ages.event_days is not None else 0
    logs = await _prune_logs(_ago(ages.log_days), ages.dry_run) if ages.log_days is not None else 0
    if not ages.dry_run:
        await _shrink()
    return Pruned(runs=tuple(map(str, runs)), events=events, logs=logs)


async def _prune_runs(which: Any, stored: StoredEvents, *, dry_run: bool) -> list[UUID]:
    """Delete our ended runs of which that is true, with all that they left; their ids."""
    run, pruned = orm.FlowRun, list[UUID]()
    chosen = sa.select(run.id).where(run.state_type.in_(TERMINAL_STATES), run.flow_id.in_(_flows()), which)
    while True:
        async with transaction() as session:
            if dry_run:
                return list(await session.scalars(chosen))
            found = list(await session.scalars(chosen.limit(_RUNS)))
            stored.forget(found)
            await erase(session, found)
            await rows_of(session, sa.delete(run).where(run.id.in_(found)))
        pruned += found
        if not found:
            return pruned


async def _prune_events(before: datetime, dry_run: bool) -> int:
    """Of our flows' runs, and those of runs that are gone."""
    async with transaction() as session:
        flows = list(await session.scalars(_flows()))
    resource, count = orm.EventResource, 0
    named = resource.resource_id.in_([f"prefect.flow.{flow}" for flow in flows])
    while True:
        async with transaction() as session:
            old = sa.select(resource.event_id).where(named, resource.occurred < before)
            if dry_run:
                return len(set(await session.scalars(old)))
            found = list(set(await session.scalars(old.limit(_EVENTS))))
            await erase_events(session, found)
        count += len(found)
        if not found:
            return count


async def _prune_logs(before: datetime, dry_run: bool) -> int:
    run, log = orm.FlowRun, orm.Log
    of_ours = sa.select(run.id).where(run.flow_id.in_(_flows()), run.state_type.in_(TERMINAL_STATES))
    old = sa.and_(log.timestamp < before, log.flow_run_id.in_(of_ours))
    async with transaction() as session:
        if dry_run:
            return int(await session.scalar(sa.select(sa.func.count()).select_from(log).where(old)) or 0)
        return await rows_of(session, sa.delete(log).where(old))


async def _shrink() -> None:
    """Give the space of deleted rows back, and keep nothing of them in the write-ahead log. PostgreSQL does so by itself."""
    counts = await on_sqlite("PRAGMA freelist_count", "PRAGMA page_count")
    if counts and counts[0] > _WORTH_IT * counts[1]:
        await on_sqlite("VACUUM")
    await _forget_log()


async def _forget_log() -> None:
    """Keep nothing of what was deleted in SQLite's write-ahead log; while there are readers, the next time."""
    await on_sqlite("PRAGMA wal_checkpoint(TRUNCATE)")


def _flows() -> Any:
    return sa.select(orm.Flow.id).where(orm.Flow.name.in_(OURS))


def _ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)
