"""How much may be asked for: by one caller, and of large bodies by all. What is too much raises TooMany (with `Retry-After`).

Rates and open calls are counted by each API process for itself, pending jobs by Prefect; for an owner as a whole, whose keys share
what the service allows, and for a key alone where it has a limit of its own.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api.auth import Caller
from api.errors import TooMany, Unavailable
from infra.settings import get_settings

_COUNTED_FOR = 1.0
"""Seconds that a count of pending jobs is good for; what was let through since is added to it."""
_COME_BACK = 10.0
"""`Retry-After` of a caller whose jobs are all pending, in seconds."""
_MOST_CALLERS = 10_000
_CLOSE_SOME = 5.0
"""`Retry-After` of a caller with too many open calls, in seconds."""
_LARGE = 8 << 20
"""Bytes; a minute of float32 in base64 has less."""
_MOST_LARGE = 4
"""Bodies that are held in memory at once, while they are read and answered."""


class Bucket:
    """Allows `rate` per minute, up to a minute's worth at once."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._most = max(1.0, rate)
        self._left = self._most
        self._at = time.monotonic()

    def take(self) -> float:
        """0 when one more is allowed now, else the seconds until it will be."""
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self.rate / 60)
        self._at = now
        if self._left >= 1:
            self._left -= 1
            return 0.0
        return (1 - self._left) * 60 / self.rate

    @property
    def full(self) -> bool:
        return self._left + (time.monotonic() - self._at) * self.rate / 60 >= self._most


class _Buckets:
    """One bucket per owner, or key; those that are full again need not be kept."""

    def __init__(self) -> None:
        self._buckets: dict[str, Bucket] = {}

    def of(self, caller: Caller, own: float | None, rate: float) -> Bucket:
        """The bucket of the key that has a rate of its `own`, else that of its owner."""
        name = f"key {caller.key_id}" if own else f"owner {caller.owned_by}"
        bucket = self._buckets.get(name)
        if bucket is None or bucket.rate != (own or rate):
            if len(self._buckets) >= _MOST_CALLERS:
                self._buckets = {key: bucket for key, bucket in self._buckets.items() if not bucket.full}
            bucket = self._buckets[name] = Bucket(own or rate)
        return bucket


class _Pending:
    """The pending jobs of one owner: counted, and let through since."""

    def __init__(self) -> None:
        self.counted_at = -math.inf
        self.number = 0

    async def room(self, limit: int, count: Callable[[], Awaitable[int]]) -> bool:
        if self.number >= limit or time.monotonic() - self.counted_at > _COUNTED_FOR:
            self.number = await count()
            self.counted_at = time.monotonic()
        if self.number >= limit:
            return False
        self.number += 1
        return True


class Limits:
    """What the callers of one application have asked for, and have open."""

    def __init__(self) -> None:
        self._reads, self._writes, self._submissions = _Buckets(), _Buckets(), _Buckets()
        self._pending: dict[str, _Pending] = {}
        """By owner."""
        self._streams: Counter[str] = Counter()
        self._waits: Counter[str] = Counter()
        self._large = 0

    async def may_request(self, caller: Caller, *, writes: bool = False) -> None:
        """Requests per minute; those that change something are counted apart, so that who polls too much can still delete."""
        bucket = (self._writes if writes else self._reads).of(caller, caller.limits.rate, get_settings().api.rate)
        if wait := bucket.take():
            raise TooMany(
                f"The limit of {bucket.rate:g} requests per minute is reached.", retry_after=wait, code="rate_limited"
            )

    async def may_submit(self, caller: Caller, pending: Callable[[], Awaitable[int]]) -> None:
        """New jobs per minute, and jobs that wait or run at once; `pending` counts those."""
        settings = get_settings().api
        most = caller.limits.pending_jobs or settings.pending_jobs
        known = self._pending.get(caller.owned_by)
        if known is None:
            if len(self._pending) >= _MOST_CALLERS:
                self._pending.clear()
            known = self._pending[caller.owned_by] = _Pending()
        if not await known.room(most, pending):
            raise TooMany(
                f"The limit of {most} pending jobs is reached; wait until some have ended.",
                retry_after=_COME_BACK,
                code="too_many_pending_jobs",
            )
        bucket = self._submissions.of(caller, caller.limits.rate_submit, settings.rate_submit)
        if wait := bucket.take():
            raise TooMany(
                f"The limit of {bucket.rate:g} new jobs per minute is reached.", retry_after=wait, code="rate_limited"
            )

    def stream(self, owner: str) -> AbstractContextManager[None]:
        """A stream of events of the owner's. Entering it raises TooMany."""
        return _counted(self._streams, owner, get_settings().api.streams, "event streams")

    def wait(self, owner: str) -> AbstractContextManager[None]:
        """A call of the owner's that waits for a job. Entering it raises TooMany."""
        return _counted(self._waits, owner, get_settings().api.waits, "waiting calls")

    @contextlib.asynccontextmanager
    async def body(self, request: Request, ordinary: int) -> AsyncIterator[None]:
        """While a body is in hand that may be larger than an `ordinary` one. Raises Unavailable when too many large ones are."""
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) <= max(_LARGE, ordinary):
            yield
            return
        if self._large >= _MOST_LARGE:
            raise Unavailable(
                "Several long audio chunks are being processed; send this one again.", retry_after=5.0, code="busy"
            )
        self._large += 1
        try:
            yield
        finally:
            self._large -= 1


class CountedStream(StreamingResponse):
    """A stream that counts for as long as it is sent; in place of one too many, an error."""

    def __init__(self, counted: AbstractContextManager[None], content: AsyncIterator[str], headers: Mapping[str, str]) -> None:
        super().__init__(content, media_type="text/event-stream", headers=headers)
        self._counted = counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._counted:
            await super().__call__(scope, receive, send)


@contextlib.contextmanager
def _counted(calls: Counter[str], owner: str, most: int, what: str) -> Iterator[None]:
    if calls[owner] >= most:
        raise TooMany(f"The limit of {most} open {what} is reached; close some.", retry_after=_CLOSE_SOME, code="too_many_open")
    calls[owner] += 1
    try:
        yield
    finally:
        calls[owner] -= 1
        if not calls[owner]:
            del calls[owner]


def max_upload_bytes(caller: Caller) -> int:
    """The largest recording that the caller may upload."""
    return min(caller.limits.max_upload_bytes or math.inf, get_settings().api.max_upload_bytes)  # type: ignore[return-value]
