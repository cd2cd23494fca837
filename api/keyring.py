"""The keys as one API process knows them, and whether callers need one.

Keys once seen are required for good. That is marked in the store, in the service's home and in the process: a bucket's prefix
that expired, a store that is not mounted or answers with an empty listing, and a key's record that is gone open no doors.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from pathlib import Path

from api import keys
from api.keys import ApiKey
from infra.store import Store
from stenoflow.errors import StenoError

FRESH = 2.0
"""Seconds after which the kept keys are looked at again: how long a revoked key may still work."""
STALE = 30.0
"""Seconds that keys read earlier are believed while the store does not answer."""
USED_EVERY = 600.0
"""Seconds between two notes that a key was used."""
HOME_MARK = "api-keys-required"
"""The file in the service's home that says so."""

_log = logging.getLogger(__name__)


class KeyRing:
    """Read again every few seconds, with one listing however many ask."""

    def __init__(self, store: Store, home: Path) -> None:
        self._store = store
        self._home = home
        self._keys: dict[str, ApiKey] = {}
        self._read_at = float("-inf")
        self._versions: dict[str, tuple[int, float]] = {}
        self._reading = asyncio.Lock()
        self._noted: dict[str, float] = {}
        self._notes: set[asyncio.Task[None]] = set()
        self._required = False
        self._marked = False
        self._missed = False

    async def required(self) -> bool:
        """Whether there is, or ever was, a key. Raises the store's errors while that is not known."""
        if not self._required:
            await self._refresh()
        return self._required

    async def find(self, token: str) -> ApiKey | None:
        """The key, unless it is unknown, has expired or was revoked. Raises the store's errors."""
        await self._refresh()
        match = keys.TOKEN.fullmatch(token)
        key = self._keys.get(match[1]) if match else None
        # Compared in any case, and in constant time: what is wrong about a key shows in nothing.
        right = hmac.compare_digest(keys.hashed(token), key.sha256 if key else keys.NOBODY)
        if key is None or not right or not key.active:
            return None
        self._note(key)
        return key

    async def by_id(self, key_id: str) -> ApiKey | None:
        """The key of that id, unless it is unknown, has expired or was revoked. Proves nothing about who asks."""
        await self._refresh()
        key = self._keys.get(key_id)
        if key is None or not key.active:
            return None
        self._note(key)
        return key

    # -- reading ------------------------------------------------------------------------------------------------------

    async def _refresh(self) -> None:
        if time.monotonic() - self._read_at < FRESH:
            return
        async with self._reading:
            if time.monotonic() - self._read_at < FRESH:
                return
            began = time.monotonic()
            try:
                await asyncio.to_thread(self._read)
            except StenoError as error:
                if began - self._read_at > STALE:
                    raise
                _log.warning("could not reload the API keys (%s); using those loaded before", error.code)
                return
            self._read_at = began

    def _read(self) -> None:
        self._required = self._required or (self._home / HOME_MARK).exists() or keys.were_made(self._store)
        self._read_changed()
        if self._keys:
            self._required = True
            self._mark()
        if self._missed != (self._required and not self._keys):
            self._missed = not self._missed
            if self._missed:
                _log.error(
                    "the store no longer contains the API keys: every request is rejected until STENO_STORE has them again"
                )

    def _read_changed(self) -> None:
        versions = {
            file.path.rpartition("/")[2]: (file.bytes, file.modified) for file in self._store.files(f"records/{keys.FOLDER}")
        }
        names = {name for name in versions if keys.ID.fullmatch(name)}
        # A clock with whole seconds may show one version for two contents that were written within one of them.
        recent = time.time() - 5
        changed = {name for name in names if self._versions.get(name) != versions[name] or versions[name][1] > recent}
        read = {name: keys.read(self._store, name) for name in changed}
        found = {name: self._keys[name] for name in names - changed if name in self._keys}
        self._keys = found | {name: key for name, key in read.items() if key is not None}
        self._versions = {name: versions[name] for name in self._keys}

    def _mark(self) -> None:
        """Once a process: where the next one looks when the keys are gone."""
        if self._marked:
            return
        self._marked = True
        try:
            mark_home(self._home)
            keys.require(self._store)
        except (StenoError, OSError) as error:
            _log.warning("could not record for later processes that keys are required (%s)", type(error).__name__)

    # -- use ----------------------------------------------------------------------------------------------------------

    def _note(self, key: ApiKey) -> None:
        now = time.monotonic()
        if now - self._noted.get(key.id, float("-inf")) < USED_EVERY:
            return
        self._noted[key.id] = now
        task = asyncio.create_task(asyncio.to_thread(self._write_note, key.id))
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    def _write_note(self, key_id: str) -> None:
        try:
            keys.note_use(self._store, key_id)
        except StenoError as error:
            _log.warning("could not record the use of a key (%s)", error.code)


def mark_home(home: Path) -> None:
    """Have services of this home require keys from now on. Raises OSError."""
    home.mkdir(parents=True, exist_ok=True)
    (home / HOME_MARK).touch()
