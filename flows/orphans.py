"""Runs whose process is gone without a word: it was killed, or its machine was switched off.

While a run is at work on this machine, `running/<run>` under STENO_HOME says in which process. Whoever comes next here (a
command, `steno up`) ends the runs whose process is no more, at once; Prefect's automation needs 90 s of silence for that, and
runs at the command line have no worker that would report them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from infra.processes import is_gone, this_process
from infra.settings import get_settings

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State

GONE = "Its process ended without saying so: it was killed, or its machine was switched off. Finished stages are kept."
NEVER_BEGUN = "Its command ended before the run began."
FLOWS = ("transcribe", "batch", "evaluate")
_KEPT_DAYS = 30
"""Days after which a mark is removed whose run is not known here: it was another server's."""
BEGINS_WITHIN = timedelta(seconds=60)
"""A run of a command begins at once; one that is pending for longer has lost its command."""
_PAGE = 200


@contextlib.contextmanager
def marked() -> Iterator[None]:
    """Have this machine know, while the block lasts, that this process is at work on the flow run around it. A mark that cannot
    be written is left out: the run matters more."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        yield
        return
    path = _folder() / str(context.flow_run.id)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(this_process())
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


async def end_orphans(client: PrefectClient) -> int:
    """End the runs of this machine whose process is gone; how many there were. Raises what Prefect's client raises."""
    ended = 0
    for mark in _left():
        ended += await _end_if_orphan(client, mark)
    for run in await _never_begun(client):
        await _end(client, run, NEVER_BEGUN)
        ended += 1
    return ended


class Mark(NamedTuple):
    """What a process that is gone left."""

    run: UUID
    path: Path
    written: float
    """Seconds since 1970."""

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink()


def _folder() -> Path:
    return get_settings().home_path / "running"


def _left() -> list[Mark]:
    """The marks of processes that are gone."""
    found = []
    with contextlib.suppress(OSError):
        for path in sorted(_folder().iterdir()):
            with contextlib.suppress(OSError, ValueError):
                if is_gone(path.read_text(errors="replace")):
                    found.append(Mark(UUID(path.name), path, path.stat().st_mtime))
    return found


async def _end_if_orphan(client: PrefectClient, mark: Mark) -> bool:
    from prefect.exceptions import ObjectNotFound

    try:
        run = await client.read_flow_run(mark.run)
    except ObjectNotFound:
        if time.time() - mark.written > _KEPT_DAYS * 86_400:
            mark.remove()
        return False
    orphan = _is_orphan(run, mark.written)
    if orphan:
        await _end(client, run, GONE)
    elif run.state is not None and run.state.is_final():
        await _end_tasks(client, run, GONE)  # whoever ended the run, in a hurry, left them
    mark.remove()
    return orphan


def _is_orphan(run: FlowRun, written: float) -> bool:
    """Whether the run is still in the state that the process which left the mark had put it into."""
    state = run.state
    if state is None or not (state.is_running() or state.is_cancelling()):
        return False
    # A later execution has entered Running, and is about to write its own mark.
    return state.is_cancelling() or state.timestamp.timestamp() <= written


async def _end(client: PrefectClient, run: FlowRun, message: str) -> None:
    """End the run and its tasks, as cancelled where somebody had asked for that."""
    await _end_tasks(client, run, message)
    await client.set_flow_run_state(run.id, _ended(run)(message=message), force=True)


async def _end_tasks(client: PrefectClient, run: FlowRun, message: str) -> None:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    tasks = await client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])), limit=_PAGE)
    for task in tasks:
        if task.state is None or not task.state.is_final():
            await client.set_task_run_state(task.id, _ended(run)(message=message), force=True)


def _ended(run: FlowRun) -> Callable[..., State]:
    from prefect.states import Cancelled, Crashed

    asked_for = run.state is not None and (run.state.is_cancelling() or run.state.is_cancelled())
    return Cancelled if asked_for else Crashed


async def _never_begun(client: PrefectClient) -> list[FlowRun]:
    """Runs that a command made, and that it did not live to begin."""
    from prefect.client.schemas.filters import (
        FlowFilter,
        FlowFilterName,
        FlowRunFilter,
        FlowRunFilterDeploymentId,
        FlowRunFilterParentTaskRunId,
        FlowRunFilterState,
    )

    pending = FlowRunFilter(
        state=FlowRunFilterState.model_validate({"type": {"any_": ["PENDING"]}}),
        deployment_id=FlowRunFilterDeploymentId(is_null_=True),
        parent_task_run_id=FlowRunFilterParentTaskRunId(is_null_=True),
    )
    ours = FlowFilter(name=FlowFilterName(any_=list(FLOWS)))
    found = await client.read_flow_runs(flow_filter=ours, flow_run_filter=pending, limit=_PAGE)
    before = datetime.now(UTC) - BEGINS_WITHIN
    return [run for run in found if run.state is not None and run.state.timestamp < before]
