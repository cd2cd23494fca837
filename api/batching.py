"""Many questions answered with few requests, and ahead of time for who asks again and again.

What is asked while a request is under way goes into the next one together. What was asked for a moment ago is read again in the
background, all of it with one request, so that callers who poll are answered from memory.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_MOST_KEPT = 5_000
_AGAIN_WITHIN = 15.0
"""Seconds after its last request until a caller no longer counts as polling."""
_LONGEST_READ = 300.0
"""Seconds after which a read that was requested earlier has certainly ended."""
_SHARE = 3.0
"""Reading ahead rests so many times as long as it read: an orchestrator under load is not loaded further."""


@dataclass
class _Cached(Generic[V]):
    value: V | None
    read: float
    """When it was asked for, by the monotonic clock."""
    asked: float
    """When a caller last wanted it."""


class Batched(Generic[K, V]):
    """`await batched.get(key)`; `read` is asked for up to `size` keys at once.

    An answer is good for `fresh` seconds. Keys that callers keep asking for are read again that often, and then an answer may be
    up to `oldest` seconds old when the other side is slow; what is `settled` is read only when it is asked for.
    """

    def __init__(
        self,
        read: Callable[[list[K]], Awaitable[Mapping[K, V]]],
        *,
        fresh: float,
        oldest: float,
        size: int = 100,
        settled: Callable[[V], bool] = lambda value: False,
    ) -> None:
        self._read = read
        self._fresh = fresh
        self._oldest = oldest
        self._size = size
        self._settled = settled
        self._waiting: dict[K, asyncio.Future[V | None]] = {}
        self._kept: dict[K, _Cached[V]] = {}
        self._changed: dict[K, float] = {}
        """When keys were changed: what was read of them before is not kept."""
        self._serving: asyncio.Task[None] | None = None
        self._ahead: asyncio.Task[None] | None = None

    async def get(self, key: K) -> V | None:
        """The answer; None when there is none. Raises what `read` raises."""
        now = time.monotonic()
        kept = self._kept.get(key)
        if kept is not None:
            good_for = self._oldest if self._is_polled(kept, now) else self._fresh
            kept.asked = now
            if now - kept.read < good_for:
                self._start_ahead()
                return kept.value
        future = self._waiting.get(key)
        if future is None:
            future = self._waiting[key] = asyncio.get_running_loop().create_future()
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        return await asyncio.shield(future)

    def forget(self, key: K) -> None:
        """Invalidate the cached value: the run was changed."""
        now = time.monotonic()
        if len(self._changed) > _MOST_KEPT:
            self._changed = {key: at for key, at in self._changed.items() if now - at < _LONGEST_READ}
        self._kept.pop(key, None)
        self._changed[key] = now

    async def aclose(self) -> None:
        """Read no further ahead."""
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.gather(self._ahead, return_exceptions=True)

    # -- on demand ----------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        while self._waiting:
            taken = {key: self._waiting.pop(key) for key in list(self._waiting)[: self._size]}
            began = time.monotonic()
            try:
                found = await self._read(list(taken))
            except Exception as error:
                for future in taken.values():
                    future.set_exception(error)
                continue
            self._keep(taken, found, began)
            for key, future in taken.items():
                known = self._kept.get(key)
                if known is not None:
                    known.asked = time.monotonic()
                future.set_result(found.get(key))
            self._start_ahead()

    def _keep(self, keys: Iterable[K], found: Mapping[K, V], began: float) -> None:
        if len(self._kept) > _MOST_KEPT:
            self._kept = {key: kept for key, kept in self._kept.items() if began - kept.read < self._oldest}
        for key in keys:
            before = self._kept.get(key)
            if began <= self._changed.get(key, -math.inf) or (before is not None and before.read > began):
                continue
            self._kept[key] = _Cached(found.get(key), began, before.asked if before is not None else began)

    # -- ahead --------------------------------------------------------------------------------------------------------

    def _start_ahead(self) -> None:
        if self._ahead is None or self._ahead.done():
            self._ahead = asyncio.create_task(self._read_ahead())

    async def _read_ahead(self) -> None:
        """Until the polling stops or reading fails; the next caller gets the error."""
        while polled := self._polled():
            now = time.monotonic()
            due = [key for key in polled if now - self._kept[key].read >= self._fresh]
            for first in range(0, len(due), self._size):
                page = due[first : first + self._size]
                began = time.monotonic()
                try:
                    found = await self._read(page)
                except Exception:
                    return
                self._keep(page, found, began)
            await asyncio.sleep(max(self._fresh / 2, _SHARE * (time.monotonic() - now) if due else 0.0))

    def _polled(self) -> list[K]:
        now = time.monotonic()
        return [key for key, kept in self._kept.items() if self._is_polled(kept, now)]

    def _is_polled(self, kept: _Cached[V], now: float) -> bool:
        return now - kept.asked < _AGAIN_WITHIN and kept.value is not None and not self._settled(kept.value)
