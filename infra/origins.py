"""The names that an HTTP service answers to, and the web pages that may call it: what stands before it in a browser.

A browser on the operator's machine, or in its network, lets any page send requests there. Two things tell such requests apart:
the `Host` that was asked for, which DNS rebinding makes a name of the attacker's, and `Origin` (`Sec-Fetch-Site`, `Referer`),
in which the browser names the page. Programs that are no browser send neither `Origin` nor `Sec-Fetch-Site`, and pass.

    app = Origins(app, hosts=host_names("127.0.0.1"), setting="STENO_DEPLOY")

`Origins` is plain ASGI and wraps any application. Terms: https://fetch.spec.whatwg.org/#origin-header,
https://www.w3.org/TR/fetch-metadata/.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import Annotated, Any

from pydantic import AfterValidator

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_SAFE = {"GET", "HEAD", "OPTIONS"}
_PREFLIGHT_SECONDS = 600
_AUTHORITY = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?", re.ASCII)
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#@\s]+)(?=[/?#]|$)", re.ASCII)
_PORTS = {"http": 80, "https": 443}


def host_names(bind: str, more: Iterable[str] = ()) -> frozenset[str]:
    """The hosts that a service listening at `bind` answers to, `more` included.

    Loopback names and the address that a connection came in at need not be listed.
    """
    own = _address(bind.strip("[]").lower())
    names = {_name(name) for name in more}
    if not _is_unspecified(own):
        names.add(own)
    if not _is_loopback(own):
        machine = socket.gethostname().lower()
        names |= {machine, machine.partition(".")[0]}
    return frozenset(names - {""})


def _allowed_host(text: str) -> str:
    name = text.strip().lower()
    if not _AUTHORITY.fullmatch(name):
        raise ValueError(f"{text!r} is not a host name; give it without scheme and path, such as steno.example.com")
    return _name(name)


def _allowed_origin(text: str) -> str:
    origin = text.strip().lower().rstrip("/")
    if _origin(origin) is None:
        raise ValueError(f"{text!r} is not an origin; give scheme, host and any port, such as https://steno.example.com")
    return origin


HostName = Annotated[str, AfterValidator(_allowed_host)]
"""A setting's entry: a host without its port."""
Origin = Annotated[str, AfterValidator(_allowed_origin)]
"""A setting's entry: `https://page.example.com`."""


class Refusal(Exception):
    """Why a request is not answered."""

    def __init__(self, status: HTTPStatus, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail


class Origins:
    """Answers to its own names only, to browsers only for its own pages and those of `origins`, and speaks CORS for no others.

    `hosts` is None where any name will do. `setting` is the prefix of the settings that a refusal names: `STENO_API` for STENO_API__ALLOWED_HOSTS. `expose` are
    response headers that pages of `origins` may read. CORS headers of the application itself are dropped.
    """

    def __init__(
        self, app: App, *, hosts: Iterable[str] | None, origins: Iterable[str] = (), setting: str, expose: Iterable[str] = ()
    ) -> None:
        self._app = app
        self._hosts = frozenset(hosts) if hosts is not None else None
        self._origins = frozenset(filter(None, map(_origin, origins)))
        self._setting = setting
        self._expose = ", ".join(expose)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = _Headers(scope)
        try:
            self._check_host(scope, headers)
            self._check_caller(scope, headers)
        except Refusal as refusal:
            await _refuse(scope, receive, send, refusal)
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        allowed = self._cors(headers)
        if scope["method"] == "OPTIONS" and headers.has("origin") and headers.has("access-control-request-method"):
            await _answer(send, HTTPStatus.NO_CONTENT, [*allowed, *_preflight(headers)])
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*_without_cors(message.get("headers", ())), *allowed]
            await send(message)

        await self._app(scope, receive, sending)

    def _check_host(self, scope: Scope, headers: _Headers) -> None:
        """Raise Refusal unless exactly one Host names this service."""
        given = headers.all("host")
        name = _name(given[0]) if len(given) == 1 and _AUTHORITY.fullmatch(given[0]) else ""
        server = scope.get("server") or ("",)
        if name and (self._hosts is None or name in self._hosts or _is_loopback(name) or name == _address(str(server[0]))):
            return
        raise Refusal(
            HTTPStatus.MISDIRECTED_REQUEST,
            "host_refused",
            "The request is for an unknown host; use an address of this machine, "
            f"or add the name to {self._setting}__ALLOWED_HOSTS.",
        )

    def _check_caller(self, scope: Scope, headers: _Headers) -> None:
        """Raise Refusal for what a browser sends for another site's page, except followed links."""
        origin = headers.one("origin")
        site = headers.one("sec-fetch-site")
        unsafe = scope["type"] == "websocket" or scope["method"] not in _SAFE
        if origin is None and unsafe and (referrer := headers.one("referer")) is not None:
            found = _ORIGIN.match(referrer)
            origin = found[0] if found else "null"
        if origin is not None and _origin(origin) in self._origins:
            return
        foreign = site not in (None, "same-origin", "none")
        if origin is not None and not self._is_own(origin, headers):
            foreign = True
        elif foreign and not unsafe:
            foreign = headers.one("sec-fetch-mode") != "navigate"
        if foreign:
            raise Refusal(
                HTTPStatus.FORBIDDEN,
                "origin_refused",
                "Pages of other origins may not call this server; to allow yours, "
                f"add its origin to {self._setting}__ALLOWED_ORIGINS.",
            )

    def _is_own(self, origin: str, headers: _Headers) -> bool:
        """Whether the page comes from this service, by the name that the browser knows it by."""
        parsed = _origin(origin)
        found = _AUTHORITY.fullmatch(headers.one("host") or "")
        if parsed is None or found is None:
            return False
        return parsed[1:] == (_name(found[0]), int(found["port"] or _PORTS[parsed[0]]))

    def _cors(self, headers: _Headers) -> list[tuple[bytes, bytes]]:
        """The headers of every answer. `_check_caller` let the origin pass."""
        found = [(b"vary", b"origin"), (b"content-security-policy", b"frame-ancestors 'self'")]
        if (origin := headers.one("origin")) is not None:
            found.append((b"access-control-allow-origin", origin.encode("latin-1")))
            if self._expose:
                found.append((b"access-control-expose-headers", self._expose.encode()))
        return found


