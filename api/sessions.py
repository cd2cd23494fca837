"""The chunk sessions: a file each, in a folder that only this account reads, for as long as they are gone on with.

Files, so that they survive the process; few and short-lived, since they hold the last seconds of what was said.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections import Counter
from pathlib import Path
from weakref import WeakValueDictionary

from infra.settings import StenoSettings

_SUFFIX = ".session"


class Sessions:
    """Sessions of all callers; at most `limit`, each for `seconds` after its last chunk."""

    def __init__(self, folder: Path, limit: int, seconds: float) -> None:
        self._folder = folder
        self._limit = limit
        self._seconds = seconds
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @classmethod
    def of(cls, settings: StenoSettings) -> Sessions:
        return cls(settings.home_path / "sessions", settings.api.sessions, settings.api.session_seconds)

    def lock(self, key_id: str, session_id: str) -> asyncio.Lock:
        """Held while a chunk of the session is at work: chunks that come at once take turns, in the order in which they came."""
        return self._locks.setdefault(_name(key_id, session_id), asyncio.Lock())

    def load(self, key_id: str, session_id: str) -> bytes:
        """What is kept of the session; nothing where there is none, or none any more."""
        path = self._path(key_id, session_id)
        try:
            if path.stat().st_mtime < time.time() - self._seconds:
                path.unlink()
                return b""
            return path.read_bytes()
        except FileNotFoundError:
            return b""

    def save(self, key_id: str, session_id: str, state: bytes) -> None:
        """Keep the session, and drop those that are too old or too many."""
        path = self._path(key_id, session_id)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        aside = path.with_suffix(f".{os.getpid()}")
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(state)
        aside.replace(path)
        self.trim(keep=path)

    def trim(self, keep: Path | None = None) -> None:
        """Drop what has expired; of the others too many, each time the least recently used one of the caller who has most.

        What a killed process was writing expires like a session.
        """
        found: dict[Path, float] = {}
        for path in [*self._folder.iterdir()] if self._folder.is_dir() else []:
            with contextlib.suppress(FileNotFoundError):
                found[path] = path.stat().st_mtime
        for path in [path for path, at in found.items() if at < time.time() - self._seconds]:
            path.unlink(missing_ok=True)
            del found[path]
        ages = {path: at for path, at in found.items() if path.suffix == _SUFFIX}
        while len(ages) > self._limit:
            owners = Counter(_owner(path) for path in ages)
            most = max(owners.values())
            oldest = min((path for path in ages if owners[_owner(path)] == most and path != keep), key=lambda one: ages[one])
            oldest.unlink(missing_ok=True)
            del ages[oldest]

    def _path(self, key_id: str, session_id: str) -> Path:
        return self._folder / f"{_name(key_id, session_id)}{_SUFFIX}"


def _name(key_id: str, session_id: str) -> str:
    """A file's name that gives away neither, and that no two pairs share."""
    owner = hashlib.sha256(key_id.encode()).hexdigest()[:16]
    return f"{owner}-{hashlib.sha256(session_id.encode()).hexdigest()[:40]}"


def _owner(path: Path) -> str:
    return path.name.partition("-")[0]
