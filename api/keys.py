"""API keys: made and revoked by operators, kept as hashes in the artifact store, where every API process sees them.

A key is `sk-steno-<id>-<secret>`: the id is public (it marks the jobs of its owner), the secret has 256 random bits and is
shown once. What is kept under `records/api-keys/<id>` is a SHA-256, which suffices for what cannot be guessed: slow hashes
are for passwords. A revoked key stays listed, so that a service whose last key was revoked does not open to everybody.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from pydantic import Field, ValidationError

from infra.store import Store
from speech.errors import InvalidOption, StenoError
from speech.schema import Frozen

PREFIX = "sk-steno-"
FRESH = 2.0
"""Seconds after which the kept keys are looked at again: how long a revoked key may still work."""
STALE = 30.0
"""Seconds that keys read earlier are believed while the store does not answer."""
USED_EVERY = 600.0
"""Seconds between two notes that a key was used."""
_FOLDER, _USED = "api-keys", "api-keys-used"
_TOKEN = re.compile(r"sk-steno-([a-z2-7]{12})-([A-Za-z0-9_-]{43})")
_ID = re.compile(r"[a-z2-7]{12}")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_NOBODY = "0" * 64

_log = logging.getLogger(__name__)


class KeyLimits(Frozen):
    """What one key may ask for; the service's settings (`STENO_API__…`) where it says nothing."""

    rate: float | None = Field(None, gt=0, description="Requests per minute.")
    rate_submit: float | None = Field(None, gt=0, description="New jobs per minute.")
    pending_jobs: int | None = Field(None, ge=1, description="Jobs queued or running at once.")
    max_upload_bytes: int | None = Field(None, gt=0, description="Largest uploaded recording.")
    max_duration: float | None = Field(None, gt=0, description="Longest recording, in seconds.")


class ApiKey(Frozen):
    """A key as it is kept."""

    id: str
    name: str = Field(min_length=1, max_length=100)
    sha256: str
    """Hex, of the whole key."""
    made: datetime
    revoked: datetime | None = None
    limits: KeyLimits = KeyLimits()

    @property
    def active(self) -> bool:
        return self.revoked is None


class MadeKey(NamedTuple):
    key: ApiKey
    secret: str
    """The key itself, which nobody can show again."""


def make(store: Store, name: str, limits: KeyLimits | None = None) -> MadeKey:
    """A new key. Raises InvalidOption for a name that is empty, too long or taken, and the store's errors."""
    name = " ".join(name.split())
    if not 0 < len(name) <= 100 or not name.isprintable():
        raise InvalidOption("A key's name has 1 to 100 printable characters.")
    if any(key.name == name and key.active for key in kept(store)):
        raise InvalidOption(f"There is a key named {name!r} already; revoke it first, or take another name.")
    key_id = "".join(secrets.choice(_ALPHABET) for _ in range(12))
    secret = f"{PREFIX}{key_id}-{secrets.token_urlsafe(32)}"
    key = ApiKey(id=key_id, name=name, sha256=_hash(secret), made=_now(), limits=limits or KeyLimits())
    _keep(store, key)
    return MadeKey(key, secret)


def named(store: Store, wanted: str) -> ApiKey:
    """The key of that id or name, or the key itself; one that is not revoked if there is one. Raises InvalidOption."""
    if match := _TOKEN.fullmatch(wanted):
        wanted = match[1]
    found = [key for key in kept(store) if wanted in (key.id, key.name)]
    found = [key for key in found if key.active] or found[:1]
    if not found:
        raise InvalidOption("There is no key of that id or name; `steno keys list` shows them.")
    return found[0]


def revoke(store: Store, wanted: str) -> ApiKey:
    """End the key of that id or name; every API process refuses it within seconds. Raises InvalidOption."""
    found = named(store, wanted)
    if not found.active:
        return found
    revoked = found.model_copy(update={"revoked": _now()})
    _keep(store, revoked)
    return revoked


