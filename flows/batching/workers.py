"""Runs computed by the work pool's workers: scheduled there, and all looked at together every few seconds."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING
from uuid import UUID

from flows.attempts import RESTARTED
from infra.settings import get_settings

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

_PAGE = 200


class Pool:
    """Waits for runs that workers execute."""

    def __init__(self, client: PrefectClient) -> None:
        self._client = client
        self._waiting: dict[UUID, asyncio.Future[str]] = {}
        self._poller: asyncio.Task[None] | None = None

    async def execute(self, run: FlowRun, *, by_hand: bool = False) -> str:
        """The name of the state that the run ended in. One that had ended before is scheduled again."""
        from prefect.states import Scheduled

        if under_way := self._waiting.get(run.id):
            return await asyncio.shield(under_way)
        if run.state is not None and run.state.is_final():
            message = None if by_hand else RESTARTED
            await self._client.set_flow_run_state(run.id, Scheduled(name="AwaitingRetry", message=message), force=True)
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting[run.id] = ended
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        try:
            return await ended
        finally:
            self._waiting.pop(run.id, None)

    async def stop(self, *, cancel: bool = False) -> None:
        """Stop polling. The batch cancels running and pending runs."""
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller

    async def _poll(self) -> None:
        while self._waiting:
            await asyncio.sleep(get_settings().batch.poll_seconds)
            with contextlib.suppress(Exception):  # a server that is away is asked again
                await self._look()

    async def _look(self) -> None:
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

        waiting = list(self._waiting)
        for first in range(0, len(waiting), _PAGE):
            ids = waiting[first : first + _PAGE]
            runs = await self._client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids)), limit=_PAGE)
            found = {run.id: run for run in runs}
            for run_id in ids:
                await self._judge(run_id, found.get(run_id))

    async def _judge(self, run_id: UUID, run: FlowRun | None) -> None:
        from prefect.states import Scheduled

        ended = self._waiting.get(run_id)
        if ended is None or ended.done():
            return
        if run is None or run.state is None:
            ended.set_result("Deleted")
        elif run.state.is_crashed():
            # Automations leave it to us. Its attempts are counted: a run that keeps dying ends as Quarantined.
            await self._client.set_flow_run_state(run_id, Scheduled(name="AwaitingRetry", message=RESTARTED), force=True)
        elif run.state.is_final():
            ended.set_result(run.state.name or "")
