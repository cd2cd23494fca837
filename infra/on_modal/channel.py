"""A container's messages during a call: progress and log lines, through a queue with a partition for each call."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Self

from infra.on_modal.contract import RemoteEvent

if TYPE_CHECKING:
    import modal

INTERVAL = 0.5
"""Seconds between two deliveries."""
KEPT = 3600
"""Seconds that undelivered events are kept."""
MOST = 200
"""Events that one delivery, or one look, takes."""


class Channel:
    """Delivers in the background; a queue that is out of reach never disturbs the stage."""

    def __init__(self, queue: modal.Queue, call_id: str) -> None:
        self.queue = queue
        self.call_id = call_id
        self._guard = threading.Lock()
        self._lines: list[str] = []
        self._fraction: float | None = None
        self._task: asyncio.Task[None] | None = None

    def progress(self, fraction: float) -> None:
        """From any thread; only the latest is delivered."""
        with self._guard:
            self._fraction = fraction

    def log(self, line: str) -> None:
        with self._guard:
            self._lines.append(line)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._deliver_always())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
        if kind is None or not issubclass(kind, asyncio.CancelledError):
            await self._deliver()

    async def _deliver_always(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            await self._deliver()

    async def _deliver(self) -> None:
        with self._guard:
            events = [RemoteEvent(line=line) for line in self._lines]
            if self._fraction is not None:
                events.append(RemoteEvent(fraction=self._fraction))
            self._lines, self._fraction = [], None
        if events:
            values = [event.model_dump(mode="json") for event in events[:MOST]]
            with contextlib.suppress(Exception):
                await self.queue.put_many.aio(values, block=False, partition=self.call_id, partition_ttl=KEPT)