def kept(store: Store) -> list[ApiKey]:
    """All keys that were ever made, the oldest first."""
    names = (file.path.rpartition("/")[2] for file in store.files(f"records/{_FOLDER}"))
    found = (_read(store, name) for name in names if _ID.fullmatch(name))
    return sorted((key for key in found if key is not None), key=lambda key: key.made)


def last_used(store: Store, key: ApiKey) -> datetime | None:
    """When the key was used last, give or take some minutes."""
    content = store.read_record(f"{_USED}/{key.id}")
    try:
        return datetime.fromtimestamp(int(content), UTC) if content else None
    except (ValueError, OverflowError, OSError):
        return None


class KeyRing:
    """The keys as one API process knows them: read again every few seconds, with one listing however many ask."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys: dict[str, ApiKey] = {}
        self._read_at = float("-inf")
        self._versions: dict[str, tuple[int, float]] = {}
        self._reading = asyncio.Lock()
        self._noted: dict[str, float] = {}
        self._notes: set[asyncio.Task[None]] = set()

    async def made(self) -> bool:
        """Whether there is, or ever was, a key. Raises the store's errors."""
        await self._refresh()
        return bool(self._keys)

    async def find(self, token: str) -> ApiKey | None:
        """The key, unless it is unknown or revoked. Raises the store's errors."""
        await self._refresh()
        match = _TOKEN.fullmatch(token)
        key = self._keys.get(match[1]) if match else None
        # Compared in any case, and in constant time: what is wrong about a key shows in nothing.
        right = hmac.compare_digest(_hash(token), key.sha256 if key else _NOBODY)
        if key is None or not right or not key.active:
            return None
        self._note(key)
        return key

    async def _refresh(self) -> None:
        if time.monotonic() - self._read_at < FRESH:
            return
        async with self._reading:
            if time.monotonic() - self._read_at < FRESH:
                return
            began = time.monotonic()
            try:
                await asyncio.to_thread(self._read_changed)
            except StenoError as error:
                if began - self._read_at > STALE:
                    raise
                _log.warning("the API keys could not be read again (%s); those read before are believed", error.code)
                return
            self._read_at = began

    def _read_changed(self) -> None:
        versions = {
            file.path.rpartition("/")[2]: (file.bytes, file.modified) for file in self._store.files(f"records/{_FOLDER}")
        }
        names = {name for name in versions if _ID.fullmatch(name)}
        # A clock with whole seconds may show one version for two contents that were written within one of them.
        recent = time.time() - 5
        changed = {name for name in names if self._versions.get(name) != versions[name] or versions[name][1] > recent}
        read = {name: _read(self._store, name) for name in changed}
        keys = {name: self._keys[name] for name in names - changed if name in self._keys}
        self._keys = keys | {name: key for name, key in read.items() if key is not None}
        self._versions = {name: versions[name] for name in self._keys}

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
            self._store.write_record(f"{_USED}/{key_id}", str(int(time.time())).encode())
        except StenoError as error:
            _log.warning("the use of a key could not be noted (%s)", error.code)


def described(limits: KeyLimits) -> Iterable[str]:
    """The limits that a key has of its own, for people."""
    units = {
        "rate": "requests/min",
        "rate_submit": "jobs/min",
        "pending_jobs": "pending jobs",
        "max_upload_bytes": "bytes/upload",
        "max_duration": "s of audio",
    }
    return (f"{getattr(limits, name):g} {unit}" for name, unit in units.items() if getattr(limits, name) is not None)


def _read(store: Store, name: str) -> ApiKey | None:
    content = store.read_record(f"{_FOLDER}/{name}")
    if content is None:
        return None
    try:
        key = ApiKey.model_validate_json(content)
    except ValidationError:
        _log.error("the record of API key %s is damaged; the key is refused", name)
        # It still counts as one that was made: damage opens no doors.
        return ApiKey(id=name, name=name, sha256=_NOBODY, made=datetime.fromtimestamp(0, UTC), revoked=_now())
    return key if key.id == name else None


def _keep(store: Store, key: ApiKey) -> None:
    store.write_record(f"{_FOLDER}/{key.id}", key.model_dump_json().encode())


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
