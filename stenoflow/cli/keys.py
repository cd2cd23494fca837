"""`steno keys`: make, list, rotate and revoke the keys of the REST API."""

from __future__ import annotations

import contextlib
import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from api.keys import MadeKey

EPILOG = """\b
steno keys make alice > alice.key        printed only once
steno keys make ci --rate 60 --pending 5
steno keys make acme-web --owner acme --expires 90d      one of several keys of an owner; each sees all of the owner's jobs
steno keys make prometheus --metrics     may read /metrics
steno keys list
steno keys rotate alice --overlap 1h     a new key for the same jobs; the old one is valid for another hour
steno keys revoke alice                  rejected by every API process within seconds
steno keys webhook-secret alice          secret that signs her webhooks; --rotate replaces it
\b
Exit codes: 0 success; 2 invalid option; 3, 5, 6 errors of the store.
"""
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_DEBUG = click.option("--debug", is_flag=True, help="Show tracebacks.")


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def _duration(ctx: click.Context, param: click.Parameter, value: str) -> timedelta:
    """`90d`, `12h`, `30m`, `4w`."""
    found = re.fullmatch(r"([0-9]{1,6})([smhdw])", value.strip())
    if found is None:
        raise click.BadParameter(f"{value!r} is not a duration; write it as 90d, 12h or 30m", ctx, param)
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def _expiry(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """A duration from now, or a date, as the time that a key ends."""
    if value is None:
        return None
    try:
        if not re.match(r"[0-9]{4}-", value):
            return datetime.now(UTC).replace(microsecond=0) + _duration(ctx, param, value)
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.astimezone()).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(f"{value!r} is neither a duration (90d) nor a date (2027-01-31)", ctx, param) from None


_EXPIRES = click.option(
    "--expires", callback=_expiry, metavar="WHEN", help="Expiry: `90d` from now, or a date. Never by default."
)
_WITHOUT = "No keys; `steno keys make NAME` creates one. Without keys, only this machine can use the API."
_GONE = (
    "All keys are expired or revoked, so the API rejects every request. Create one with `steno keys make NAME`, or set "
    "STENO_API__REQUIRE_KEYS=false to admit every program on this machine."
)


@click.group("keys", epilog=EPILOG)
def command() -> None:
    """Manage API keys. Once a key exists, every caller needs one, and sees only its owner's jobs.

    Hashes of the keys are stored in the artifact store (STENO_STORE), so all API processes share them.
    """


