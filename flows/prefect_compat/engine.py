"""What executes our runs, where Prefect's documented interface does not reach: runs made elsewhere, signals, edges, records.

Imported by the tasks as well, so nothing of ours is imported here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast
from uuid import UUID

from prefect.filesystems import WritableFileSystem

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun, State

T = TypeVar("T")
SENT_WITHIN = 10.0
"""Seconds for a run's last log lines and events to reach the API, which may be away."""

# -- executing a run that there is already ------------------------------------------------------------------------------


async def execute(flow: Flow[..., Any], run: FlowRun) -> State[Any]:
    """Execute the run in this event loop, with the parameters that it was made with; how it ended. A flow's own call makes a new run."""
    from prefect.flow_engine import run_flow_async

    # The parameters are JSON, as the API stores them; the flow validates them.
    state: Any = await run_flow_async(flow, flow_run=run, parameters=dict(run.parameters), return_type="state")
    return cast("State[Any]", state)


async def result_of(flow: Flow[..., Awaitable[T]], run: FlowRun, parameters: dict[str, Any]) -> T:
    """Execute the run as `execute` does, with parameters of this process; its result. Raises what the flow raises."""
    from prefect.flow_engine import run_flow_async

    result: Any = await run_flow_async(flow, flow_run=run, parameters=parameters)
    return cast("T", result)


def execute_for_worker(
    flow_of: Callable[[FlowRun], Awaitable[Flow[..., Any] | None]], runner: asyncio.Runner
) -> State[Any] | None:
    """Execute the run that the environment names, as `python -m prefect.engine` does, but for what it loads; how it ended.

    `flow_of` names the flow; None where the run is not to be executed. On the main thread, where the engine takes SIGTERM for its
    own. Raises SystemExit where the run was cancelled or is put back.
    """
    from prefect._internal.control_listener import configure_from_env
    from prefect.engine import handle_engine_signals

    run_id = UUID(os.environ["PREFECT__FLOW_RUN_ID"])
    configure_from_env()  # how the worker tells this process that it is cancelled, and learns how it ended
    with handle_engine_signals(run_id):
        from prefect.flow_engine import load_flow_run

        run = load_flow_run(run_id)
        try:
            # A context of its own, so that it leaves nothing to the next one.
            return runner.run(_execute_as(flow_of, run), context=copy_context())
        except BaseException:
            runner.close()  # SIGTERM leaves the loop and not the run, which has to end while it is known why
            raise
    return None


async def _execute_as(flow_of: Callable[[FlowRun], Awaitable[Flow[..., Any] | None]], run: FlowRun) -> State[Any] | None:
    from prefect.context import AsyncClientContext
    from prefect.flow_engine import run_flow

    async with (
        AsyncClientContext.get_or_create()
    ):  # one client: Prefect makes several otherwise, and reads certificates for each
        flow = await flow_of(run)
        if flow is None:
            return None
        executing: Any = run_flow(flow, flow_run=run, return_type="state")
        return cast("State[Any]", await executing)


def nothing_left(runner: asyncio.Runner) -> bool:
    """Flush what the run before wrote, and say whether nothing else of it is left in this process."""
    from prefect._internal import control_listener

    flush()
    control_listener.stop()
    return control_listener.get_intent() is None and not asyncio.all_tasks(runner.get_loop())


def environment_of_no_run() -> dict[str, str]:
    """This process's environment, without what says which flow run it executes and which worker watches it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT__FLOW", "PREFECT__CONTROL"))}


# -- ending it ----------------------------------------------------------------------------------------------------------


def keep_signals() -> None:
    """Have SIGTERM end this command in order, as its own handler does.

    A flow run in the main thread would install a handler that raises TerminationSignal wherever the event loop is, and so out of
    it: a traceback (https://github.com/PrefectHQ/prefect/issues/23025 is of the same handler). What it does for Prefect's own runner
    has no use in a command.
    """
    from prefect import flow_engine

    vars(flow_engine)["capture_sigterm"] = contextlib.nullcontext


def flush() -> None:
    """Send the API the logs and events that are waiting, as far as it takes them within a few seconds."""
    from prefect.events.worker import EventsWorker

    send_logs(SENT_WITHIN)
    EventsWorker.drain_all(timeout=SENT_WITHIN)


def leave() -> NoReturn:
    """End this process. Python's own end would wait for as long as Prefect's API is away."""
    flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def send_logs(timeout: float) -> None:
    """Flush the log to the API, for at most so many seconds; Prefect does so only when Python ends."""
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=timeout)


def keep_no_result() -> None:
    """Leave out the record of the task run around this: the state that it returns would be cached as the stage's result."""
    from prefect.transactions import get_transaction

    if (transaction := get_transaction()) is not None:
        transaction.write_on_commit = False


# -- what is drawn and kept ---------------------------------------------------------------------------------------------


class _Forgetful(dict[int, Any]):
    """Keeps nothing."""

    def __setitem__(self, key: int, value: Any) -> None:
        pass


def no_chance_edges() -> None:
    """Have Prefect draw no edges of its own in the flow run that is executed here.

    It remembers each result by its address, and takes whatever comes to lie there later for the result: an arrow that
    means nothing (https://github.com/PrefectHQ/prefect/issues/20558).
    """
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context is not None and not isinstance(context.run_results, _Forgetful):
        context.run_results = _Forgetful()


class KeyedStorage(WritableFileSystem):
    """Result storage whose keys are names in it, not paths of this machine."""

    def _resolve_path(self, path: str) -> None:
        """None: Prefect would ask for a path's absolute form, and take that for the key (`ResultStore._resolved_key_path`)."""
