"""A worker as a process of its own: takes runs from the pool, starts each in a process, ends with its parent.

`python -m deployments.worker POOL NAME LIMIT`
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any


async def work(pool: str, name: str, limit: int | None) -> None:
    """Serve the pool until cancelled."""
    from prefect.workers.process import ProcessWorker

    class Worker(ProcessWorker):
        """Prefect's process worker, which makes the folder that runs work in: it need not exist on a new machine."""

        async def run(self, flow_run: Any, configuration: Any, task_status: Any = None) -> Any:
            if configuration.working_dir:
                configuration.working_dir.mkdir(parents=True, exist_ok=True)
            return await super().run(flow_run, configuration, task_status)

    worker = Worker(work_pool_name=pool, name=name, limit=limit, create_pool_if_not_found=False)
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await worker.start()


def end_with_parent() -> None:
    """Standard input is held open by the parent: when it closes, however the parent ended, so does the worker."""

    def watch() -> None:
        sys.stdin.buffer.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def main(pool: str, name: str, limit: str) -> None:
    # The pool's command starts with `python`, which must be the one that this worker runs on.
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    end_with_parent()
    try:
        asyncio.run(work(pool, name, int(limit) or None))
    except (asyncio.CancelledError, KeyboardInterrupt):
        sys.exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
