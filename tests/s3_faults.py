"""A real S3 service (moto's, in a process of its own) behind a proxy with fault switches.

As a fixture, `faulty_s3`::

    bucket = faulty_s3.bucket()                       # a new, empty one
    faulty_s3.set({"fault": "error", "rate": 0.05})   # 5 % of all requests answer 500 or 503 SlowDown
    faulty_s3.clear()

Processes that a test starts get `faulty_s3.environment(bucket)`; they, or the test, may also switch faults by URL:
`GET`, `PUT` (a JSON list of rules) and `DELETE` on `<endpoint>/_faults`. A rule is an object:

- `fault`: `error` (an S3 error document), `cut_down` (reset in the middle of the answer's body), `cut_up` (reset in the
  middle of the request's body), `lost` (done, then reset before the answer), `hang` (no answer until the client leaves),
  `trickle` (the answer's body at `bytes_per_second`), `refuse` (reset at once)
- which requests: `rate` (a share of them, drawn from a generator with a fixed `seed`), or `every` (each n-th), else all;
  `method` and `path` (a regular expression) narrow them
- for how long: `times` (faults), `seconds` (from now)
- `status` (of `error`; 500 and 503 in turn when left out)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from infra.settings import S3Settings

CONTROL = "/_faults"
CODES = {500: "InternalError", 503: "SlowDown", 429: "TooManyRequests", 403: "AccessDenied"}


class FaultyS3:
    """The service as a test sees it."""

    def __init__(self, endpoint: str, direct: str) -> None:
        self.endpoint = endpoint
        """Through the faults."""
        self.direct = direct
        """Past them."""

    @property
    def settings(self) -> S3Settings:
        return S3Settings(
            endpoint_url=self.endpoint, region="us-east-1", key="testing", secret="testing", addressing_style="path"
        )

    def environment(self, bucket: str) -> dict[str, str]:
        """Variables for a process whose store is that bucket."""
        return {
            "STENO_STORE": f"s3://{bucket}/store",
            "STENO_S3__ENDPOINT_URL": self.endpoint,
            "STENO_S3__REGION": "us-east-1",
            "STENO_S3__KEY": "testing",
            "STENO_S3__SECRET": "testing",
            "STENO_S3__ADDRESSING_STYLE": "path",
        }

    def bucket(self) -> str:
        """A new, empty bucket's name."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name

    def client(self) -> Any:
        """boto3's, past the faults."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.direct,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    def set(self, *rules: dict[str, Any]) -> None:
        """Put these rules in force instead of any before; counts start anew."""
        self._control("PUT", json.dumps(rules).encode())

    def clear(self) -> None:
        self._control("DELETE")

    def outage(self, seconds: float) -> None:
        """Reset every connection for that long."""
        self.set({"fault": "refuse", "seconds": seconds})

    def state(self) -> dict[str, Any]:
        """`requests`: `METHOD /path` of each since the rules were set; `faults`: how many of each kind were made."""
        return dict(json.loads(self._control("GET")))

    def requests(self) -> list[str]:
        return list(self.state()["requests"])

    def _control(self, method: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"{self.endpoint}{CONTROL}", data=body, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bytes(answer.read())


@contextlib.contextmanager
def serving() -> Iterator[FaultyS3]:
    """The service, in a process that ends with the block (or with this process)."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.s3_faults"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert process.stdin
    assert process.stdout
    try:
        place = json.loads(process.stdout.readline())
        yield FaultyS3(place["endpoint"], place["direct"])
    finally:
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def s3_service() -> Iterator[FaultyS3]:
    with serving() as service:
        yield service


@pytest.fixture
def faulty_s3(s3_service: FaultyS3) -> Iterator[FaultyS3]:
    """The service, without faults until the test sets some."""
    s3_service.clear()
    yield s3_service
    s3_service.clear()


# -- the process --------------------------------------------------------------------------------------------------------


class Rule:
    def __init__(self, rule: dict[str, Any]) -> None:
        self.rule = rule
        self.fault: str = rule["fault"]
        self.left: int | None = rule.get("times")
        self.end = time.monotonic() + rule["seconds"] if "seconds" in rule else None
        self.random = random.Random(rule.get("seed", 7))
        self.path = re.compile(rule.get("path", ""))
        self.seen = 0
        self.made = 0

    def hits(self, request: Request) -> bool:
        if self.left == 0 or (self.end is not None and time.monotonic() > self.end):
            return False
        if "method" in self.rule and request.method != self.rule["method"]:
            return False
        if not self.path.search(request.target):
            return False
        if self.fault == "cut_up" and len(request.body) < 2:
            return False
        self.seen += 1
        if "rate" in self.rule and self.random.random() >= self.rule["rate"]:
            return False
        if "every" in self.rule and self.seen % self.rule["every"]:
            return False
        self.left = None if self.left is None else self.left - 1
        self.made += 1
        return True

    @property
    def status(self) -> int:
        return int(self.rule.get("status") or (500, 503)[self.made % 2])


class Request(NamedTuple):
    method: str
    target: str
    head: bytes
    body: bytes


