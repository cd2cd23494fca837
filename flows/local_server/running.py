"""The server of a running `steno up`, which other commands of the same user and PREFECT_HOME find by a private file.

The file is beside the database that the server writes to, says where it answers and what it asks for, and is locked for as
long as `steno up` runs: a file whose lock is free is what a killed one left behind, whatever its process id means now.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from filelock import lock_descriptor

from flows.prefect_compat.client import settings_changed

AUTH = "PREFECT_API_AUTH_STRING"
"""What Prefect's clients send; servers ask for PREFECT_SERVER_API_AUTH_STRING."""
_NAME = "steno-up.json"


@dataclass(frozen=True)
class Running:
    """Where a `steno up` of this machine answers."""

    url: str
    auth: str | None
    """The authentication string that its clients send; None where it asks for none."""
    pid: int
    host: str
    """The machine's name: a home may be shared."""


def state_file() -> Path:
    """Where it is: beside Prefect's database."""
    return Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser() / _NAME


@contextlib.contextmanager
def announced(url: str, auth: str | None) -> Iterator[None]:
    """Have other commands find this server while the block lasts. The file is for its owner alone."""
    path = state_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    state = Running(url, auth, os.getpid(), socket.gethostname())
    descriptor, aside = tempfile.mkstemp(prefix=f".{_NAME}-", dir=path.parent)  # with mode 0600
    with os.fdopen(descriptor, "w") as file:
        lock_descriptor(file.fileno())
        json.dump(asdict(state), file)
        file.flush()
        Path(aside).replace(path)
        try:
            yield
        finally:
            # Another `steno up` may have put its own in the place of ours.
            with contextlib.suppress(OSError):
                if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    path.unlink()


def find() -> Running | None:
    """The `steno up` that runs here with this PREFECT_HOME, if any."""
    try:
        with state_file().open("r+") as file:
            if not _locked(file.fileno()):
                return None
            state = Running(**json.load(file))
    except (OSError, ValueError, TypeError):
        return None
    return state if state.host == socket.gethostname() else None


def _locked(descriptor: int) -> bool:
    """Whether a `steno up` holds the file. Other commands that look, as this one does, hold it for a moment only."""
    for _ in range(3):
        if lock_descriptor(descriptor, blocking=False):
            return False
        time.sleep(0.01)
    return True


def is_at(state: Running, url: str) -> bool:
    """Whether that URL leads to it, under whichever name of this machine."""
    asked, own = urlsplit(url), urlsplit(state.url)
    names = {own.hostname, "localhost", "127.0.0.1", "::1", state.host.lower()}
    return asked.scheme == own.scheme and asked.port == own.port and asked.hostname in names


def use(url: str, auth: str | None) -> None:
    """Have Prefect's clients in this process, and in those that it starts, talk to that API."""
    os.environ["PREFECT_API_URL"] = url
    if auth:
        os.environ[AUTH] = auth
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), urlsplit(url).hostname)))
    settings_changed()
