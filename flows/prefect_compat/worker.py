"""Prefect's workers as ours need them: they take no more runs once stopped, and never die of a run that is due again at once.

A run that is retried the moment it ended still holds its slot, and asking for another ends Prefect's worker with a RuntimeError
(https://github.com/PrefectHQ/prefect/issues/16806; mended in 3.9). A worker that is stopped leaves its runs Crashed or Running
(https://github.com/PrefectHQ/prefect/issues/16746); only `prefect flow-run execute` puts them back into the queue, and
`put_back` does the same (`prefect/cli/flow_run.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import warnings
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast
from uuid import UUID

import anyio
from prefect.runner._control_channel import ControlChannel, ControlSignalStatus
from prefect.runner._flow_run_executor import FlowRunExecutorContext
from prefect.runner._process_manager import ProcessHandle
from prefect.settings import get_current_settings
from prefect.states import AwaitingRetry
from prefect.utilities.engine import propose_state
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun


@dataclass
class Serving:
    """State shared between a worker and its stopper."""

    told: asyncio.Event = field(default_factory=asyncio.Event)
    """Set to stop the worker: it takes no more runs."""
    at_work: dict[UUID, FlowRunExecutorContext] = field(default_factory=dict)
    """What the runs that have processes are stopped by."""


class Process(Protocol):
    """What executes one run, and others before and after it."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...


class Processes(Protocol):
    """Processes that execute runs (`deployments.warm`). No pool, deployment or run can set what they are started with: whoever may call
    the API may write these."""

    async def begin(self, run: Mapping[str, str]) -> Any: ...
    async def ended(self, process: Any) -> int: ...


class Turn:
    """One run's use of a process, as Prefect's executor sees a process: it ends with the run, and cannot be killed any more then."""

    wait_after_graceful_kill = True

    def __init__(self, process: Process) -> None:
        self._process = process
        self.pid = process.pid
        self.returncode: int | None = None

    def is_alive(self, pid: int) -> bool:
        return self.returncode is None and self._process.returncode is None

    def graceful_kill(self, pid: int) -> None:
        self._send(signal.SIGTERM)

    def hard_kill(self, pid: int) -> None:
        self._send(signal.SIGKILL)

    def close(self) -> None:
        """Nothing: the process has other turns."""

    def _send(self, number: signal.Signals) -> None:
        if not self.is_alive(self.pid):
            raise ProcessLookupError
        os.kill(self.pid, number)


class TurnStarter:
    """Starts a run in a process that there is, as `EngineCommandStarter` starts one for it."""

    def __init__(self, processes: Processes, channel: ControlChannel) -> None:
        self._processes = processes
        self._channel = channel

    async def start(self, flow_run: FlowRun, task_status: Any = anyio.TASK_STATUS_IGNORED) -> None:
        """Return when the run has ended."""
        variables = {"PREFECT__FLOW_RUN_ID": str(flow_run.id), "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false"}
        with contextlib.suppress(RuntimeError):  # no loopback: the process is then ended without being told why
            port, token = self._channel.register(flow_run.id)
            variables |= {"PREFECT__CONTROL_PORT": str(port), "PREFECT__CONTROL_TOKEN": token}
        process = await self._processes.begin(variables)
        turn = Turn(process)
        task_status.started(ProcessHandle(cast(Any, turn), termination_scope=turn))
        turn.returncode = await self._processes.ended(process)


def settings_of_prefect() -> dict[str, str]:
    """This process's settings of Prefect, as variables for a process that executes runs."""
    return get_current_settings().to_environment_variables(exclude_unset=True)


class NoHooks:
    """Our flows have none. Prefect would load the code that the deployment names, in the worker, to look for them."""

    async def run_cancellation_hooks(self, flow_run: Any, state: Any) -> None:
        pass

    async def run_crashed_hooks(self, flow_run: Any, state: Any) -> None:
        pass


