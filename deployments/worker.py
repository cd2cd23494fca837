"""A worker as a process of its own: takes runs from the pool, starts each in a process, ends with its parent.

`python -m deployments.worker POOL NAME LIMIT`

Told to end, it takes no more runs, puts those at work back into the queue, gives their processes half a minute to end, and
ends. Prefect's own worker leaves such runs Crashed, which would count against them and be reported as a failure; only
`prefect flow-run execute` knows how to do better, and this does the same (`prefect/cli/flow_run.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments.environment import flow_environment
from infra.settings import get_settings
from stenoflow import isolated

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.runner._flow_run_executor import FlowRunExecutorContext
    from prefect.workers.process import ProcessWorker

PUT_BACK = "Put back into the queue: its worker was stopped."
GRACE = 30.0
"""Seconds that a run's process has to end."""
REPORT = 10.0
"""Seconds to tell the server, which may be gone as well."""


class NoHooks:
    """Our flows have none. Prefect would load the code that the deployment names, in the worker, to look for them."""

    async def run_cancellation_hooks(self, flow_run: Any, state: Any) -> None:
        pass

    async def run_crashed_hooks(self, flow_run: Any, state: Any) -> None:
        pass


def make_worker(
    pool: str, name: str, limit: int | None, at_work: dict[UUID, FlowRunExecutorContext], told: asyncio.Event
) -> ProcessWorker:
    """Prefect's process worker, which keeps in `at_work` what its runs are stopped by, and once told to end takes no more.

    Defined in here because importing Prefect's takes seconds.
    """
    import anyio
    from prefect.runner._flow_run_executor import FlowRunExecutorContext
    from prefect.runner._starter_engine import EngineCommandStarter
    from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

    class Configuration(ProcessJobConfiguration):
        @classmethod
        async def from_template_and_values(cls, *_: Any, **__: Any) -> Any:
            """The worker's own: whoever may call the API may write the pool's template, and what runs and deployments set."""
            workdir = get_settings().workdir_path
            return cls(
                command=shlex.join(isolated.command("deployments.execute")),
                env=dict(flow_environment()),
                working_dir=workdir,
                stream_output=True,
            )

    class Worker(ProcessWorker):
        job_configuration = Configuration

        async def get_and_submit_flow_runs(self) -> Any:
            return [] if told.is_set() else await super().get_and_submit_flow_runs()

        async def _get_scheduled_flow_runs(self) -> Any:
            """Not those whose last process has only just died: Prefect's worker dies of taking one again so soon."""
            held = {*at_work, *(self._limiter.statistics().borrowers if self._limiter else ())}
            return [found for found in await super()._get_scheduled_flow_runs() if found.flow_run.id not in held]

        async def _submit_scheduled_flow_runs(self, flow_run_response: list[Any]) -> list[Any]:
            # One retried the moment it ended still holds its slot; asking for another would end the worker with a
            # RuntimeError (prefect/workers/base.py, 3.8). It is taken at the next poll.
            held = self._limiter.statistics().borrowers if self._limiter else ()
            free = [entry for entry in flow_run_response if entry.flow_run.id not in held]
            return await super()._submit_scheduled_flow_runs(free)

        async def run(self, flow_run: Any, configuration: Any, task_status: Any = anyio.TASK_STATUS_IGNORED) -> Any:
            """As Prefect's, for a command that is known; and the working directory need not exist yet.

            Prefect's overlooks a run that is cancelled between its submission and the start of its process: it would stay
            Cancelling, and keep its place among the deployment's concurrent runs.
            """
            if await self._cancelled_meanwhile(flow_run):
                task_status.started(None)
                return ProcessWorkerResult(status_code=0, identifier="none")
            workdir = configuration.working_dir or Path.cwd()
            workdir.mkdir(parents=True, exist_ok=True)
            results = []
            async with FlowRunExecutorContext() as context:
                starter = EngineCommandStarter(
                    command=configuration.command,
                    cwd=workdir,
                    env=configuration.env,
                    stream_output=configuration.stream_output,
                    control_channel=context.control_channel,
                )
                executor = context.create_executor(flow_run, starter, hook_runner=NoHooks(), propose_submitting=False)

                async def execute(*, task_status: Any) -> None:
                    results.append(await executor.submit(task_status=task_status))

                at_work[flow_run.id] = context
                try:
                    async with anyio.create_task_group() as group:
                        handle = await group.start(execute)
                        task_status.started(handle.pid)
                finally:
                    del at_work[flow_run.id]
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
                await self._mark_flow_run_as_cancelled(flow_run, {"message": "Cancelled before it began."})
            return True

    return Worker(work_pool_name=pool, name=name, limit=limit, create_pool_if_not_found=False)


async def work(pool: str, name: str, limit: int | None) -> None:
    """Serve the pool until SIGTERM or SIGINT; then put back what is at work, and return."""
    at_work: dict[UUID, FlowRunExecutorContext] = {}
    told = asyncio.Event()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*existing type will be overridden")  # which is what ours is for
        worker = make_worker(pool, name, limit, at_work, told)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    serving = asyncio.create_task(worker.start())
    await asyncio.wait({serving, waiting := asyncio.create_task(told.wait())}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        waiting.cancel()
        return serving.result()
    await asyncio.gather(*(_put_back(run, context) for run, context in at_work.items()), return_exceptions=True)
    # No pause between the end of the last process and this: the worker would report it as crashed.
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait_for(serving, REPORT)


async def _put_back(run: UUID, context: FlowRunExecutorContext) -> None:
    """End the run's process, and have the run started again by the next worker. Harmless for one that has just ended."""
    from prefect.runner._control_channel import ControlSignalStatus

    told = await context.control_channel.signal(run, "reschedule")
    if told is ControlSignalStatus.ALREADY_CONCLUDED:
        return
    with contextlib.suppress(Exception):
        async with asyncio.timeout(REPORT):
            await _reschedule(run, context)
    # One that does not know why it is ended may not report anything: it would say Crashed.
    await context.process_manager.kill(run, GRACE, force=told is not ControlSignalStatus.ACKNOWLEDGED)


async def _reschedule(run: UUID, context: FlowRunExecutorContext) -> None:
    from prefect.states import AwaitingRetry
    from prefect.utilities.engine import propose_state

    await propose_state(context.client, AwaitingRetry(message=PUT_BACK), flow_run_id=run)


def end_with_parent() -> None:
    """Standard input is held open by the parent: when it closes, however the parent ended, so does the worker."""

    def watch() -> None:
        while os.read(0, 4096):  # not sys.stdin, whose lock a daemon thread may not hold when Python ends
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def main(pool: str, name: str, limit: str) -> None:
    end_with_parent()
    asyncio.run(work(pool, name, int(limit) or None))


if __name__ == "__main__":
    main(*sys.argv[1:])
