"""Runs whose process is gone without a word: it was killed, or its machine was switched off.

A run that a command makes is labelled with the command's process, from its first moment. While a run is at work on this
machine, `running/<run>` under STENO_HOME says in which process, whoever made it. Whoever comes next here (a command, `steno
up`) ends the runs whose process has exited, immediately; Prefect's automation needs 90 s of silence for that, and runs at the
command line have no worker that would report them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from infra.processes import has_exited, this_process
from infra.settings import get_settings

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State

GONE = "The process ended without reporting it: it was killed, or the machine went down. Finished stages are kept."
NEVER_BEGUN = "The command ended before the run started."
FLOWS = ("transcribe", "batch", "evaluate")
_LABEL = "stenoflow.process"
_KEPT_DAYS = 30
"""Days after which a mark is removed whose run is not known here: it was another server's."""
BEGINS_WITHIN = timedelta(seconds=60)
"""A run of a command begins at once; one that is pending for longer has lost its command, on whatever machine that was."""
_PAGE = 200


def label() -> dict[str, str]:
    """The label of a run that this process makes, and executes or has executed."""
    return {_LABEL: this_process()}


async def claim(client: PrefectClient, run: FlowRun) -> None:
    """Label a run that another process may have made as this one's, which is about to execute it."""
    if run.labels.get(_LABEL) != this_process():
        await client.update_flow_run_labels(run.id, dict(label()))


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


async def end_orphans() -> int:
    """End the runs of this machine whose process is gone; how many there were. Raises what Prefect's client raises."""
    from prefect.client.orchestration import get_client

    ended = 0
    async with get_client() as client:
        for mark in _left():
            ended += await _end_if_orphan(client, mark)
        for run in await _unfinished(client):
            if await _lost_its_command(client, run):
                await _end(client, run, NEVER_BEGUN if _is_pending(run) else GONE)
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
                if has_exited(path.read_text(errors="replace")):
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
    """End the run and its tasks, as cancelled if that was requested."""
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


async def _unfinished(client: PrefectClient) -> list[FlowRun]:
    """The runs that a command may have made and not lived to end."""
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter, FlowRunFilterState

    at_work = FlowRunFilterState.model_validate({"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}})
    ours = FlowFilter(name=FlowFilterName(any_=list(FLOWS)))
    found: list[FlowRun] = []
    while page := await client.read_flow_runs(
        flow_filter=ours, flow_run_filter=FlowRunFilter(state=at_work), limit=_PAGE, offset=len(found)
    ):
        found += page
    return found


async def _lost_its_command(client: PrefectClient, run: FlowRun) -> bool:
    if (_folder() / str(run.id)).exists():
        return False  # its mark is more exact than its label
    process = str(run.labels.get(_LABEL, ""))
    if not has_exited(process):
        return _is_late(run)
    run = await client.read_flow_run(run.id)  # another one may have claimed it since
    if run.labels.get(_LABEL) != process or run.state is None or run.state.is_final():
        return False
    # A run that was ever scheduled is a worker's to execute, whoever made it.
    return not any(state.is_scheduled() for state in await client.read_flow_run_states(run.id))


def _is_late(run: FlowRun) -> bool:
    """Whether a run of a command, on whatever machine, should have begun long ago."""
    if run.deployment_id is not None or run.parent_task_run_id is not None or run.state is None:
        return False
    return _is_pending(run) and run.state.timestamp < datetime.now(UTC) - BEGINS_WITHIN


def _is_pending(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_pending()
