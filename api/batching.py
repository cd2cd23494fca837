"""Many questions answered with few requests: what is asked while one is under way goes into the next together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_MOST_KEPT = 5_000


class _Kept(NamedTuple):
    value: object
    until: float


class Batched(Generic[K, V]):
    """`await batched.get(key)`; `read` is asked for up to `size` keys at once, and an answer is good for `fresh` seconds."""

    def __init__(self, read: Callable[[list[K]], Awaitable[Mapping[K, V]]], *, fresh: float, size: int = 100) -> None:
        self._read = read
        self._fresh = fresh
        self._size = size
        self._waiting: dict[K, asyncio.Future[V | None]] = {}
        self._kept: dict[K, _Kept] = {}
        self._changed: set[K] = set()
        """Keys that were changed while they were being read: that answer is not kept."""
        self._serving: asyncio.Task[None] | None = None

    async def get(self, key: K) -> V | None:
        """The answer; None when there is none. Raises what `read` raises."""
        kept = self._kept.get(key)
        if kept is not None and kept.until > time.monotonic():
            return kept.value  # type: ignore[return-value]
        future = self._waiting.get(key)
        if future is None:
            future = self._waiting[key] = asyncio.get_running_loop().create_future()
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        return await asyncio.shield(future)

    def forget(self, key: K) -> None:
        """Ask anew: what it stands for was changed."""
        self._kept.pop(key, None)
        self._changed.add(key)

    async def _serve(self) -> None:
        while self._waiting:
            taken = {key: self._waiting.pop(key) for key in list(self._waiting)[: self._size]}
            self._changed.clear()
            try:
                found = await self._read(list(taken))
            except Exception as error:
                for future in taken.values():
                    future.set_exception(error)
                continue
            self._keep(taken, found)
            for key, future in taken.items():
                future.set_result(found.get(key))

    def _keep(self, taken: Mapping[K, object], found: Mapping[K, V]) -> None:
        now = time.monotonic()
        if len(self._kept) > _MOST_KEPT:
            self._kept = {key: kept for key, kept in self._kept.items() if kept.until > now}
        for key in taken.keys() - self._changed:
            self._kept[key] = _Kept(found.get(key), now + self._fresh)
