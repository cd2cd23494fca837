"""The process that computes a batch's recordings: runs come in on standard input, what became of them goes out.

It is not the batch's own process, so that a recording that kills it (memory, a fault in native code) does not end the
batch, and so that it can be replaced by a fresh one now and then. It ends when its parent does, however that ends.

Lines in: `{"run": <flow run>, "by_hand": bool}`, `{"cancel": true}`. Lines out: `{"event": <StageEvent>}`,
`{"ended": <flow run id>, "state": <name>, "rss": <bytes>}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import sys
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO
from uuid import UUID

from infra.processes import resident

if TYPE_CHECKING:
    from infra.progress import StageEvent

_COLLECT_EVERY = 20
_FAREWELL = 3.0
"""Seconds; a batch that is started again at once takes longer than that to look for its runs."""


class _Channel:
    """Lines to the parent, from any thread."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._guard = threading.Lock()

    def emit(self, line: dict[str, Any]) -> None:
        with self._guard, contextlib.suppress(BrokenPipeError, ValueError):
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def event(self, event: StageEvent) -> None:
        self.emit({"event": asdict(event)})


def main() -> None:
    # Standard output is ours; what libraries print goes to standard error.
    channel = _Channel(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    asyncio.run(_serve(channel))


async def _serve(channel: _Channel) -> None:
    from prefect.context import AsyncClientContext, SyncClientContext

    from infra.progress import listening

    loop = asyncio.get_running_loop()
    orders: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    at_work: set[str] = set()
    threading.Thread(target=_read_orders, args=(loop, orders, at_work), daemon=True).start()
    # One client for all runs: Prefect would make three each, and read the machine's certificates for them every time.
    with SyncClientContext(), listening(channel.event):
        async with AsyncClientContext():
            await _take(orders, channel, at_work)


async def _take(orders: asyncio.Queue[dict[str, Any] | None], channel: _Channel, at_work: set[str]) -> None:
    tasks: set[asyncio.Task[None]] = set()
    ended = 0
    while (order := await orders.get()) is not None:
        if order.get("cancel"):
            for task in tasks:
                task.cancel()
            continue
        task = asyncio.create_task(_execute(order, channel, at_work))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        if (ended := ended + 1) % _COLLECT_EVERY == 0:
            gc.collect()  # Prefect's contexts refer to one another in circles
    if tasks:
        await asyncio.wait(tasks)


def _read_orders(loop: asyncio.AbstractEventLoop, orders: asyncio.Queue[dict[str, Any] | None], at_work: set[str]) -> None:
    for line in sys.stdin:
        order = json.loads(line)
        loop.call_soon_threadsafe(orders.put_nowait, None if order.get("end") else order)
        if order.get("end"):
            return
    _leave(sorted(at_work))


def _leave(at_work: list[str]) -> None:
    """The parent is gone, and whoever takes its batch up again executes these runs. Until then they must not seem alive."""
    end = threading.Timer(_FAREWELL, os._exit, (1,))
    end.daemon = True
    end.start()
    with contextlib.suppress(Exception):
        from prefect import get_client
        from prefect.states import Crashed

        from flows.attempts import BATCH_DIED

        with get_client(sync_client=True) as client:
            for run in at_work:
                client.set_flow_run_state(UUID(run), Crashed(message=BATCH_DIED), force=True)
    os._exit(1)


async def _execute(order: dict[str, Any], channel: _Channel, at_work: set[str]) -> None:
    from prefect.client.schemas.objects import FlowRun

    from flows.execution import execute_here

    run = FlowRun.model_validate(order["run"])
    state = "Crashed"
    at_work.add(str(run.id))
    try:
        state = (await execute_here(run, by_hand=order["by_hand"])).name or state
    except asyncio.CancelledError:
        state = "Cancelled"
        await _mark_cancelled(run)
    except Exception as error:
        # Of Prefect itself: what the run raises is in its state.
        state = f"Crashed ({type(error).__name__})"
    finally:
        at_work.discard(str(run.id))
        channel.emit({"ended": str(run.id), "state": state, "rss": resident()})


async def _mark_cancelled(run: Any) -> None:
    """Left alone, Prefect shows a run whose task was cancelled as crashed."""
    from prefect import get_client
    from prefect.states import Cancelled

    with contextlib.suppress(Exception):
        async with get_client() as client:
            await client.set_flow_run_state(run.id, Cancelled(message="The batch was cancelled."), force=True)


if __name__ == "__main__":
    main()
