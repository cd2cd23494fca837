"""A worker as a process of its own: takes runs from the pool, has warm processes execute them, ends with its parent.

`python -m deployments.worker POOL NAME LIMIT`

When stopped, it takes no more runs, puts running ones back into the queue, gives their processes half a minute to end, and
ends. Prefect's own worker leaves such runs Crashed, which would count against them and be reported as a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

from deployments.environment import flow_environment
from deployments.warm import Kind, WarmProcesses
from infra.processes import end_with_parent
from infra.settings import get_settings
from stenoflow import isolated

PUT_BACK = "Put back into the queue: the worker was stopped."
GRACE = 30.0
"""Seconds that a run's process has to end."""
REPORT = 10.0
"""Seconds to notify the server, which may be down as well."""


async def work(pool: str, name: str, limit: int | None) -> None:
    """Serve the pool until SIGTERM or SIGINT; then put back what is at work, and return."""
    from flows.prefect_compat.worker import Serving, process_worker, put_back, settings_of_prefect

    settings, serving = get_settings(), Serving()
    kind = Kind(
        command=lambda descriptor: isolated.command("deployments.execute", str(descriptor)),
        env=lambda: flow_environment() | settings_of_prefect(),
        folder=lambda: settings.workdir_path,
        idle_seconds=settings.compute.idle_seconds,
    )
    processes = WarmProcesses(kind, limit)
    worker = process_worker(pool, name, limit, processes, serving)
    processes.keep_spare()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, serving.told.set)
    working = asyncio.create_task(worker.start())
    await asyncio.wait({working, waiting := asyncio.create_task(serving.told.wait())}, return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        waiting.cancel()
        return working.result()
    processes.close()
    ending = (put_back(run, context, PUT_BACK, grace=GRACE, report=REPORT) for run, context in serving.at_work.items())
    await asyncio.gather(*ending, return_exceptions=True)
    # No pause between the end of the last process and this: the worker would report it as crashed.
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait_for(working, REPORT)


def main(pool: str, name: str, limit: str) -> None:
    end_with_parent()
    asyncio.run(work(pool, name, int(limit) or None))
    from flows.prefect_compat.engine import leave

    leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
