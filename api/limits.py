"""How much one caller may ask for. Every function raises TooMany (with `Retry-After`) or TooLarge.

Rates are counted by each API process for itself, pending jobs by Prefect; for an owner as a whole, whose keys share what the
service allows, and for a key alone where it has a limit of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable

from api.auth import Caller
from api.errors import TooMany
from infra.settings import get_settings

_COUNTED_FOR = 1.0
"""Seconds that a count of pending jobs is good for; what was let through since is added to it."""
_COME_BACK = 10.0
"""Seconds after which a caller whose jobs are all pending is told to try again."""
_MOST_CALLERS = 10_000


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

    def clear(self) -> None:
        self._buckets.clear()


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


_reads, _writes, _submissions = _Buckets(), _Buckets(), _Buckets()
_pending: dict[str, _Pending] = {}


async def may_request(caller: Caller, *, writes: bool = False) -> None:
    """Requests per minute; those that change something are counted apart, so that who polls too much can still delete."""
    bucket = (_writes if writes else _reads).of(caller, caller.limits.rate, get_settings().api.rate)
    if wait := bucket.take():
        raise TooMany(f"No more than {bucket.rate:g} requests per minute are allowed.", retry_after=wait, code="rate_limited")


async def may_submit(caller: Caller, pending: Callable[[], Awaitable[int]]) -> None:
    """New jobs per minute, and jobs that wait or run at once; `pending` counts those."""
    settings = get_settings().api
    most = caller.limits.pending_jobs or settings.pending_jobs
    known = _pending.get(caller.owned_by)
    if known is None:
        if len(_pending) >= _MOST_CALLERS:
            _pending.clear()
        known = _pending[caller.owned_by] = _Pending()
    if not await known.room(most, pending):
        raise TooMany(
            f"No more than {most} jobs may be pending at once; wait until some have ended.",
            retry_after=_COME_BACK,
            code="too_many_pending_jobs",
        )
    bucket = _submissions.of(caller, caller.limits.rate_submit, settings.rate_submit)
    if wait := bucket.take():
        raise TooMany(f"No more than {bucket.rate:g} new jobs per minute are allowed.", retry_after=wait, code="rate_limited")


def max_upload_bytes(caller: Caller) -> int:
    """The largest recording that the caller may upload."""
    return min(caller.limits.max_upload_bytes or math.inf, get_settings().api.max_upload_bytes)  # type: ignore[return-value]


def forget() -> None:
    """Begin anew, as a process that was just started."""
    _reads.clear()
    _writes.clear()
    _submissions.clear()
    _pending.clear()
