"""A ceiling over every body, whichever route reads it and however: no larger than an upload, no slower than a drip.

A body with an ambiguous length is rejected: a proxy and this service might read it differently (request smuggling).

Routes have limits of their own below it (`api.bodies`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import ApiError, BadRequest, TimedOut, TooLarge
from api.problems import problem
from infra.api_settings import ApiSettings

SLOWEST = 1024
"""Bytes per second on the average: what comes slower holds a connection and brings nothing."""
_DRAIN_SECONDS = 1.0
_DRAIN_BYTES = 4 << 20


class Ceiling:
    """Answers 413 and 408 in place of the application when a body is too large or does not come."""

    def __init__(self, app: ASGIApp, settings: ApiSettings) -> None:
        self._app = app
        self._limit = settings.max_upload_bytes + settings.max_body_bytes
        self._timeout = settings.body_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(receive, self._limit, self._timeout)
        answered = False

        async def sending(message: Message) -> None:
            nonlocal answered
            if body.refused is not None and not answered:
                return  # whatever the application made of it, the answer is ours
            answered = True
            if message["type"] == "http.response.start" and body.begun and not body.ended:
                # What is still coming is not read: the connection is good for nothing else.
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        declared = Headers(scope=scope).get("content-length", "")
        if _is_ambiguous(scope):
            body.refused = BadRequest(
                "Send either a Content-Length or, in HTTP/1.1, `Transfer-Encoding: chunked`.", code="ambiguous_length"
            )
        elif declared.isdecimal() and int(declared) > self._limit:
            body.refused = _too_large(self._limit)
        else:
            with contextlib.suppress(_Refused):
                await self._app(scope, body.receive, sending)
        if body.refused is not None and not answered:
            await self._refuse(body.refused, scope, receive, send)

    async def _refuse(self, refused: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
        if "100-continue" not in Headers(scope=scope).get("expect", "").lower():
            await _drained(receive)
        answer = problem(
            Request(scope),
            refused.status,
            refused.problem_code,
            refused.detail,
            title=refused.title,
            headers={"Connection": "close"},
        )
        await answer(scope, receive, send)


def _is_ambiguous(scope: Scope) -> bool:
    """Whether the body's length is ambiguous, or given in a way that the HTTP version lacks; h11 uses one and ignores the other."""
    names = [bytes(name).lower().replace(b"_", b"-") for name, _ in scope["headers"]]
    chunked = names.count(b"transfer-encoding")
    return bool(chunked) and (b"content-length" in names or chunked > 1 or scope.get("http_version") == "1.0")


class _Refused(Exception):
    """Ends the application's reading; no route sees a body that was refused."""


class _Body:
    """What arrives, counted and timed."""

    def __init__(self, receive: Receive, limit: int, timeout: float) -> None:
        self._receive = receive
        self._limit = limit
        self._timeout = timeout
        self._size = 0
        self._began = 0.0
        self.begun = False
        self.ended = False
        self.refused: ApiError | None = None

    async def receive(self) -> Message:
        if self.ended:
            return await self._receive()  # waits for the caller to leave, for as long as the answer takes
        if not self.begun:
            self.begun, self._began = True, time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), self._timeout)
        except TimeoutError:
            raise self._refuse(TimedOut(f"No byte of the body arrived for {self._timeout:g} s; send it again.")) from None
        if message["type"] != "http.request":
            self.ended = True
            return message
        self._size += len(message.get("body", b""))
        self.ended = not message.get("more_body", False)
        if self._size > self._limit:
            raise self._refuse(_too_large(self._limit))
        took = time.monotonic() - self._began
        if not self.ended and took > self._timeout and self._size < SLOWEST * took:
            raise self._refuse(TimedOut("The body arrives too slowly; send it again over a faster connection."))
        return message

    def _refuse(self, refused: ApiError) -> _Refused:
        self.refused = refused
        return _Refused(refused.detail)


async def _drained(receive: Receive) -> None:
    """Read on for a moment: a caller that is still sending sees an answer only when it was not cut off."""
    size, end = 0, time.monotonic() + _DRAIN_SECONDS
    while size < _DRAIN_BYTES and (left := end - time.monotonic()) > 0:
        try:
            message = await asyncio.wait_for(receive(), left)
        except TimeoutError:
            return
        if message["type"] != "http.request" or not message.get("more_body", False):
            return
        size += len(message.get("body", b""))


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body exceeds the limit of {limit} bytes.")
