"""An API as strangers meet it: keys, tight limits, a name service that lies, and a canary that nobody may reach.

Its own server, worker and process of `steno api`. `deployed.env` puts a `sitecustomize` in front of every process, by which
the names under `.test` resolve as `HOSTS` says; all others resolve as ever.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from api import keys
from infra.store import Store
from tests.api.hostile_server import HostileServer
from tests.api.live import LiveApi

ROOT = Path(__file__).parents[2]
PUBLIC = "3ffe:ffff::1"
"""Global by the registries' tables, and routed nowhere."""
HOSTS: dict[str, list[list[str]]] = {
    "public.test": [[PUBLIC]],
    "inside.test": [["127.0.0.1"]],
    "intranet.test": [["10.1.2.3"]],
    "inside6.test": [["::1"]],
    "mapped.test": [["::ffff:127.0.0.1"]],
    "mixed.test": [[PUBLIC, "127.0.0.1"]],
    "metadata.test": [["169.254.169.254"]],
    "unspecified.test": [["0.0.0.0"]],
    # The first answer of a process, the second …; the last one stays. The API looks once, the worker at every connection.
    "flips.test": [[PUBLIC], ["127.0.0.1"]],
}
WORKER_HOSTS = HOSTS | {"rebound.test": [["127.0.0.1"]]}
API_HOSTS = HOSTS | {"rebound.test": [[PUBLIC]]}

SITECUSTOMIZE = """
import json, os, socket, sys
_hosts = json.loads(os.environ["TEST_HOSTS"])["api" if "api" in sys.orig_argv else "worker"]
_asked, _ask = {}, socket.getaddrinfo

def getaddrinfo(host, port, *args, **options):
    name = host.decode() if isinstance(host, bytes) else host
    answers = _hosts.get(name)
    if answers is None:
        return _ask(host, port, *args, **options)
    turn = _asked[name] = _asked.get(name, -1) + 1
    found = answers[min(turn, len(answers) - 1)]
    return [(socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port or 0)) for a in found]

socket.getaddrinfo = getaddrinfo
"""

LIMITS = {
    "STENO_API__BODY_TIMEOUT": "1.5",
    "STENO_API__MAX_BODY_BYTES": str(256 * 1024),
    "STENO_API__MAX_UPLOAD_BYTES": str(1 << 20),
    "STENO_API__MAX_CHUNK_SECONDS": "5",
    "STENO_API__RATE": "100000",
    "STENO_API__RATE_SUBMIT": "100000",
    "STENO_API__PENDING_JOBS": "100000",
    "STENO_API__MAX_WAIT": "1",
    "STENO_API__OPENAI_WAIT": "0.1",
    "STENO_API__OPENAI_STREAM_WAIT": "0.1",
    "STENO_LIMITS__MAX_BYTES": str(1 << 20),
    "STENO_LIMITS__MAX_DURATION": "60",
    "STENO_NET__CONNECT_TIMEOUT": "2",
    "STENO_NET__STALL_TIMEOUT": "4",
    "STENO_NET__RESUMES": "1",
    "STENO_NET__MAX_SECONDS": "20",
    "STENO_RETRY__ATTEMPTS": "0",
    "STENO_API__S3_SOURCES": '["recordings"]',
    "STENO_API__ALLOWED_HOSTS": '["api"]',
}


@dataclass
class Canary:
    """A listener on loopback that counts who comes."""

    port: int
    visits: list[bytes] = field(default_factory=list)

    @classmethod
    @contextlib.contextmanager
    def listening(cls) -> Iterator[Canary]:
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        canary = cls(listener.getsockname()[1])

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(1)
                    canary.visits.append(connection.recv(1000))

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield canary
        finally:
            listener.close()


@dataclass
class GuardedApi:
    live: LiveApi
    canary: Canary
    server: HostileServer
    key: str
    key_id: str
    other: str
    other_id: str
    """Somebody else's key, for recordings of half a second at most."""

    @property
    def store(self) -> Store:
        home = Path(self.live.env["STENO_HOME"])
        return Store(str(home / "store"), home / "scratch")


@contextlib.contextmanager
def guarded(home: Path) -> Iterator[GuardedApi]:
    """Start all of it; afterwards no process is left."""
    patch = home / "patch"
    patch.mkdir(parents=True)
    (patch / "sitecustomize.py").write_text(SITECUSTOMIZE)
    path = os.pathsep.join((str(patch), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])))
    hosts = json.dumps({"api": API_HOSTS, "worker": WORKER_HOSTS})
    steno = home / "api" / "steno"
    store = Store(str(steno / "store"), steno / "scratch")
    made, other = keys.make(store, "tester"), keys.make(store, "other", keys.KeyLimits(max_duration=0.5))
    with Canary.listening() as canary, HostileServer.listening(canary.port) as server:
        env = LIMITS | {
            "PYTHONPATH": path,
            "TEST_HOSTS": hosts,
            "STENO_NET__ALLOW_HOSTS": json.dumps([f"127.0.0.1:{server.port}"]),
        }
        with LiveApi.start(home / "api", env) as live:
            live.headers["Authorization"] = f"Bearer {made.secret}"
            yield GuardedApi(live, canary, server, made.secret, made.key.id, other.secret, other.key.id)


@pytest.fixture(scope="package")
def guarded_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedApi]:
    with guarded(tmp_path_factory.mktemp("guarded")) as found:
        yield found
