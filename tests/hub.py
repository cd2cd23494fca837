"""A model hub on loopback that speaks as much of huggingface.co's HTTP interface as its client asks for."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

from speech.registry import MODELS, on_hub


class Asked(NamedTuple):
    method: str
    path: str
    token: str | None


class Hub:
    """Repositories by name: each a commit and its files. The other attributes are faults to switch on."""

    def __init__(self) -> None:
        self.repositories: dict[str, tuple[str, dict[str, bytes]]] = {}
        self.gated: set[str] = set()
        self.members: set[str] = set()
        """Tokens with access to gated repositories."""
        self.status: int | None = None
        """Answer everything with this."""
        self.breaks_off = False
        """Promise a whole file and send half of it."""
        self.asked: list[Asked] = []
        self.url = ""

    def publish(self, repository: str, files: dict[str, bytes], commit: str = "a" * 40) -> None:
        self.repositories[repository] = (commit, files)


def git_hash(body: bytes) -> str:
    """What the hub calls a small file by, and its client names it in the cache: git's hash of a blob."""
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


@contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub()

    class Handler(_Handler):
        of = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def without_account(patch: pytest.MonkeyPatch, home: Path) -> None:
    """No token, and nothing in the hub's cache."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"):
        patch.delenv(name, raising=False)
    patch.setenv("HF_HOME", str(home))


@contextmanager
def publishing(patch: pytest.MonkeyPatch, home: Path, *names: str) -> Iterator[Hub]:
    """A hub with models of the registry, the gated ones gated, for this process and its children, on a machine without an account."""
    from huggingface_hub import constants

    without_account(patch, home)
    patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    with serve() as hub:
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setattr(constants, "ENDPOINT", hub.url)
        for name in names:
            model = on_hub(name)
            hub.publish(model.location, dict.fromkeys(model.engine.needs, b""), model.revision)
            if MODELS[name].gated:
                hub.gated.add(model.location)
        yield hub


class _Handler(BaseHTTPRequestHandler):
    of: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.of.asked.append(Asked(self.command, self.path, token))
        path = self.path.split("?")[0]
        if self.of.status is not None:
            return self._fail(self.of.status)
        if path.startswith("/api/models/"):
            repository, _, revision = path.removeprefix("/api/models/").partition("/revision/")
            return self._describe(repository, revision)
        repository, _, rest = path.lstrip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        return self._file(repository, revision, file, token)

    def _describe(self, repository: str, revision: str) -> None:
        if repository not in self.of.repositories:
            return self._fail(401 if "private" in repository else 404, "RepoNotFound")
        commit, files = self.of.repositories[repository]
        if revision not in ("", "main", commit):
            return self._fail(404, "RevisionNotFound")
        siblings = [{"rfilename": name} for name in files]
        description = {
            "id": repository,
            "modelId": repository,
            "sha": commit,
            "siblings": siblings,
            "tags": [],
            "private": False,
        }
        self._send(200, json.dumps(description).encode(), {"Content-Type": "application/json"})

    def _file(self, repository: str, revision: str, file: str, token: str | None) -> None:
        if repository not in self.of.repositories:
            return self._fail(404, "RepoNotFound")
        commit, files = self.of.repositories[repository]
        if repository in self.of.gated and token not in self.of.members:
            return self._fail(403 if token else 401, "GatedRepo")
        if revision != commit or file not in files:
            return self._fail(404, "EntryNotFound")
        body = files[file]
        self._send(200, body, {"ETag": f'"{git_hash(body)}"', "X-Repo-Commit": commit})

    def _fail(self, status: int, code: str | None = None) -> None:
        self._send(status, b"", {"X-Error-Code": code} if code else {})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if self.of.breaks_off and "/resolve/" in self.path else body)
        if self.of.breaks_off:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on standard error."""
