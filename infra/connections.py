"""Connections that are guarded and watched: made to checked addresses only, counted, and ended when they crawl."""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Callable, Iterable
from typing import Any

import httpcore

from infra.addresses import AddressGuard
from infra.partfile import TICK_SECONDS
from infra.settings import NetSettings
from stenoflow.errors import DownloadFailed, SourceError

BACKOFF_SECONDS = 0.5
"""Wait before the first resume; doubled for each next one, with jitter."""
RETRY_AFTER_CAP = 60.0
SURPLUS_SECONDS = 0.2
MAX_ADDRESSES = 4
HEAD_BYTES = 4096
MOST_BYTES = 1 << 18


class Broken(Exception):
    """The transfer ended early; resuming may help. Its text is a clause for a message: never a URL."""

    def __init__(self, why: str, retry_after: float | None = None) -> None:
        super().__init__(why)
        self.retry_after = retry_after


class Pace:
    """Ends a transfer that crawls (a slow loris) or outlives its limit, and keeps the reporter informed meanwhile."""

    def __init__(self, settings: NetSettings, tick: Callable[[], None]) -> None:
        self._window = settings.stall_timeout
        self._least = settings.min_rate * settings.stall_timeout
        self._end = time.monotonic() + settings.max_seconds
        self._limit = settings.max_seconds
        self._tick = tick
        self.begin()

    def begin(self) -> None:
        """A new connection, or a pause that was ours."""
        self._since, self._bytes = time.monotonic(), 0

    def received(self, amount: int) -> None:
        self._bytes += amount

    def check(self) -> None:
        self._tick()
        now = time.monotonic()
        if now > self._end:
            raise DownloadFailed(f"The download was stopped after {self._limit:g} seconds", cure="raise STENO_NET__MAX_SECONDS")
        if now - self._since >= self._window:
            if self._bytes < self._least:
                raise Broken("sent data too slowly" if self._bytes else "stalled")
            self.begin()


class WatchedStream(httpcore.NetworkStream):
    """A connection whose reads are counted, watched, and cut into ticks so that a cancel is noticed while waiting."""

    def __init__(self, inner: httpcore.NetworkStream, pace: Pace) -> None:
        self._inner = inner
        self._pace = pace
        self.bytes_read = 0
        self.most = HEAD_BYTES
        """Bytes of one read: few until the headers are in, so that few of the body come with them."""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        end = time.monotonic() + (timeout or 0.0)
        while True:
            self._pace.check()
            left = end - time.monotonic()
            try:
                data = self._inner.read(min(max_bytes, self.most), max(min(left, TICK_SECONDS), 0.01))
            except httpcore.ReadTimeout:
                if left <= 0:
                    raise
                continue
            self.bytes_read += len(data)
            self._pace.received(len(data))
            return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            return WatchedStream(self._inner.start_tls(ssl_context, server_hostname, timeout), self._pace)
        except httpcore.ConnectError as error:
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                raise SourceError(f"The certificate of {server_hostname} is not trusted; nothing was fetched.") from None
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class GuardedBackend(httpcore.NetworkBackend):
    """Where httpcore gets its connections: resolves, checks, and connects to the very address that was checked."""

    def __init__(self, guard: AddressGuard, pace: Pace) -> None:
        self._guard = guard
        self._pace = pace
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception = httpcore.ConnectError("no address")
        for address in self._guard.addresses(host, port)[:MAX_ADDRESSES]:
            self._pace.begin()
            self._pace.check()
            try:
                stream = self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
                continue
            self._pace.begin()
            return WatchedStream(stream, self._pace)
        raise failure


class Surplus:
    """Notices bytes after a body of announced length, which an HTTP parser drops without a word: lost speech."""

    def __init__(self, response: httpcore.Response) -> None:
        self._stream: WatchedStream = response.extensions["network_stream"]
        self._stream.most = MOST_BYTES
        self._mark = self._stream.bytes_read
        self._early = 0

    def saw(self, block: bytes) -> None:
        """A block of the body; those that came in one read with the headers are counted here."""
        if self._stream.bytes_read == self._mark:
            self._early += len(block)

    def found(self, announced: int) -> bool:
        if self._early + self._stream.bytes_read - self._mark > announced:
            return True
        try:
            return bool(self._stream.read(1, SURPLUS_SECONDS))
        except (httpcore.TimeoutException, httpcore.NetworkError):
            return False


def back_off(attempt: int, tick: Callable[[], None], at_least: float | None = None) -> None:
    """Wait before resume number `attempt` (from 0), longer each time, ticking so that a cancel is noticed."""
    pause = BACKOFF_SECONDS * 2**attempt * random.uniform(0.5, 1.5)
    end = time.monotonic() + max(pause, min(at_least or 0.0, RETRY_AFTER_CAP))
    while (left := end - time.monotonic()) > 0:
        tick()
        time.sleep(min(left, TICK_SECONDS))
