"""Servers on loopback for the tests of fetching and storing: one with fault switches, and moto's S3."""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from infra import connections
from infra.settings import LimitSettings, NetSettings, S3Settings, StenoSettings

BODY = random.Random(7).randbytes(700_000)
SHA256 = hashlib.sha256(BODY).hexdigest()

Answer = Callable[["Handler", int], None]
"""Answers one request; told which one to this path it is, from 0."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultServer

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        with self.server.guard:
            turn = sum(1 for seen, _ in self.server.requests if seen.partition("?")[0] == path)
            self.server.requests.append((self.path, dict(self.headers)))
        self.close_connection = True
        answer = self.server.answers.get(path)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if answer is None:
                self.reply(404)
            else:
                answer(self, turn)

    def do_HEAD(self) -> None:
        self.do_GET()

    def reply(self, status: int, body: bytes = b"", **headers: str | int) -> None:
        """Status, headers (`content_type="…"`) and body; Content-Length is the body's unless given, none if empty text."""
        self.send_response(status)
        named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
        for name, value in ({"content-length": str(len(body))} | named).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.wfile.flush()

    def ranged(self, body: bytes = BODY, etag: str = '"one"', cut: int | None = None) -> None:
        """The body as a well-behaved server gives it, or only `cut` bytes of what it announces."""
        start = 0
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if match and self.headers.get("If-Range", etag) == etag:
            start = int(match[1])
            end = min(int(match[2] or len(body) - 1), len(body) - 1)
            piece = body[start : end + 1]
            extra: dict[str, str] = {"content_range": f"bytes {start}-{end}/{len(body)}"}
            self.reply(206, piece[:cut], content_length=len(piece), etag=etag, accept_ranges="bytes", **extra)
        else:
            self.reply(200, body[:cut], content_length=len(body), etag=etag, content_type="audio/wav; charset=x")

    def log_message(self, format: str, *args: Any) -> None:
        pass


class FaultServer(ThreadingHTTPServer):
    """A real HTTP server whose answers a test writes, path by path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.guard = threading.Lock()
        self.released = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def url(self, path: str) -> str:
        return f"http://{self.host}{path}"

    def drip(self, handler: Handler, block: bytes, pause: float) -> None:
        """Send the block again and again until the test ends or the client leaves."""
        while not self.released.is_set():
            handler.wfile.write(block)
            handler.wfile.flush()
            time.sleep(pause)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    server = FaultServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    server.answers["/talk.wav"] = lambda handler, turn: handler.ranged()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def quick_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "BACKOFF_SECONDS", 0.01)


@pytest.fixture
def settings(tmp_path: Path, server: FaultServer) -> StenoSettings:
    """Allows the loopback test server, on its port only."""
    return make_settings(tmp_path, allow_hosts=(server.host,))


def make_settings(home: Path, max_bytes: int = 5_000_000, s3: S3Settings | None = None, **net: Any) -> StenoSettings:
    return StenoSettings(
        home=home,
        limits=LimitSettings(max_bytes=max_bytes),
        net=NetSettings(**({"resumes": 2, "connect_timeout": 5, "stall_timeout": 5} | net)),
        s3=s3 or S3Settings(),
    )


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(moto_endpoint: str) -> S3Settings:
    return S3Settings(endpoint_url=moto_endpoint, region="us-east-1", key="testing", secret="testing", addressing_style="path")


@pytest.fixture
def bucket(moto_endpoint: str) -> Iterator[str]:
    """An empty bucket in moto's S3."""
    client = s3_client(moto_endpoint)
    client.create_bucket(Bucket="recordings")
    yield "recordings"
    for item in client.list_objects_v2(Bucket="recordings").get("Contents", []):
        client.delete_object(Bucket="recordings", Key=item["Key"])
    client.delete_bucket(Bucket="recordings")


def s3_client(endpoint: str) -> Any:
    import boto3

    return boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="testing", aws_secret_access_key="testing"
    )
