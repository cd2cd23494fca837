"""What can be seen of the service: request ids, structured logs, metrics, readiness. Never a secret or a word of a transcript."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import logs, metrics, ready
from api.ceiling import Ceiling
from api.problems import problem
from infra.origins import Origins
from infra.settings import StenoSettings

HEADER = "X-Request-ID"
UNMATCHED = "(none)"
"""The route label of unmatched requests, whose paths are arbitrary."""
_SANE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_CLOSED = 499
"""Logged when the caller left before the answer began (as nginx does)."""

_log = logging.getLogger("api.access")


def instrument(app: FastAPI, hosts: Iterable[str] | None = None) -> None:
    """Give every request an id, a line in the log and its place in the metrics; add `/metrics` and `/health/ready`.

    What is not for one of `hosts` (None: any), or comes from other sites' pages, is refused.
    """
    settings: StenoSettings = app.state.settings
    app.include_router(metrics.router)
    app.include_router(ready.router)
    app.add_middleware(Ceiling, settings=settings.api)
    app.add_middleware(
        Origins,
        hosts=hosts,
        origins=settings.api.allowed_origins,
        setting="STENO_API",
        expose=(HEADER, "X-Steno-Job-Id", "Location", "Retry-After", "Deprecation", "Link", "Warning", "WWW-Authenticate"),
    )
    app.add_middleware(Observed)  # added last: it stands outside


class Observed:
    """Around everything: what goes in gets an id, what comes out is counted and logged."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        try:
            await self._app(scope, receive, exchange.send)
        except Exception as error:
            logs.failure(_log, error, request_id=exchange.id, route=exchange.route)
            if exchange.status:
                raise  # in the middle of an answer; the connection is cut
            answer = problem(Request(scope), 500, "internal", "Internal error; the service has logged the details.")
            await answer(scope, receive, exchange.send)
        finally:
            exchange.end()


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._began = time.perf_counter()
        self.status = 0
        self.id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = self.id

    @property
    def route(self) -> str:
        """The path's template; never the path itself, which may hold anything."""
        route: Any = self._scope.get("route")
        return getattr(route, "path", None) or UNMATCHED

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers[HEADER] = self.id
            headers.setdefault("X-Content-Type-Options", "nosniff")
            headers.setdefault("Cache-Control", "no-store")
        await self._send(message)

    def end(self) -> None:
        seconds = time.perf_counter() - self._began
        status = self.status or _CLOSED
        method = metrics.known_method(self._scope["method"])
        metrics.REQUESTS.labels(self.route, method, str(status)).inc()
        metrics.SECONDS.labels(self.route, method).observe(seconds)
        _log.info(
            "request",
            extra={
                "fields": {
                    "method": method,
                    "route": self.route,
                    "status": status,
                    "ms": round(seconds * 1000, 1),
                    "key": self._scope["state"].get("key_id"),
                    "request_id": self.id,
                }
            },
        )


def _request_id(scope: Scope) -> str:
    """The caller's own id when it is a sane one, so that it can be followed through several services; else a new one."""
    given = Headers(scope=scope).getlist(HEADER)
    return given[0] if len(given) == 1 and _SANE.fullmatch(given[0]) else uuid.uuid4().hex
