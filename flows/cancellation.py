"""Cancelling a run through Prefect's UI or API, on any executor."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, cast
from uuid import UUID

from infra.settings import get_settings
from stenoflow.errors import StageCancelled
from tasks.stopping import Stop, stoppable

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient


@contextlib.asynccontextmanager
async def cancelled_from_outside() -> AsyncIterator[None]:
    """Cancel what runs inside this block within seconds of the flow run's being cancelled. Raises StageCancelled then.

    A worker ends the processes that it started itself; this also reaches runs at the command line, those that a batch
    executes in its own process, and those whose worker is gone.
    """
    from prefect.context import FlowRunContext

    context, task = FlowRunContext.get(), asyncio.current_task()
    with stoppable() as stop:
        if context is None or context.flow_run is None or task is None:
            yield
            return
        client = cast("PrefectClient", context.client)
        watcher = asyncio.create_task(_watch(context.flow_run.id, client, stop, task))
        try:
            yield
            if stop.asked:
                await asyncio.sleep(0)  # it came with the end of the block: let it arrive here
        except asyncio.CancelledError:
            if not stop.asked:
                raise
            task.uncancel()
            raise StageCancelled("Cancelled. A retry continues after the finished stages.") from None
        finally:
            watcher.cancel()


async def _watch(run: UUID, client: PrefectClient, stop: Stop, task: asyncio.Task[object]) -> None:
    """Look at the run's state every few seconds; a server that is away is asked again later."""
    while True:
        await asyncio.sleep(get_settings().recovery.cancel_poll)
        with contextlib.suppress(Exception):
            state = (await client.read_flow_run(run)).state
            if state is not None and (state.is_cancelling() or state.is_cancelled()):
                stop.asked = True
                task.cancel()
                return