def process_worker(pool: str, name: str, limit: int | None, processes: Processes, serving: Serving) -> ProcessWorker:
    """Prefect's process worker, which has every run executed by `processes`, and keeps in `serving` what they are stopped by."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*existing type will be overridden")  # which is what ours is for
        kind = _process_worker(processes, serving)
    return kind(work_pool_name=pool, name=name, limit=limit, create_pool_if_not_found=False)


def _process_worker(processes: Processes, serving: Serving) -> type[ProcessWorker]:
    class Configuration(ProcessJobConfiguration):
        @classmethod
        async def from_template_and_values(cls, *_: Any, **__: Any) -> Any:
            return cls()

    class Worker(ProcessWorker):
        job_configuration = Configuration

        async def get_and_submit_flow_runs(self) -> Any:
            return [] if serving.told.is_set() else await super().get_and_submit_flow_runs()

        async def _get_scheduled_flow_runs(self) -> Any:
            """Not those whose last process has only just died."""
            held = {*serving.at_work, *_holders(self)}
            return [found for found in await super()._get_scheduled_flow_runs() if found.flow_run.id not in held]

        async def _submit_scheduled_flow_runs(self, flow_run_response: list[Any]) -> list[Any]:
            return await super()._submit_scheduled_flow_runs(_free(self, flow_run_response))

        async def run(self, flow_run: Any, configuration: Any, task_status: Any = anyio.TASK_STATUS_IGNORED) -> Any:
            """As Prefect's, in a process that there is.

            Prefect's overlooks a run that is cancelled between its submission and the start of its process: it would stay
            Cancelling, and keep its place among the deployment's concurrent runs.
            """
            if await self._cancelled_meanwhile(flow_run):
                task_status.started(None)
                return ProcessWorkerResult(status_code=0, identifier="none")
            results = []
            async with FlowRunExecutorContext() as context:
                starter = TurnStarter(processes, context.control_channel)
                executor = context.create_executor(flow_run, starter, hook_runner=NoHooks(), propose_submitting=False)

                async def execute(*, task_status: Any) -> None:
                    results.append(await executor.submit(task_status=task_status))

                serving.at_work[flow_run.id] = context
                try:
                    async with anyio.create_task_group() as group:
                        handle = await group.start(execute)
                        task_status.started(handle.pid)
                finally:
                    del serving.at_work[flow_run.id]
            if await self._cancelled_meanwhile(flow_run):
                return ProcessWorkerResult(status_code=0, identifier=str(handle.pid))
            if not results or results[0] is None or results[0].status_code is None:
                raise RuntimeError("The run's process could not be started.")
            # The executor has reported the crash of a process that died. Prefect's worker reports it once more when it
            # reads so here, by which time the run may be back in the queue.
            return ProcessWorkerResult(status_code=0, identifier=str(handle.pid))

        async def _cancelled_meanwhile(self, flow_run: Any) -> bool:
            """Whether the run, which has no process, was to be cancelled; it is then."""
            state = (await self.client.read_flow_run(flow_run.id)).state
            if state is None or not (state.is_cancelling() or state.is_cancelled()):
                return False
            if state.is_cancelling():
                await self._mark_flow_run_as_cancelled(flow_run, {"message": "Cancelled before it started."})
            return True

    return Worker


def coroutine_worker(
    kind: str, pool: str, name: str, limit: int, execute: Callable[[FlowRun], Awaitable[None]], serving: Serving
) -> BaseWorker[Any, Any, Any]:
    """A worker whose runs are coroutines of its own process: `execute` each, and raise nothing."""

    class Configuration(BaseJobConfiguration):
        @classmethod
        async def from_template_and_values(cls, *_: Any, **__: Any) -> Any:
            """Nothing is started, so there is nothing that the pool, a deployment or a run could set."""
            return cls()

    class Worker(BaseWorker[BaseJobConfiguration, BaseVariables, BaseWorkerResult]):
        type = kind
        job_configuration = Configuration

        async def get_and_submit_flow_runs(self) -> Any:
            return [] if serving.told.is_set() else await super().get_and_submit_flow_runs()

        async def _submit_scheduled_flow_runs(self, flow_run_response: list[Any]) -> list[Any]:
            return await super()._submit_scheduled_flow_runs(_free(self, flow_run_response))

        async def run(
            self, flow_run: FlowRun, configuration: BaseJobConfiguration, task_status: Any = anyio.TASK_STATUS_IGNORED
        ) -> BaseWorkerResult:
            task_status.started(os.getpid())
            await execute(flow_run)
            return BaseWorkerResult(status_code=0, identifier=str(os.getpid()))

    return Worker(work_pool_name=pool, name=name, limit=limit, create_pool_if_not_found=False, prefetch_seconds=1)


def _holders(worker: BaseWorker[Any, Any, Any]) -> tuple[Any, ...]:
    """The runs that hold a slot."""
    return tuple(worker._limiter.statistics().borrowers) if worker._limiter else ()


def _free(worker: BaseWorker[Any, Any, Any], found: list[Any]) -> list[Any]:
    """Those that hold no slot; the others are taken at the next poll."""
    held = _holders(worker)
    return [entry for entry in found if entry.flow_run.id not in held]


async def put_back(run: UUID, context: FlowRunExecutorContext, message: str, *, grace: float, report: float) -> None:
    """End the run's process within `grace` seconds, and have the run started again by the next worker; harmless for one that has just
    ended. The server, which may be gone, is waited for `report` seconds."""
    told = await context.control_channel.signal(run, "reschedule")
    if told is ControlSignalStatus.ALREADY_CONCLUDED:
        return
    with contextlib.suppress(Exception):
        async with asyncio.timeout(report):
            await propose_state(context.client, AwaitingRetry(message=message), flow_run_id=run)
    # One that does not know why it is ended may not report anything: it would say Crashed.
    await context.process_manager.kill(run, grace, force=told is not ControlSignalStatus.ACKNOWLEDGED)
