"""Telling an address that a stranger gave: one guarded POST, of whose answer the status matters and little is read.

As with downloads (`infra.net`), every connection goes to an address that has just been checked. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import NamedTuple

import httpcore

from infra.addresses import AddressGuard
from infra.connections import Broken, GuardedBackend, Pace
from infra.net import Location, parse
from infra.settings import NetSettings
from stenoflow.errors import DownloadFailed, SourceError, SourceForbidden, SourceNotFound

READ_BYTES = 4096
"""Of an answer, so that one who sends more than that gains nothing and one who sends little is not cut off."""
MOST_THREADS = 400
_LATE = 5.0
"""Seconds after which a thread that a name service holds up is left to itself."""


class Answer(NamedTuple):
    """What came of it. `said` is a clause for a message (`answered 503`): never the URL, nor words of the other side."""

    status: int | None
    """None: there was no answer."""
    said: str
    retry_after: float | None = None
    """Seconds, where the other side named them."""

    @property
    def accepted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """The receiver unsubscribes (410)."""
        return self.status == 410


async def posted(
    url: str, body: bytes, headers: Mapping[str, str], net: NetSettings, seconds: float, *, guard: AddressGuard | None = None
) -> Answer:
    """What became of the POST, within about `seconds`. Raises nothing: whatever goes wrong is an answer."""
    guard = guard or AddressGuard(net.allow_hosts)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds + _LATE):
            return await loop.run_in_executor(_threads(), _post, url, body, dict(headers), guard, seconds)
    except TimeoutError:
        return Answer(None, _too_late(seconds))


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    """Of our own: asyncio's are few, and a slow receiver must not keep everything else waiting."""
    return ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="post")


def _post(url: str, body: bytes, headers: dict[str, str], guard: AddressGuard, seconds: float) -> Answer:
    try:
        return _exchanged(parse(url), body, headers, guard, seconds)
    except SourceForbidden:
        return Answer(None, "resolves to an address that is not allowed")
    except SourceNotFound:
        return Answer(None, "has no address")
    except SourceError:
        return Answer(None, "has a certificate that is not trusted")
    except (DownloadFailed, httpcore.TimeoutException):
        return Answer(None, _too_late(seconds))
    except httpcore.ConnectError:
        return Answer(None, "does not accept connections")
    except (Broken, httpcore.NetworkError, httpcore.RemoteProtocolError):
        return Answer(None, "broke the connection")
    except (httpcore.LocalProtocolError, httpcore.UnsupportedProtocol):
        return Answer(None, "does not accept the request")


def _exchanged(there: Location, body: bytes, headers: dict[str, str], guard: AddressGuard, seconds: float) -> Answer:
    pace = Pace(NetSettings(stall_timeout=seconds, min_rate=0, max_seconds=seconds, connect_timeout=seconds), tick=lambda: None)
    sent = {
        "Host": there.host_header,
        "User-Agent": "stenoflow",
        "Accept": "*/*",
        "Connection": "close",
        "Content-Length": str(len(body)),
    }
    with httpcore.ConnectionPool(network_backend=GuardedBackend(guard, pace)) as pool:
        url = httpcore.URL(scheme=there.scheme, host=there.host, port=there.port, target=there.url.raw_path)
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), seconds)
        with pool.stream(
            "POST", url, headers=list((sent | headers).items()), content=body, extensions={"timeout": timeouts}
        ) as response:
            answer = _judged(response)
            # What it says does not matter any more.
            with contextlib.suppress(
                DownloadFailed, Broken, httpcore.TimeoutException, httpcore.ProtocolError, httpcore.NetworkError
            ):
                _read_some(response)
            return answer


def _read_some(response: httpcore.Response) -> None:
    read = 0
    for block in response.iter_stream():
        read += len(block)
        if read >= READ_BYTES:
            return


def _judged(response: httpcore.Response) -> Answer:
    status = response.status
    said = f"answered {status}"
    if 300 <= status < 400:
        said += ", and redirects are not followed"
    named = {name.lower(): value for name, value in response.headers}.get(b"retry-after")
    return Answer(status, said, _retry_after(named.decode("latin-1")) if named else None)


def _retry_after(value: str) -> float | None:
    if value.strip().isdecimal():
        return float(value.strip()[:9])
    try:
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None


def _too_late(seconds: float) -> str:
    return f"did not answer within {seconds:g} s"
