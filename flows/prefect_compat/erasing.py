"""Rows that a run leaves in Prefect's database and that its public API does not delete: events, logs, states, buckets.

Runs in the server's process, on Prefect's own tables (`prefect.server.database.orm_models`), so that SQLite and PostgreSQL are
one. Prefect 3.8 deletes a run's states, task runs and logs with the run, and never its events, which hold its name, its tags,
and what its reports say.

Three of four of our events are not even stored: they repeat what is in other tables. Prefect records task
runs and evaluates automations from its message bus, not from what is stored.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from prefect.server.database import orm_models as orm
from prefect.server.events.services import event_persister
from sqlalchemy.ext.asyncio import AsyncSession

from flows.artifacts import PREFIX
from flows.upkeep import OURS

_AT_ONCE = 500
"""Ids in one statement; SQLite takes 32,766 parameters."""
_SHOWN_ELSEWHERE = ("prefect.task-run.", "prefect.artifact.", "prefect.artifact-collection.", "prefect.flow-run.heartbeat")
"""Of these an hour has hundreds."""
_REMEMBERED = 10_000


async def erase(session: AsyncSession, runs: Sequence[UUID]) -> int:
    """Delete all that these flow runs left but their own rows and current states, whose messages go; how many rows that were.

    In the caller's transaction. A run that is under way would write more: it has to have ended.
    """
    if not runs:
        return 0
    tasks = list(await session.scalars(sa.select(orm.TaskRun.id).where(orm.TaskRun.flow_run_id.in_(runs))))
    count = await _erase_events(session, runs, tasks)
    count += await _delete(session, orm.Log, orm.Log.flow_run_id, runs) + await _delete(
        session, orm.Log, orm.Log.task_run_id, tasks
    )
    count += await _erase_artifacts(session, runs, tasks)
    count += await _erase_task_runs(session, tasks)
    current = sa.select(orm.FlowRun.state_id).where(orm.FlowRun.id.in_(runs), orm.FlowRun.state_id.is_not(None))
    of_runs = orm.FlowRunState.flow_run_id.in_(runs)
    earlier = sa.delete(orm.FlowRunState).where(of_runs, orm.FlowRunState.id.not_in(current))
    count += await rows_of(session, earlier)
    await session.execute(_table(orm.FlowRunState).update().where(of_runs).values(message=None, data=None))
    return count + await _delete(session, orm.FlowRunInput, orm.FlowRunInput.flow_run_id, runs)


async def _erase_events(session: AsyncSession, runs: Sequence[UUID], tasks: Sequence[UUID]) -> int:
    names = [*(f"prefect.flow-run.{run}" for run in runs), *(f"prefect.task-run.{task}" for task in tasks)]
    resource = orm.EventResource
    events: set[UUID] = set()
    for some in _batched(names):
        events.update(await session.scalars(sa.select(resource.event_id).where(resource.resource_id.in_(some))))
    count = await erase_events(session, list(events))
    # What automations keep of the events they wait for or have seen. These tables are small.
    kept = (
        (orm.AutomationBucket, orm.AutomationBucket.last_event),
        (orm.CompositeTriggerChildFiring, orm.CompositeTriggerChildFiring.child_firing),
        (orm.AutomationEventFollower, orm.AutomationEventFollower.follower),
    )
    for table, column in kept:
        for run in runs:
            count += await rows_of(session, sa.delete(table).where(sa.cast(column, sa.Text).contains(str(run))))
    return count


async def erase_events(session: AsyncSession, events: Sequence[UUID]) -> int:
    """Delete the events of these ids, with the resources that they name."""
    resources = await _delete(session, orm.EventResource, orm.EventResource.event_id, events)
    return resources + await _delete(session, orm.Event, orm.Event.id, events)


async def _erase_artifacts(session: AsyncSession, runs: Sequence[UUID], tasks: Sequence[UUID]) -> int:
    """The artifacts, and what Prefect shows as the latest of their keys, which is a copy: the one before takes its place."""
    count = await _delete(session, orm.Artifact, orm.Artifact.flow_run_id, runs)
    count += await _delete(session, orm.Artifact, orm.Artifact.task_run_id, tasks)
    shown = orm.ArtifactCollection
    left = sa.select(orm.Artifact.id).where(orm.Artifact.id == shown.latest_id).exists()
    for key in list(await session.scalars(sa.select(shown.key).where(~left))):
        newest = sa.select(orm.Artifact).where(orm.Artifact.key == key).order_by(orm.Artifact.created.desc()).limit(1)
        latest = (await session.scalars(newest)).one_or_none()
        if latest is None:
            await session.execute(sa.delete(shown).where(shown.key == key))
            continue
        copied = ("data", "description", "type", "created", "updated", "flow_run_id", "task_run_id", "metadata_")
        values = {name: getattr(latest, name) for name in copied}
        await session.execute(sa.update(shown).where(shown.key == key).values(latest_id=latest.id, **values))
    return count


async def _erase_task_runs(session: AsyncSession, tasks: Sequence[UUID]) -> int:
    for some in _batched(tasks):
        states = sa.select(orm.TaskRunState.id).where(orm.TaskRunState.task_run_id.in_(some))
        cached = orm.TaskRunStateCache.task_run_state_id.in_(states)
        await session.execute(sa.delete(orm.TaskRunStateCache).where(cached))
    states_deleted = await _delete(session, orm.TaskRunState, orm.TaskRunState.task_run_id, tasks)
    return states_deleted + await _delete(session, orm.TaskRun, orm.TaskRun.id, tasks)


def _batched(ids: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE))


def _table(model: Any) -> Any:
    """Its columns as they are, where the model gives one of their names to something else."""
    return model.__table__


async def _delete(session: AsyncSession, table: Any, column: Any, ids: Sequence[UUID]) -> int:
    return sum([await rows_of(session, sa.delete(table).where(column.in_(some))) for some in _batched(ids)])


async def rows_of(session: AsyncSession, statement: Any) -> int:
    """Execute it; how many rows it changed."""
    result: Any = await session.execute(statement.execution_options(synchronize_session=False))
    return int(result.rowcount)


# -- what is not stored -------------------------------------------------------------------------------------------------


class StoredEvents:
    """Which events the server of this process stores."""

    def __init__(self) -> None:
        self._erased: OrderedDict[str, None] = OrderedDict()
        """The runs erased last, by the name that events have for them."""

    def forget(self, runs: Iterable[UUID]) -> None:
        """Store no event of these runs that is still on its way: Prefect gathers them for some seconds before it writes."""
        self._erased.update((f"prefect.flow-run.{run}", None) for run in runs)
        while len(self._erased) > _REMEMBERED:
            self._erased.popitem(last=False)

    def stores(self, event: Any) -> bool:
        """Whether to store the event: all of other flows; of ours, those found nowhere else and not erased."""
        if any(resource.id in self._erased for resource in event.involved_resources):
            return False
        if not event.event.startswith(_SHOWN_ELSEWHERE):
            return True
        if any(resource.role == "flow" and resource.get("prefect.resource.name") in OURS for resource in event.related):
            return False
        return not str(event.resource.get("prefect.resource.name")).startswith(f"{PREFIX}-")


def store_fewer_events() -> StoredEvents:
    """Have the server of this process store no others. Before its services start."""
    persister: Any = event_persister
    write: Any = persister.write_events
    stored = StoredEvents()

    async def write_stored(session: Any, events: Sequence[Any]) -> None:
        await write(session=session, events=[event for event in events if stored.stores(event)])

    persister.write_events = write_stored
    return stored