class Proxy:
    def __init__(self, upstream: tuple[str, int]) -> None:
        self.upstream = upstream
        self.rules: list[Rule] = []
        self.requests: list[str] = []
        self.faults: Counter[str] = Counter()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            while await self._answer_one(reader, writer):
                pass
        writer.close()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        length = int(_header(head, "content-length") or 0)
        cut_up = next((rule for rule in self.rules if rule.fault == "cut_up"), None)
        if cut_up and length > 1 and cut_up.hits(Request(method, target, head, b"xx")):
            if _header(head, "expect"):
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await reader.read(max(length // 2, 1))
            return self._reset(writer, "cut_up")
        if _header(head, "expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await _chunked(reader) if _header(head, "transfer-encoding") else await reader.readexactly(length)
        request = Request(method, target, head, body)
        if target.startswith(CONTROL):
            writer.write(self._control(request))
            await writer.drain()
            return True
        self.requests.append(f"{method} {target}")
        rule = next((rule for rule in self.rules if rule.fault != "cut_up" and rule.hits(request)), None)
        if rule is None:
            writer.write(await self._forward(request))
            await writer.drain()
            return True
        return await self._fail(rule, request, reader, writer)

    async def _fail(self, rule: Rule, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if rule.fault == "refuse":
            return self._reset(writer, rule.fault)
        if rule.fault == "hang":
            self.faults["hang"] += 1
            await reader.read()  # until the client leaves
            return False
        if rule.fault == "error":
            self.faults["error"] += 1
            writer.write(_error(rule.status, request.method))
            await writer.drain()
            return True
        answer = await self._forward(request)
        head, _, body = answer.partition(b"\r\n\r\n")
        if rule.fault == "lost":
            return self._reset(writer, rule.fault)
        if not body:
            writer.write(answer)
            return True
        writer.write(head + b"\r\n\r\n")
        if rule.fault == "cut_down":
            writer.write(body[: len(body) // 2])
            await writer.drain()
            await asyncio.sleep(0.02)  # lets the client read before the reset discards it
            return self._reset(writer, rule.fault)
        self.faults["trickle"] += 1
        step = max(int(rule.rule["bytes_per_second"] / 20), 1)
        for start in range(0, len(body), step):
            writer.write(body[start : start + step])
            await writer.drain()
            await asyncio.sleep(0.05)
        return True

    def _reset(self, writer: asyncio.StreamWriter, fault: str) -> bool:
        self.faults[fault] += 1
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return False

    async def _forward(self, request: Request) -> bytes:
        """The service's whole answer, with its length said, so that the connection can be kept."""
        reader, writer = await asyncio.open_connection(*self.upstream)
        try:
            dropped = ("connection", "expect", "transfer-encoding", "content-length")
            head = (
                _without(request.head, dropped) + f"Connection: close\r\nContent-Length: {len(request.body)}\r\n\r\n".encode()
            )
            writer.write(head + request.body)
            await writer.drain()
            answer = await reader.read()
        finally:
            writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        if _header(head + b"\r\n", "transfer-encoding"):
            inner = asyncio.StreamReader()
            inner.feed_data(body)
            inner.feed_eof()
            body = await _chunked(inner)
            head = _without(head, ("transfer-encoding", "connection")).rstrip() + f"\r\nContent-Length: {len(body)}".encode()
        else:
            head = _without(head, ("connection",)).rstrip()
        return head.replace(b"HTTP/1.0", b"HTTP/1.1", 1) + b"\r\n\r\n" + (b"" if request.method == "HEAD" else body)

    def _control(self, request: Request) -> bytes:
        if request.method in ("PUT", "DELETE"):
            self.rules = [Rule(rule) for rule in json.loads(request.body or b"[]")]
            self.requests, self.faults = [], Counter()
        body = json.dumps({"requests": self.requests, "faults": self.faults}).encode()
        return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def _header(head: bytes, name: str) -> str | None:
    match = re.search(rb"\r\n" + name.encode() + rb":[ \t]*([^\r]*)", head, re.IGNORECASE)
    return match[1].decode().strip() if match else None


def _without(head: bytes, names: tuple[str, ...]) -> bytes:
    """The head, its lines each ended, without these headers and without the empty line."""
    lines = head.rstrip(b"\r\n").split(b"\r\n")
    kept = [line for line in lines if line.partition(b":")[0].strip().lower().decode("latin-1") not in names]
    return b"".join(line + b"\r\n" for line in kept)


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return body


def _error(status: int, method: str) -> bytes:
    code = CODES.get(status, "InternalError")
    document = (
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>told to fail</Message>'
        "<RequestId>1</RequestId></Error>"
    )
    body = b"" if method == "HEAD" else document.encode()
    head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _main() -> None:
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    upstream = moto.get_host_and_port()
    server = await asyncio.start_server(Proxy(upstream).serve, "127.0.0.1", 0, limit=1 << 20)
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"endpoint": f"http://127.0.0.1:{port}", "direct": "http://{}:{}".format(*upstream)}), flush=True)
    # The parent's end of the pipe closes when it goes, however it goes.
    await asyncio.to_thread(sys.stdin.read)
    os._exit(0)


if __name__ == "__main__":
    import logging

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    asyncio.run(_main())