@command.command("make")
@click.argument("name")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Requests per minute. The service's limit by default."
)
@click.option("--submit-rate", type=click.FloatRange(min=0, min_open=True), help="New jobs per minute.")
@click.option("--pending", type=click.IntRange(min=1), help="Queued and running jobs.")
@click.option("--max-upload", type=click.IntRange(min=1), metavar="BYTES", help="Largest upload.")
@click.option("--max-duration", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Longest recording.")
@click.option(
    "--owner",
    help="Owner of the key's jobs; all keys of an owner see all of its jobs. By default that of the last key with this name, else the name itself.",
)
@click.option("--metrics", is_flag=True, help="Allow the key to read /metrics, which covers all owners; for Prometheus.")
@_EXPIRES
@_JSON
@_DEBUG
def make_key(
    name: str,
    rate: float | None,
    submit_rate: float | None,
    pending: int | None,
    max_upload: int | None,
    max_duration: float | None,
    owner: str | None,
    metrics: bool,
    expires: datetime | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Create a key called NAME and print it. It cannot be displayed again."""
    from api import keys

    limits = keys.KeyLimits(
        rate=rate, rate_submit=submit_rate, pending_jobs=pending, max_upload_bytes=max_upload, max_duration=max_duration
    )
    _print_key(keys.make(_store(), name, limits, owner=owner, expires=expires, metrics=metrics), as_json)


@command.command("rotate")
@click.argument("key")
@click.option(
    "--overlap", callback=_duration, default="0s", metavar="DURATION", help="How long the old key remains valid, such as `1h`."
)
@_EXPIRES
@_JSON
@_DEBUG
def rotate_key(key: str, overlap: timedelta, expires: datetime | None, as_json: bool, debug: bool) -> None:
    """Make a new key in place of the KEY of that id or name: same name, owner and limits, and so the same jobs."""
    from api import keys

    _print_key(keys.rotate(_store(), key, overlap=overlap, expires=expires), as_json)


@command.command("list")
@click.option("--all", "every", is_flag=True, help="Include revoked keys.")
@_JSON
@_DEBUG
def list_keys(every: bool, as_json: bool, debug: bool) -> None:
    """List the keys: id, name, owner, when made and last used, and limits of their own."""
    from api import keys

    store = _store()
    found = [key for key in keys.all_keys(store) if every or key.active]
    rows = [(key, keys.last_used(store, key)) for key in found]
    if as_json:
        for key, used in rows:
            click.echo(json.dumps({"type": "key", **_shown(key), "last_used": used.isoformat() if used else None}))
        return
    if not rows:
        click.echo(_WITHOUT if not keys.were_made(store) else _GONE)
        return
    names = {key.id: key.name for key, _ in rows}
    owners = [names.get(key.owned_by, key.owned_by) for key, _ in rows]
    width = max(len("name"), *(len(key.name) for key, _ in rows))
    wide = max(len("owner"), *map(len, owners))
    click.echo(f"{'id':<14}{'name':<{width + 2}}{'owner':<{wide + 2}}{'made':<18}{'last used':<18}limits")
    for (key, used), owner in zip(rows, owners, strict=True):
        about = ", ".join(keys.described(key.limits)) or "the service's"
        ends = f"expire{'d' if key.expired else 's'} {_minute(key.expires)}; {about}" if key.expires else about
        state = f"revoked {_minute(key.revoked)}" if key.revoked else ends
        start = f"{key.id:<14}{key.name:<{width + 2}}{owner:<{wide + 2}}"
        click.echo(f"{start}{_minute(key.made):<18}{_minute(used):<18}{state}")


@command.command("revoke")
@click.argument("key")
@_JSON
@_DEBUG
def revoke_key(key: str, as_json: bool, debug: bool) -> None:
    """End the KEY of that id or name. Jobs made with it go on; other keys of their owner, and later ones of that name, see them."""
    from api import keyring, keys

    revoked = keys.revoke(_store(), key)
    if as_json:
        click.echo(json.dumps({"type": "key", **_shown(revoked)}))
    else:
        click.echo(f"Revoked {revoked.name} (id {revoked.id}); running services reject it within {keyring.FRESH:.0f} seconds.")


@command.command("webhook-secret")
@click.argument("key", required=False)
@click.option("--rotate", is_flag=True, help="Replace the secret. For a day, webhooks are also signed with the previous one.")
@_JSON
@_DEBUG
def webhook_secret(key: str | None, rotate: bool, as_json: bool, debug: bool) -> None:
    """Print the secret that webhooks of jobs are signed with, as Standard Webhooks has it: those of the KEY's owner.

    Without KEY: the one for jobs that were submitted without a key. It is made when it is first needed, and stays the same.
    """
    from api import keys
    from infra import webhooks
    from infra.settings import get_settings

    store = _store()
    owner = keys.owner_of(store, key) if key is not None else webhooks.SERVICE
    hours = get_settings().webhooks.rotation_hours
    secret = webhooks.rotate(store, owner, hours) if rotate else webhooks.current_secret(store, owner)
    if as_json:
        click.echo(
            json.dumps({"type": "webhook-secret", "id": owner, **secret.model_dump(mode="json", include={"secret", "made"})})
        )
        return
    click.echo(secret.secret)
    whose = key if key is not None and not keys.TOKEN.fullmatch(key) else owner if key else "callers without a key"
    until = f" Webhooks are also signed with the previous one for {hours:g} hours." if rotate else ""
    click.echo(f"This secret signs the webhooks of {whose}; receivers verify them with it.{until}", err=True)


def _store() -> Any:
    from infra.compute import get_store
    from infra.settings import get_settings

    return get_store(get_settings())


def _print_key(made: MadeKey, as_json: bool) -> None:
    """Print a key that was just made; services of this home want keys from now on."""
    from api.keyring import mark_home
    from infra.settings import get_settings

    with contextlib.suppress(OSError):
        mark_home(get_settings().home_path)
    if as_json:
        click.echo(json.dumps({"type": "key", **_shown(made.key), "key": made.secret}))
        return
    click.echo(made.secret)
    key = made.key
    others = f" It sees the jobs of the owner {key.owned_by}." if key.owned_by != key.id else ""
    until = f" It expires on {_minute(key.expires)}." if key.expires else ""
    click.echo(f"This is the key of {key.name} (id {key.id}). Save it now: only its hash is stored.{others}{until}", err=True)


def _shown(key: Any) -> dict[str, Any]:
    shown: dict[str, Any] = key.model_dump(mode="json", exclude={"sha256"})
    return shown | {"owner": key.owned_by}


def _minute(moment: datetime | None) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M") if moment else "never"
