"""A receiver of webhooks on loopback, with switches for what goes wrong with receivers.

receiver.answers("/hook", 500, 500, 204)       one after the other, the last one from then on
receiver.answers("/hook", HANG, REDIRECT, HUGE)
receiver.got("/hook")                           what it was sent there
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HANG = "hang"
"""Takes what it is sent and never answers."""
REDIRECT = "redirect"
"""To `/elsewhere` of the same receiver."""
HUGE = "huge"
"""204's sibling with 64 MiB of words."""
MIB = 1 << 20


@dataclass
class Message:
    path: str
    headers: dict[str, str]
    body: bytes
    at: float


@dataclass
class Receiver:
    url: str = ""
    messages: list[Message] = field(default_factory=list)
    sent: int = 0
    """Bytes of huge answers that somebody took."""
    over: threading.Event = field(default_factory=threading.Event)
    _answers: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    @contextlib.contextmanager
    def listening(cls) -> Iterator[Receiver]:
        receiver = cls()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._take(self)

            def do_GET(self) -> None:
                receiver._take(self)

            def log_message(self, *arguments: Any) -> None:
                """Into no test's output."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.daemon_threads = True
            receiver.url = f"http://127.0.0.1:{server.server_address[1]}"
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                yield receiver
            finally:
                receiver.over.set()
                server.shutdown()

    def answers(self, path: str, *answers: Any) -> None:
        self._answers[path] = list(answers)

    def got(self, path: str, count: int = 0, timeout: float = 60) -> list[Message]:
        """What came to that path, once it is so many messages."""
        deadline = time.monotonic() + timeout
        while len(found := [message for message in self.messages if message.path.partition("?")[0] == path]) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} messages came to {path}: {found}"
            time.sleep(0.05)
        return found

    def _take(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.messages.append(Message(request.path, headers, body, time.time()))
        planned = self._answers[request.path.partition("?")[0]]
        answer = (planned.pop(0) if len(planned) > 1 else planned[0]) if planned else 204
        with contextlib.suppress(OSError):
            if answer == HANG:
                self.over.wait(120)
            elif answer == REDIRECT:
                request.send_response(307)
                request.send_header("Location", f"{self.url}/elsewhere")
                request.end_headers()
            elif answer == HUGE:
                request.send_response(200)
                request.end_headers()
                for _ in range(64):
                    request.wfile.write(b"x" * MIB)
                    self.sent += MIB
            else:
                request.send_response(answer)
                request.end_headers()
