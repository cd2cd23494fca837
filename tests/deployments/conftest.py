"""One deployed Stenoflow for the tests of a module, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.deployed import Deployed
from tests.postgres import postgres


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    with Webhook() as hook:
        yield hook


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory, webhook: Webhook) -> Iterator[Deployed]:
    env = {
        "STENO_DEPLOY__CONCURRENCY": "1",
        "STENO_DEPLOY__NOTIFY_URL": webhook.url,
        "STENO_DEPLOY__LATE_MINUTES": "0.2",
        "STENO_DEPLOY__NIGHTLY_SOURCE": "/nowhere",
        "STENO_DEPLOY__NIGHTLY_OPTIONS": '{"language": "fr"}',
    }
    with Deployed.start(tmp_path_factory.mktemp("sqlite"), env) as deployed:
        yield deployed


@pytest.fixture(scope="module")
def on_postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    with postgres() as url:
        env = {"STENO_DEPLOY__DATABASE_URL": url}
        with Deployed.start(tmp_path_factory.mktemp("postgresql"), env) as deployed:
            yield deployed


@pytest.fixture(params=["sqlite", "postgresql"])
def deployed(request: pytest.FixtureRequest) -> Deployed:
    found: Deployed = request.getfixturevalue(f"on_{request.param}")
    found.plan()
    return found


@pytest.fixture
def recording(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Four seconds that no other test has had, under a name that none has had: outputs are kept from other recordings'."""
    seed = zlib.crc32(request.node.nodeid.encode())
    path = tmp_path / f"call-{seed}.wav"
    soundfile.write(path, np.random.default_rng(seed).normal(0, 0.1, 4 * 16_000), 16_000)
    return path


class Webhook:
    """A server that keeps the JSON it is sent."""

    def __init__(self) -> None:
        received: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.received = received
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/secret-token"

    def __enter__(self) -> Webhook:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
