"""Deleted jobs: a tombstone at once, and what they left removed as soon as their run has ended.

What is still to be removed is on the runs themselves (the tag `cleaning`), so that it survives this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from api import holds, states, tags
from api.editing import forget_documents
from api.errors import ApiError
from api.results import forget_rendered
from api.runs import Runs
from api.sessions import Sessions
from flows import webhooks
from infra.compute import get_store
from infra.removal import remove_run
from infra.settings import StenoSettings
from infra.voices import forget_all, forget_calls
from stenoflow.errors import StenoError

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

_log = logging.getLogger(__name__)
_SOON = 2.0
"""Seconds between two looks at runs that have not ended yet."""
_NOW_AND_THEN = 300.0
"""Seconds between scans for what another process left."""
_UPLOADS_EVERY = 3600.0
_MOST_USERS = 200
"""Of an upload; one of more is left until it is too old."""
_SETTLED = timedelta(seconds=10)
"""After a run's end: what it logged and reported is written by then, also what Prefect gathers before it writes."""
_PATIENCE = timedelta(minutes=5)
"""Seconds after which no process is left that could end a cancelled run."""


class Removal:
    """Removes what deleted jobs left, in the background."""

    def __init__(self, runs: Runs, settings: StenoSettings) -> None:
        self.runs = runs
        self.settings = settings
        self._woken = asyncio.Event()
        self._uploads_at = 0.0

    async def mark_deleted(self, run: FlowRun) -> bool:
        """Leave a tombstone and cancel the run; whether it was under way. Its callers find it deleted from now on."""
        await self.runs.mark(run.id, tags=tags.tombstone(run), labels={tags.DELETED: datetime.now(UTC).isoformat()})
        under_way = states.status_of(run) not in states.ENDED
        if under_way:
            await self.runs.cancel(run.id)
        if webhooks.WANTED in run.tags:
            await self.runs.cancel_webhooks(run.id)
        return under_way

    def wake(self) -> None:
        """There is something to remove."""
        self._woken.set()

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Remove what is to be removed inside this block, and go on with what an earlier process did not finish."""
        self._woken.set()
        task = asyncio.create_task(self._work())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _work(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), _NOW_AND_THEN)
            self._woken.clear()
            left = True
            try:
                left = await self._clean()
                await self._uploads()
                await asyncio.to_thread(Sessions.of(self.settings).trim)
            except (ApiError, StenoError) as error:
                _log.warning("could not remove the data of deleted jobs: %s", error)
            except Exception as error:
                _log.error("removing the data of deleted jobs failed with an unexpected %s", type(error).__name__)
            if left:
                await asyncio.sleep(_SOON)
                self._woken.set()

    async def _clean(self) -> bool:
        """Remove what can be; whether there is more to come."""
        found = await self.runs.page({"tags": {"all_": [tags.CLEANING]}}, 100)
        left = len(found) == 100
        for run in found:
            try:
                left |= not await self._cleaned(run)
            except (ApiError, StenoError) as error:
                left = True
                _log.warning("could not remove the data of a deleted job yet: %s", error)
        return left

    async def _cleaned(self, run: FlowRun) -> bool:
        """Whether nothing is left of the run but its tombstone; if not, it is one step nearer."""
        if run.state is not None and run.state.is_final():
            return await self._remove(run)
        await self._end(run)
        return False

    async def _end(self, run: FlowRun) -> None:
        """Cancel running runs, and end those whose cancellation does not finish."""
        state = run.state
        if state is None or not state.is_cancelling():
            await self.runs.cancel(run.id)
        elif datetime.now(UTC) - state.timestamp > _PATIENCE:
            await self.runs.force_cancelled(run.id)

    async def _remove(self, run: FlowRun) -> bool:
        """All that the ended run left, but for its tombstone; False when that has to wait."""
        store = await asyncio.to_thread(get_store)
        if not await asyncio.to_thread(remove_run, store, self.settings, str(run.id)):
            return False  # garbage is being collected; again in a moment
        forget_rendered()
        forget_documents()
        for tag in run.tags:
            if tag.startswith((tags.UPLOAD, tags.HANDLE)):
                await self._remove_source(tag)
        for voices in tags.values(run, tags.VOICES):
            await asyncio.to_thread(forget_all, store, voices)
        await self.runs.erase(run.id)
        await self.runs.cancel_webhooks(run.id)
        # Again, since a run that was just ending writes the tags that it began with.
        settled = run.state is not None and datetime.now(UTC) - run.state.timestamp > _SETTLED
        await self.runs.mark(run.id, tags=tags.tombstone(run, cleaning=not settled), labels={}, blank=True)
        return settled

    async def _remove_source(self, tag: str, **among: Any) -> bool:
        """Remove an upload or an address, unless another job has it, or is about to; `among` those runs only."""
        async with holds.unless_held(tag) as free:
            users = await self.runs.page({"tags": {"all_": [tag]}} | among, _MOST_USERS) if free else []
            removable = free and len(users) < _MOST_USERS and all(tags.is_deleted(run) for run in users)
            if removable:
                await asyncio.to_thread(holds.remove, tag)
        return removable

    async def _uploads(self) -> None:
        """Recordings that were uploaded so long ago that no retry needs them any more, and those that no job came of."""
        if time.monotonic() < self._uploads_at:
            return
        self._uploads_at = time.monotonic() + _UPLOADS_EVERY
        await asyncio.to_thread(holds.forget_holds)
        await asyncio.to_thread(forget_calls, await asyncio.to_thread(get_store), self.settings.api.upload_days * 86_400)
        removed = 0
        for tag, age in await asyncio.to_thread(holds.uploads):
            if age > self.settings.api.upload_days * 86_400:
                removed += await self._remove_source(tag, state={"type": {"any_": [*states.WAITING, *states.AT_WORK]}})
            elif _UPLOADS_EVERY < age < 3 * _UPLOADS_EVERY:
                removed += await self._remove_source(tag)
        if removed:
            _log.info("removed %d uploads of ended jobs", removed)
