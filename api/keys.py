"""API keys: made, rotated and revoked by operators, kept as hashes in the artifact store, where every API process sees them.

A key is `sk-steno-<id>-<secret>`: the id is public, the secret has 256 random bits and is shown once. What is kept under
`records/api-keys/<id>` is a SHA-256, which suffices for what cannot be guessed: slow hashes are for passwords.

Jobs belong to an *owner*, a name above keys: that of the key they were made with. A key has an owner of its own (its id),
unless it was given another, or takes the place of an earlier key of the same name.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from infra.store import Store
from infra.webhooks import SERVICE
from speech.stored import parsed
from stenoflow.errors import InvalidOption
from stenoflow.types import Frozen

PREFIX = "sk-steno-"
MARK = "access/keys-required"
"""In the store once a key was made, and not among the records: whatever becomes of those, callers need a key from then on."""
NOBODY = "0" * 64
"""The hash of no key."""
FOLDER = "api-keys"
_USED = "api-keys-used"
TOKEN = re.compile(r"sk-steno-([a-z2-7]{12})-([A-Za-z0-9_-]{43})")
ID = re.compile(r"[a-z2-7]{12}")
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"

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
    expires: datetime | None = None
    limits: KeyLimits = KeyLimits()
    owner: str | None = None
    """None: the key's own id."""
    metrics: bool = False
    """Whether it may read `/metrics`, which count the work of all owners."""

    @property
    def owned_by(self) -> str:
        """Whose jobs are made with it."""
        return self.owner or self.id

    @property
    def expired(self) -> bool:
        return self.expires is not None and self.expires <= datetime.now(UTC)

    @property
    def active(self) -> bool:
        return self.revoked is None and not self.expired


class MadeKey(NamedTuple):
    key: ApiKey
    secret: str
    """The key itself, which cannot be displayed again."""


def make(
    store: Store,
    name: str,
    limits: KeyLimits | None = None,
    *,
    owner: str | None = None,
    expires: datetime | None = None,
    metrics: bool = False,
) -> MadeKey:
    """A new key; its jobs are those of `owner`, or of the last key of that name, or its own.

    Raises InvalidOption for a name or owner that is empty, too long or taken, a time that has passed, and the store's errors.
    """
    name = " ".join(name.split())
    if not 0 < len(name) <= 100 or not name.isprintable():
        raise InvalidOption("A key's name must have 1 to 100 printable characters.")
    known = all_keys(store)
    if any(key.name == name and key.active for key in known):
        raise InvalidOption(f"A key named {name!r} already exists; rotate or revoke it, or choose another name.")
    earlier = next((key.owned_by for key in reversed(known) if key.name == name), None)
    return _made(store, name, limits or KeyLimits(), _owner(known, owner) if owner is not None else earlier, expires, metrics)


def rotate(store: Store, wanted: str, *, overlap: timedelta = timedelta(0), expires: datetime | None = None) -> MadeKey:
    """A new key in place of the one of that id or name: same name, owner, limits and rights. The old one works for `overlap` longer.

    A key that was to expire is followed by one that lasts as long, unless `expires` says otherwise. Raises InvalidOption.
    """
    old = named(store, wanted)
    if not old.active:
        raise InvalidOption(f"The key {old.name!r} is expired or revoked; create another with `steno keys make`.")
    now = _now()
    if expires is None and old.expires is not None:
        expires = now + (old.expires - old.made)
    made = _made(store, old.name, old.limits, old.owned_by, expires, old.metrics)
    if overlap > timedelta(0):
        until = min(now + overlap, old.expires or datetime.max.replace(tzinfo=UTC))
        _keep(store, old.model_copy(update={"expires": until}))
    else:
        _keep(store, old.model_copy(update={"revoked": now}))
    return made


def named(store: Store, wanted: str) -> ApiKey:
    """The key of that id or name, or the key itself; the latest that works, if one does. Raises InvalidOption."""
    if match := TOKEN.fullmatch(wanted):
        wanted = match[1]
    found = [key for key in all_keys(store) if wanted in (key.id, key.name)]
    found = [key for key in found if key.active] or found
    if not found:
        raise InvalidOption("There is no key with that id or name; `steno keys list` lists them.")
    return found[-1]


