"""A container's messages during a call: progress and log lines, through a queue with a partition for each call."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from infra.on_modal.contract import RemoteAnswer, RemoteEvent, stops

if TYPE_CHECKING:
    import modal

INTERVAL = 0.5
"""Seconds between two deliveries."""
KEPT = 3600
"""Seconds that undelivered events are kept."""
MOST = 200
"""Events that one delivery, or one look, takes."""


class Channel:
    """Delivers in the background; a queue that is out of reach never disturbs the stages."""

    def __init__(self, queue: modal.Queue, call_id: str) -> None:
        self.queue = queue
        self.call_id = call_id
        self._guard = threading.Lock()
        self._events: list[RemoteEvent] = []
        self._fractions: dict[str, float] = {}
        self._urgent = asyncio.Event()
        self._stop: Callable[[str], None] | None = None
        self._task: asyncio.Task[None] | None = None

    def progress(self, key: str, fraction: float) -> None:
        """Of the stage of that key. From any thread; only the latest is delivered."""
        with self._guard:
            self._fractions[key] = fraction

    def log(self, key: str, line: str) -> None:
        with self._guard:
            self._events.append(RemoteEvent(key=key, line=line))

    def answer(self, key: str, answer: RemoteAnswer) -> None:
        """What became of a stage; delivered at once."""
        with self._guard:
            self._events.append(RemoteEvent(key=key, answer=answer))
        self._urgent.set()

    def stopping(self, stop: Callable[[str], None]) -> None:
        """Call `stop` with the key of each stage that the orchestrator no longer wants."""
        self._stop = stop

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
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._urgent.wait(), INTERVAL)
            self._urgent.clear()
            await self._deliver()
            if self._stop is not None:
                with contextlib.suppress(Exception):
                    for key in await self.queue.get_many.aio(MOST, block=False, partition=stops(self.call_id)):
                        self._stop(key)

    async def _deliver(self) -> None:
        with self._guard:
            fractions = [RemoteEvent(key=key, fraction=fraction) for key, fraction in self._fractions.items()]
            events = fractions + self._events  # a stage's answer comes last
            self._events, self._fractions = [], {}
        for at in range(0, len(events), MOST):
            values = [event.model_dump(mode="json", exclude_none=True) for event in events[at : at + MOST]]
            with contextlib.suppress(Exception):
                await self.queue.put_many.aio(values, block=False, partition=self.call_id, partition_ttl=KEPT)
