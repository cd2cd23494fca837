"""Guarded download of an http(s) URL that a stranger may have written.

Every connection goes to an address that `infra.addresses` has just checked, whatever redirects say, while TLS still
verifies the name. Proxies of the environment are not used: they would resolve names themselves, unchecked.
"""

from __future__ import annotations

import base64
import logging
import re
import time
from collections.abc import Mapping
from contextlib import ExitStack
from email.utils import parsedate_to_datetime
from itertools import count
from typing import NamedTuple

import httpcore
import httpx

from infra.addresses import AddressGuard, canonical_host
from infra.connections import Broken, GuardedBackend, Pace, Surplus, back_off
from infra.disposition import served_name
from infra.names import full_address
from infra.partfile import PartFile, Report, Served
from infra.settings import NetSettings
from stenoflow.errors import DownloadFailed, SourceDenied, SourceError, SourceForbidden, SourceNotFound

log = logging.getLogger(__name__)

_REDIRECTS = (301, 302, 303, 307, 308)
_TRANSIENT = (408, 425, 429)
_ENCODINGS = ("gzip", "x-gzip", "deflate")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class Location(NamedTuple):
    """A parsed http(s) URL."""

    url: httpx.URL
    scheme: str
    host: str
    port: int

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _default_port(self.scheme) else f"{host}:{self.port}"


def parse(url: str | httpx.URL) -> Location:
    """Take an http(s) URL apart. Raises SourceForbidden for other schemes, and hosts or ports that no honest URL has."""
    try:
        parsed = httpx.URL(url)
        scheme, host = parsed.scheme, parsed.raw_host.decode("ascii")
    except (httpx.InvalidURL, UnicodeError, TypeError):
        raise SourceForbidden("The source is not a valid URL; check its spelling.") from None
    if scheme not in ("http", "https"):
        raise SourceForbidden(f"Cannot fetch over {scheme or 'that'}:// from a web address; use http or https.")
    port = _default_port(scheme) if parsed.port is None else parsed.port
    if not 0 < port < 65536:
        raise SourceForbidden("The URL's port is not between 1 and 65535.")
    return Location(parsed, scheme, canonical_host(host), port)


def download(url: str, part: PartFile, settings: NetSettings, report: Report) -> Served:
    """Stream the URL into `part`, resuming where it breaks.

    Raises SourceForbidden (address, scheme, redirect), SourceNotFound, SourceDenied, SourceError (other refusals),
    SourceTooLarge, StorageFull, DownloadFailed (after `settings.resumes` resumes), and whatever `report` raises.
    """
    return _Transfer(parse(url), part, settings, report).run()


