"""HTTP as it comes over the wire: a head that does not arrive is not waited for, and what is no HTTP gets a problem, too.

Uvicorn bounds how large a head may be, not how long it may take; connections that say nothing would pile up.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.problems import MEDIA_TYPE

HEAD_SECONDS = 20.0
"""From the connection, or the first byte of a further request on it, to the end of the head."""


class PatientProtocol(H11Protocol):
    """Uvicorn's protocol with a limit on how long a request's head may take."""

    def __init__(self, *args: Any, head_seconds: float = HEAD_SECONDS, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head_seconds = head_seconds
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_began = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._head_began = True
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._watch()
        else:
            self._head_began = False
            self._unwatch()

    def send_400_response(self, msg: str) -> None:
        self._answer(HTTPStatus.BAD_REQUEST, "invalid_http", "The request is not valid HTTP.")

    def _watch(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._head_seconds, self._too_slow)

    def _unwatch(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if self.transport.is_closing() or self.conn.their_state is not h11.IDLE:
            return
        if self._head_began and self.conn.our_state is h11.IDLE:
            self._answer(HTTPStatus.REQUEST_TIMEOUT, "head_timeout", "The headers of the request did not arrive in time.")
        else:
            self.transport.close()

    def _answer(self, status: HTTPStatus, code: str, detail: str) -> None:
        if self.conn.our_state is h11.IDLE or self.conn.our_state is h11.SEND_RESPONSE:
            body = {
                "type": "about:blank",
                "title": status.phrase,
                "status": status,
                "detail": detail,
                "code": code,
                "error": detail,
                "instance": "",
                "request_id": "",
            }
            content = json.dumps(body).encode()
            headers = [("Content-Type", MEDIA_TYPE), ("Content-Length", str(len(content))), ("Connection", "close")]
            for event in (
                h11.Response(status_code=status, headers=headers, reason=status.phrase.encode()),
                h11.Data(data=content),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
