"""Watching a run that another process executes, by what Prefect knows of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from infra.progress import StageEvent

if TYPE_CHECKING:
    from datetime import datetime

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, TaskRun

_PAUSE = 1.0


async def followed(client: PrefectClient, run_id: UUID, tell: Callable[[StageEvent], None]) -> FlowRun:
    """Emit an event for each stage that starts or ends, and return the run once it has ended.

    Emits no events for stages of earlier executions of the run.
    """
    seen: set[tuple[UUID, str]] = set()
    run = await client.read_flow_run(run_id)
    since = run.state.timestamp if run.state is not None else run.created
    while True:
        run = await client.read_flow_run(run_id)
        for task_run in await _task_runs(client, run_id):
            event = _event(task_run, since)
            if event is not None and (task_run.id, event.state) not in seen:
                seen.add((task_run.id, event.state))
                tell(event)
        if run.state is not None and run.state.is_final():
            return run
        await asyncio.sleep(_PAUSE)


async def _task_runs(client: PrefectClient, run_id: UUID) -> list[TaskRun]:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.sorting import TaskRunSort

    return await client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])), sort=TaskRunSort.EXPECTED_START_TIME_ASC
    )


def _event(task_run: TaskRun, since: datetime | None) -> StageEvent | None:
    """What the task run's state says of its stage; None for one that has not begun, or did so before `since`."""
    state, began = task_run.state, task_run.start_time
    if state is None or began is None or (since is not None and began < since):
        return None
    seconds = round(task_run.total_run_time.total_seconds(), 3) if state.is_final() else None
    kind: Literal["started", "cached", "completed", "failed"]
    if state.is_completed():
        kind = "cached" if state.name == "Cached" else "completed"
    else:
        kind = "failed" if state.is_final() else "started"
    detail = "tries again" if state.name in ("AwaitingRetry", "Retrying") else ""
    return StageEvent(str(task_run.flow_run_id), task_run.name.split()[0], kind, float(kind != "started"), seconds, detail)