def owner_of(store: Store, wanted: str) -> str:
    """The owner of that name, or of the key of that id or name. Raises InvalidOption."""
    return wanted if any(key.owned_by == wanted for key in all_keys(store)) else named(store, wanted).owned_by


def revoke(store: Store, wanted: str) -> ApiKey:
    """End the key of that id, or all of that name; every API process refuses them within seconds. Raises InvalidOption."""
    found = named(store, wanted)
    same = [key for key in all_keys(store) if key.active and key.name == wanted]
    for key in same if found.name == wanted else [found] if found.active else []:
        _keep(store, key.model_copy(update={"revoked": _now()}))
    return named(store, found.id)


def all_keys(store: Store) -> list[ApiKey]:
    """All keys that were ever made, the oldest first."""
    names = (file.path.rpartition("/")[2] for file in store.files(f"records/{FOLDER}"))
    found = (read(store, name) for name in names if ID.fullmatch(name))
    return sorted((key for key in found if key is not None), key=_age)


def were_made(store: Store) -> bool:
    """Whether the store remembers keys, whatever became of their records."""
    return store.exists(MARK)


def require(store: Store) -> None:
    """Have every API process that uses the store require keys from now on, whatever becomes of their records."""
    if were_made(store):
        return
    with tempfile.TemporaryDirectory() as folder:
        mark = Path(folder, "mark")
        mark.write_text("API keys exist: callers of the REST API need one.\n")
        store.keep(mark, MARK)


def last_used(store: Store, key: ApiKey) -> datetime | None:
    """When the key was used last, give or take some minutes."""
    content = store.read_record(f"{_USED}/{key.id}")
    try:
        return datetime.fromtimestamp(int(content), UTC) if content else None
    except (ValueError, OverflowError, OSError):
        return None


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


def read(store: Store, name: str) -> ApiKey | None:
    """The key of that id; a damaged record is a key that is refused."""
    content = store.read_record(f"{FOLDER}/{name}")
    if content is None:
        return None
    try:
        key = parsed(ApiKey, content)
    except ValueError:
        _log.error("the record of API key %s is damaged; requests with it are rejected", name)
        # It still counts as one that was made: damage opens no doors.
        return ApiKey(id=name, name=name, sha256=NOBODY, made=datetime.fromtimestamp(0, UTC), revoked=_now())
    return key if key.id == name else None


def _keep(store: Store, key: ApiKey) -> None:
    store.write_record(f"{FOLDER}/{key.id}", key.model_dump_json().encode())


def _made(
    store: Store, name: str, limits: KeyLimits, owner: str | None, expires: datetime | None, metrics: bool = False
) -> MadeKey:
    if expires is not None and expires <= datetime.now(UTC):
        raise InvalidOption("The expiry must be in the future: give a duration (`90d`, `12h`) or a later date.")
    require(store)
    key_id = "".join(secrets.choice(_ALPHABET) for _ in range(12))
    secret = f"{PREFIX}{key_id}-{secrets.token_urlsafe(32)}"
    key = ApiKey(
        id=key_id,
        name=name,
        sha256=hashed(secret),
        made=_now(),
        limits=limits,
        owner=owner or key_id,
        expires=expires,
        metrics=metrics,
    )
    _keep(store, key)
    return MadeKey(key, secret)


def _age(key: ApiKey) -> tuple[datetime, bool, datetime]:
    """Of two made within one second, one replaced the other."""
    return key.made, key.revoked is None, key.expires or datetime.max.replace(tzinfo=UTC)


def _owner(known: Iterable[ApiKey], wanted: str) -> str:
    """The owner that is meant: one there is, that of a key of that name, or a new one."""
    owners = {key.owned_by for key in known}
    of_keys = {key.name: key.owned_by for key in known}
    if wanted in owners:
        return wanted
    if wanted in of_keys:
        return of_keys[wanted]
    if not _OWNER.fullmatch(wanted) or wanted == SERVICE or ID.fullmatch(wanted):
        raise InvalidOption(
            "An owner's name must have 1 to 64 letters, digits and `. _ @ -`, begin with a letter or digit, and not look like a key's id."
        )
    return wanted


def note_use(store: Store, key_id: str) -> None:
    """Note that the key was used now."""
    store.write_record(f"{_USED}/{key_id}", str(int(datetime.now(UTC).timestamp())).encode())


def hashed(secret: str) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
