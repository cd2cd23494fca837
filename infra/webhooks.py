"""Webhook subscriptions: addresses and signing secrets, in the store.

A run's parameters and tags are shown to everyone who may see it in Prefect, and a webhook's address may be a secret as a
whole. So a run carries the id of a *subscription*, whose record holds the address. Signatures are those of Standard Webhooks
(standardwebhooks.com), made by its library with the `whsec_…` secret of the key that submitted the job.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from standardwebhooks import Webhook

from infra.net import parse
from infra.store import Store
from speech.stored import parsed
from stenoflow.types import Frozen

PREFIX = "whsec_"
SERVICE = "anybody"
"""The owner whose secret signs webhooks of jobs without a key."""
_SUBSCRIPTIONS, _SECRETS = "webhooks", "webhook-secrets"
_ID = re.compile(r"[0-9a-f]{32}")
_MOST_SECRETS = 5
"""Secrets that are signed with at the same time."""

_log = logging.getLogger(__name__)


class Subscription(Frozen):
    """A webhook address and its owner."""

    owner: str
    """The id of the API key, which also says with which secret it is signed."""
    url: str

    @property
    def host(self) -> str:
        """What may be said of the address."""
        return parse(self.url).host


class Secret(Frozen):
    secret: str
    """`whsec_` and the base64 of 32 random bytes."""
    made: datetime
    until: datetime | None = None
    """When it is signed with no longer; None for the current one."""


class _Secrets(Frozen):
    secrets: tuple[Secret, ...]
    """The current one first."""


# -- subscriptions ------------------------------------------------------------------------------------------------------


def subscribe(store: Store, owner: str, url: str) -> str:
    """The id of the subscription, which is kept; the same one for the same address of the same owner."""
    name = hashlib.sha256(f"{owner}\0{url}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
    content = Subscription(owner=owner, url=url).model_dump_json().encode()
    store.write_record(f"{_SUBSCRIPTIONS}/{name}", content, private=True)
    return name


def subscription(store: Store, name: str) -> Subscription | None:
    """None when there is none of that id any more, or it is damaged."""
    content = store.read_record(f"{_SUBSCRIPTIONS}/{name}") if _ID.fullmatch(name) else None
    try:
        return parsed(Subscription, content) if content else None
    except ValueError:
        return None


def old_subscriptions(store: Store, before: float) -> Iterable[str]:
    """The ids of those that no job was submitted with since then (seconds since 1970)."""
    return [
        name
        for file in store.files(f"records/{_SUBSCRIPTIONS}")
        if file.modified < before and _ID.fullmatch(name := file.path.rpartition("/")[2])
    ]


def forget(store: Store, name: str) -> None:
    """Have the subscription's address forgotten."""
    store.delete_record(f"{_SUBSCRIPTIONS}/{name}")


# -- secrets ------------------------------------------------------------------------------------------------------------


def current_secret(store: Store, owner: str) -> Secret:
    """The secret that the owner's webhooks are signed with; made now if there is none."""
    found = _read(store, owner)
    if not found:
        _write(store, owner, [_made()])
        found = _read(store, owner)  # another process may have made one at the same time
    return found[0]


def rotate(store: Store, owner: str, hours: float) -> Secret:
    """A new secret; for so many hours it is signed with the one before as well, so that receivers can be changed over."""
    until = datetime.now(UTC) + timedelta(hours=hours)
    before = [old if old.until else old.model_copy(update={"until": until}) for old in _read(store, owner)]
    new = _made()
    _write(store, owner, [new, *_valid(before)][:_MOST_SECRETS])
    return new


def _read(store: Store, owner: str) -> tuple[Secret, ...]:
    content = store.read_record(f"{_SECRETS}/{owner}")
    try:
        return parsed(_Secrets, content).secrets if content else ()
    except ValueError:
        _log.error(
            "the webhook secrets of an owner are damaged; new ones are created, and receivers have to be updated with them"
        )
        return ()


def _write(store: Store, owner: str, kept: list[Secret]) -> None:
    store.write_record(f"{_SECRETS}/{owner}", _Secrets(secrets=tuple(kept)).model_dump_json().encode(), private=True)


def _made() -> Secret:
    random = base64.b64encode(secrets.token_bytes(32)).decode()
    return Secret(secret=f"{PREFIX}{random}", made=datetime.now(UTC).replace(microsecond=0))


def _valid(found: Iterable[Secret]) -> list[Secret]:
    now = datetime.now(UTC)
    return [one for one in found if one.until is None or one.until > now]


# -- signing ------------------------------------------------------------------------------------------------------------


def signed(store: Store, owner: str, message_id: str, body: bytes) -> dict[str, str]:
    """The headers of one attempt: id, time, and a signature with every secret that is valid now."""
    current_secret(store, owner)
    now = datetime.now(UTC)
    signatures = (Webhook(one.secret).sign(message_id, now, body.decode()) for one in _valid(_read(store, owner)))
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
