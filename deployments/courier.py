"""What delivers webhooks, as a process of its own beside the worker: finds jobs that have ended, and notifies their owners.

`python -m deployments.courier POOL NAME`

It is a Prefect worker whose runs are not processes but coroutines of this one: an attempt takes a tenth of a second rather than
the seconds that a process needs to start, and a thousand receivers that do not answer cost a thousand sockets at most. It
keeps nothing: what is due, and how often it was tried, is in Prefect, so couriers may be killed, and there may be several.

Jobs that have ended are looked for, not waited for as events: events are lost while the server is away, name no idempotency
key, and cannot tell a crash that an automation will restart from one that is the end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from flows.attempts import RESTARTS_WITHIN
from flows.webhooks import (
    DEPLOYMENT,
    SUBSCRIPTION,
    WANTED,
    Notice,
    ended_jobs,
    enqueue,
    is_deleted,
    known_messages,
    notice_of,
)
from infra import webhooks
from infra.compute import get_store
from infra.processes import end_with_parent
from infra.settings import StenoSettings, get_settings

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

KIND = "stenoflow-courier"
"""Of worker, as Prefect's pages show it."""
GRACE = 20.0
"""Seconds that attempts under way have to come to their end."""
_JUST_NOW = RESTARTS_WITHIN + timedelta(minutes=2)
"""How long ago the jobs ended that every look is for."""
_LATELY = timedelta(days=14)
"""How long ago they ended that are looked for now and then: while the server, or every courier, was away."""
_LATELY_EVERY = 300.0
_KEEP = 86_400.0
"""Seconds after which an address that no job notifies any more is deleted."""
_KNOWN = 50_000

_log = logging.getLogger(__name__)


class Watch:
    """Creates a run of `notify` for each ended job that has a webhook."""

    def __init__(self, client: PrefectClient, settings: StenoSettings) -> None:
        self._client = client
        self._settings = settings
        self._deployment: UUID | None = None
        self._known: dict[str, None] = {}
        """Messages that there are runs for."""
        self._lately_at = float("-inf")

    async def watch(self) -> None:
        """Until cancelled. What goes wrong is tried again."""
        pause = self._settings.webhooks.poll
        while True:
            try:
                await self._look()
                pause = self._settings.webhooks.poll
            except Exception as error:
                _log.warning("Could not list ended jobs (%s); trying again.", type(error).__name__)
                self._deployment = None  # deployed anew meanwhile, under another id
                pause = min(pause * 2, 60.0)
            await asyncio.sleep(pause)

    async def _look(self) -> None:
        if time.monotonic() - self._lately_at > _LATELY_EVERY:
            began = time.monotonic()
            await self._enqueue_since(_LATELY)
            await self._forget_addresses()
            self._lately_at = began
        else:
            await self._enqueue_since(_JUST_NOW)

    async def _enqueue_since(self, age: timedelta) -> None:
        since, offset = datetime.now(UTC) - age, 0
        while page := await ended_jobs(self._client, since, offset):
            offset += len(page)
            found = {notice.message_id: (notice, run) for run in page if (notice := notice_of(run)) is not None}
            new = found.keys() - self._known.keys()
            if not new:
                continue
            known = await known_messages(self._client, new)
            for message in new - known:
                await self._enqueue(*found[message])
            self._known |= dict.fromkeys(new)
        while len(self._known) > _KNOWN:
            self._known.pop(next(iter(self._known)))

    async def _enqueue(self, notice: Notice, run: FlowRun) -> None:
        if self._deployment is None:
            self._deployment = (await self._client.read_deployment_by_name(DEPLOYMENT)).id
        store = await asyncio.to_thread(get_store, self._settings)
        address = await asyncio.to_thread(webhooks.subscription, store, notice.to)
        if address is None:
            _log.warning("The webhook address for run %s is not in this store.", run.id)
            return
        await enqueue(self._client, self._deployment, notice, owner=address.owner, job=run.name, host=address.host)

    async def _forget_addresses(self) -> None:
        """Those that no job names any more: the jobs were deleted."""
        store = await asyncio.to_thread(get_store, self._settings)
        for name in await asyncio.to_thread(webhooks.old_subscriptions, store, time.time() - _KEEP):
            if not await self._is_subscribed(f"{SUBSCRIPTION}{name}"):
                await asyncio.to_thread(webhooks.forget, store, name)

    async def _is_subscribed(self, tag: str) -> bool:
        from prefect.client.schemas.filters import FlowRunFilter

        wanted = FlowRunFilter.model_validate({"tags": {"all_": [WANTED, tag]}})
        runs = await self._client.read_flow_runs(flow_run_filter=wanted, limit=200)
        return any(not is_deleted(run) for run in runs)


async def deliver(run: FlowRun) -> None:
    """One attempt: execute the run of `notify` here."""
    from prefect.exceptions import Abort, ObjectNotFound

    from flows.notify import notify
    from flows.prefect_compat.engine import execute

    try:
        await execute(notify, run)
    except (Abort, ObjectNotFound):
        _log.info("Run %s was cancelled or deleted in the meantime.", run.id)
    except Exception as error:
        # Without a sign of life the run counts as crashed soon, and is started again.
        _log.warning("Run %s could not be executed (%s).", run.id, type(error).__name__)


async def work(pool: str, name: str, stop: asyncio.Event) -> None:
    """Deliver until `stop` is set, then finish the attempts under way."""
    from prefect.client.orchestration import get_client
    from prefect.context import AsyncClientContext

    from flows.prefect_compat.worker import Serving, coroutine_worker

    settings = get_settings()
    courier = coroutine_worker(KIND, pool, name, settings.webhooks.at_once, deliver, Serving(stop))
    # One client for all runs: each would make one of its own otherwise.
    async with get_client() as client, AsyncClientContext.get_or_create():
        tasks = {
            serving := asyncio.create_task(courier.start()),
            asyncio.create_task(Watch(client, settings).watch()),
            waiting := asyncio.create_task(stop.wait()),
        }
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if waiting in done:
            deadline = time.monotonic() + GRACE
            while courier.limiter.borrowed_tokens and time.monotonic() < deadline:  # noqa: ASYNC110  it can only be asked
                await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if serving in done:
        await serving  # raises what ended it


def main(pool: str, name: str) -> None:
    end_with_parent()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    failed: list[BaseException] = []

    def serve() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(work(pool, name, stop))
        except BaseException as error:
            failed.append(error)
            _log.exception("The courier ended.")

    # Not on the main thread, where Prefect's engine would take the signals for itself: each run, in place of the others.
    delivering = threading.Thread(target=serve, name="courier")
    delivering.start()
    while delivering.is_alive():
        delivering.join(0.5)
    sys.stdout.flush()
    # Threads that a name service holds up would keep the process.
    os._exit(1 if failed else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