class _Transfer:
    """One download: what is known of the remote file, across redirects and resumes."""

    def __init__(self, first: Location, part: PartFile, settings: NetSettings, report: Report) -> None:
        self._first = first
        self._part = part
        self._settings = settings
        self._report = report
        self._guard = AddressGuard(settings.allow_hosts)
        self._pace = Pace(settings, self._tick)
        self._total: int | None = None
        self._validator: str | None = None
        self._served = Served()
        self._encoding = ""

    def run(self) -> Served:
        host = self._first.host
        for attempt in count():
            try:
                self._attempt()
                break
            except Broken as broken:
                if attempt >= self._settings.resumes:
                    raise DownloadFailed(f"{host} {broken}after {self._part.size} bytes; try again later.") from None
                log.info(
                    "%s %s after %d bytes; resuming (%d of %d)",
                    host,
                    broken,
                    self._part.size,
                    attempt + 1,
                    self._settings.resumes,
                )
                back_off(attempt, self._waiting, broken.retry_after)
        if self._encoding:
            self._part.decode(self._encoding)
        return self._served

    def _attempt(self) -> None:
        """One connection's worth, from the first URL on: the targets of signed redirects may have expired."""
        with ExitStack() as stack:
            try:
                pool = stack.enter_context(httpcore.ConnectionPool(network_backend=GuardedBackend(self._guard, self._pace)))
                response = self._open(pool, stack)
                surplus = Surplus(response)
                headers = _headers(response)
                self._accept(response.status, headers)
                for block in response.iter_stream():
                    surplus.saw(block)
                    self._part.write(block)
                    self._tick()
                length = _length(headers)
                if length is not None and surplus.found(length):
                    raise SourceError(
                        f"{self._first.host} sent more bytes than it announced; the recording may be truncated. Ask its owner."
                    )
            except httpcore.ConnectError:
                raise Broken("does not accept connections") from None
            except httpcore.TimeoutException:
                raise Broken("stalled") from None
            except (httpcore.NetworkError, httpcore.RemoteProtocolError):
                raise Broken("broke the connection") from None
            except (httpcore.LocalProtocolError, httpcore.UnsupportedProtocol):
                raise SourceForbidden("The URL of the source is not valid in a request; check its spelling.") from None
        if self._total is not None and self._part.size < self._total:
            raise Broken("sent less than it announced")

    def _open(self, pool: httpcore.ConnectionPool, stack: ExitStack) -> httpcore.Response:
        """The response at the end of the redirects."""
        here = self._first
        for hop in count():
            response = stack.enter_context(
                pool.stream(
                    "GET",
                    httpcore.URL(scheme=here.scheme, host=here.host, port=here.port, target=here.url.raw_path),
                    headers=self._request_headers(here),
                    extensions={"timeout": self._timeouts()},
                )
            )
            location = _headers(response).get("location")
            if response.status not in _REDIRECTS or not location:
                return response
            if hop >= self._settings.max_redirects:
                raise SourceError(
                    f"{self._first.host} redirects more than {self._settings.max_redirects} times; give the final address."
                )
            here = _redirected(here, location)
        raise AssertionError("count() does not end")

    def _request_headers(self, here: Location) -> list[tuple[str, str]]:
        headers = [
            ("Host", here.host_header),
            ("User-Agent", "stenoflow"),
            ("Accept", "*/*"),
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
        ]
        user = self._first.url
        if user.userinfo and here.origin == self._first.origin:
            token = base64.b64encode(f"{user.username}:{user.password}".encode()).decode("ascii")
            headers.append(("Authorization", f"Basic {token}"))
        if self._part.size and self._validator:
            headers += [("Range", f"bytes={self._part.size}-"), ("If-Range", self._validator)]
        elif self._part.size:
            self._part.restart()
        return headers

    def _accept(self, status: int, headers: Mapping[str, str]) -> None:
        """Judge the status line and headers, and have `part` stand where the body goes on."""
        if status == 206 and self._part.size:
            self._accept_rest(headers)
            return
        if status == 416 and self._part.size:
            self._part.restart()
            raise Broken("changed the recording during the download")
        if status != 200:
            raise self._status_failure(status, headers)
        self._part.restart()
        self._encoding = _encoding(headers, self._first.host)
        self._total = _length(headers)
        self._validator = _validator(headers)
        self._served = Served(headers.get("content-type"), served_name(headers.get("content-disposition")))
        if self._total is not None:
            self._part.expect(self._total)

    def _accept_rest(self, headers: Mapping[str, str]) -> None:
        match = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
        total = int(match[3]) if match and match[3] != "*" else self._total
        same = match is not None and int(match[1]) == self._part.size and (self._total is None or total == self._total)
        if not same or _validator(headers) not in (None, self._validator):
            self._part.restart()
            raise Broken("changed the recording during the download")
        self._total = total
        if total is not None:
            self._part.expect(total)

    def _status_failure(self, status: int, headers: Mapping[str, str]) -> Exception:
        host, address = self._first.host, full_address(str(self._first.url))
        if status in _TRANSIENT or status >= 500:
            return Broken(f"answered {status}", _retry_after(headers.get("retry-after")))
        if status in (404, 410):
            return SourceNotFound(f"{address} was not found ({host} answers {status}); check the address.")
        if status in (401, 403):
            return SourceDenied(f"{host} denies access to {address} ({status}); give a readable address or a new signed URL.")
        return SourceError(f"{host} answered {status} for {address}; check the address.")

    def _timeouts(self) -> dict[str, float]:
        stall = self._settings.stall_timeout
        return {"connect": self._settings.connect_timeout, "read": stall, "write": stall, "pool": stall}

    def _tick(self) -> None:
        self._report(self._part.size, self._total)

    def _waiting(self) -> None:
        self._pace.begin()
        self._pace.check()


def _headers(response: httpcore.Response) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}


def _length(headers: Mapping[str, str]) -> int | None:
    """The body's announced length; a chunked body has none, whatever else is said (RFC 9112, 6.3)."""
    return None if "transfer-encoding" in headers or "content-length" not in headers else int(headers["content-length"])


def _default_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def _redirected(here: Location, location: str) -> Location:
    try:
        # httpx would hand the base's credentials on.
        url = here.url.copy_with(userinfo=b"").join(location)
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise SourceForbidden(f"{here.host} redirects to something that is not a URL.") from None
    there = parse(url)
    if url.userinfo:
        raise SourceForbidden(f"{here.host} redirects to a URL with credentials, which is not followed.")
    if here.scheme == "https" and there.scheme == "http":
        raise SourceForbidden(f"{here.host} redirects from https to unencrypted http, which is not followed.")
    return there


def _encoding(headers: Mapping[str, str], host: str) -> str:
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return ""
    if encoding not in _ENCODINGS:
        raise SourceError(f"{host} sends the recording in an encoding that was not requested; ask its owner to turn it off.")
    return encoding


def _validator(headers: Mapping[str, str]) -> str | None:
    """What If-Range may carry: a strong ETag, or else the date of the last change (RFC 9110, 13.1.5)."""
    etag = headers.get("etag", "")
    return etag if etag.startswith('"') else headers.get("last-modified")


def _retry_after(value: str | None) -> float | None:
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