class _Headers:
    """A request's, by lower-case name. Values are stripped and, but for `referer`, all compared in lower case."""

    def __init__(self, scope: Scope) -> None:
        self._found: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            self._found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip().lower())

    def all(self, name: str) -> list[str]:
        return self._found.get(name, [])

    def has(self, name: str) -> bool:
        return name in self._found

    def one(self, name: str) -> str | None:
        """None when there is none; what is sent twice is joined, and so matches nothing."""
        return ", ".join(self._found[name]) if name in self._found else None


def _preflight(headers: _Headers) -> list[tuple[bytes, bytes]]:
    asked = headers.one("access-control-request-headers") or ""
    found = [
        (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, PATCH, DELETE"),
        (b"access-control-max-age", str(_PREFLIGHT_SECONDS).encode()),
    ]
    if asked:
        found.append((b"access-control-allow-headers", asked.encode("latin-1")))
    if headers.has("access-control-request-private-network"):
        found.append((b"access-control-allow-private-network", b"true"))
    return found


def _without_cors(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if not name.lower().startswith(b"access-control-")]


async def _refuse(scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": refusal.code})
        return
    problem = {
        "type": "about:blank",
        "title": refusal.status.phrase,
        "status": refusal.status,
        "detail": refusal.detail,
        "code": refusal.code,
        "error": refusal.detail,
    }
    body = json.dumps(problem).encode()
    # What is left of the request's body is not read: the connection ends.
    headers = [(b"content-type", b"application/problem+json"), (b"connection", b"close"), (b"vary", b"origin")]
    await _answer(send, refusal.status, headers, body)


async def _answer(send: Send, status: HTTPStatus, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> None:
    length = [(b"content-length", str(len(body)).encode())] if body else []
    await send({"type": "http.response.start", "status": int(status), "headers": [*headers, *length]})
    await send({"type": "http.response.body", "body": body})


def _origin(text: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; None for `null` and anything else that is not an origin."""
    parts = _ORIGIN.fullmatch(text)
    authority = _AUTHORITY.fullmatch(parts["authority"]) if parts else None
    if parts is None or authority is None:
        return None
    return parts["scheme"], _name(authority[0]), int(authority["port"] or _PORTS[parts["scheme"]])


def _name(authority: str) -> str:
    """The host without its port, lower-case; addresses in their one spelling, without brackets."""
    found = _AUTHORITY.fullmatch(authority.strip().lower())
    return _address(found["host"].strip("[]").removesuffix(".")) if found else ""


def _address(text: str) -> str:
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(text.partition("%")[0])
        return str(getattr(address, "ipv4_mapped", None) or address)
    return text if _AUTHORITY.fullmatch(text) else ""


def is_local_name(authority: str) -> bool:
    """Whether a `Host`, or an address, is this machine's own by its spelling alone: names are not looked up."""
    if ":" in authority and "[" not in authority and authority.count(":") > 1:
        return _is_loopback(_address(authority))
    return _is_loopback(_name(authority))


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback
    return False


def _is_unspecified(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_unspecified
    return False
