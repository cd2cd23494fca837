"""`steno keys`: make, list and revoke the keys of the REST API."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import click

EPILOG = """\b
steno keys make alice > alice.key        the key, which is shown this once
steno keys make ci --rate 60 --pending 5
steno keys list
steno keys revoke alice                  refused by every API process within seconds
steno keys webhook-secret alice          what her webhooks are signed with; --rotate makes another
\b
Exit codes: 0 done; 2 a wrong option; 3, 5, 6 the store's errors.
"""
_JSON = click.option("--json", "as_json", is_flag=True, help="JSON instead of sentences.")
_DEBUG = click.option("--debug", is_flag=True, help="Show the traceback of an error.")


@click.group("keys", epilog=EPILOG)
def command() -> None:
    """Keys of the REST API (`steno api`): as soon as one was made, callers need one, and see the jobs made with it only.

    Their hashes are kept in the artifact store (STENO_STORE), where every API process sees them.
    """


@command.command("make")
@click.argument("name")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Requests per minute; the service's when left out.")
@click.option("--submit-rate", type=click.FloatRange(min=0, min_open=True), help="New jobs per minute.")
@click.option("--pending", type=click.IntRange(min=1), help="Jobs that may be queued or running at once.")
@click.option("--max-upload", type=click.IntRange(min=1), metavar="BYTES", help="Largest uploaded recording.")
@click.option("--max-duration", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Longest recording.")
@_JSON
@_DEBUG
def make_key(
    name: str,
    rate: float | None,
    submit_rate: float | None,
    pending: int | None,
    max_upload: int | None,
    max_duration: float | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Make a key for NAME and print it; it cannot be shown again."""
    from api import keys

    limits = keys.KeyLimits(
        rate=rate, rate_submit=submit_rate, pending_jobs=pending, max_upload_bytes=max_upload, max_duration=max_duration
    )
    made = keys.make(_store(), name, limits)
    if as_json:
        click.echo(json.dumps({"type": "key", **_shown(made.key), "key": made.secret}))
        return
    click.echo(made.secret)
    click.echo(f"This is the key of {made.key.name} (id {made.key.id}). Keep it now: only its hash is stored.", err=True)


@command.command("list")
@click.option("--all", "every", is_flag=True, help="Revoked ones as well.")
@_JSON
@_DEBUG
def list_keys(every: bool, as_json: bool, debug: bool) -> None:
    """List the keys: id, name, when made and last used, and limits of their own."""
    from api import keys

    store = _store()
    found = [key for key in keys.kept(store) if every or key.active]
    rows = [(key, keys.last_used(store, key)) for key in found]
    if as_json:
        for key, used in rows:
            click.echo(json.dumps({"type": "key", **_shown(key), "last_used": used.isoformat() if used else None}))
        return
    if not rows:
        click.echo("No keys; `steno keys make NAME` makes one. Without any, only this machine can reach the API.")
        return
    width = max(len("name"), *(len(key.name) for key, _ in rows))
    click.echo(f"{'id':<14}{'name':<{width + 2}}{'made':<18}{'last used':<18}limits")
    for key, used in rows:
        about = ", ".join(keys.described(key.limits)) or "the service's"
        state = f"revoked {_minute(key.revoked)}" if key.revoked else about
        click.echo(f"{key.id:<14}{key.name:<{width + 2}}{_minute(key.made):<18}{_minute(used):<18}{state}")


@command.command("revoke")
@click.argument("key")
@_JSON
@_DEBUG
def revoke_key(key: str, as_json: bool, debug: bool) -> None:
    """End the KEY of that id or name. Jobs made with it go on; nobody can see them any more."""
    from api import keys

    revoked = keys.revoke(_store(), key)
    if as_json:
        click.echo(json.dumps({"type": "key", **_shown(revoked)}))
    else:
        click.echo(f"Revoked {revoked.name} (id {revoked.id}); running services refuse it within {keys.FRESH:.0f} seconds.")


@command.command("webhook-secret")
@click.argument("key", required=False)
@click.option("--rotate", is_flag=True, help="Make a new one; for a day, webhooks are signed with the one before as well.")
@_JSON
@_DEBUG
def webhook_secret(key: str | None, rotate: bool, as_json: bool, debug: bool) -> None:
    """Print the secret that webhooks of the KEY's jobs are signed with, as Standard Webhooks has it.

    Without KEY: the one for jobs that were submitted without a key. It is made when it is first needed, and stays the same.
    """
    from api import keys
    from infra import webhooks
    from infra.settings import get_settings

    store = _store()
    found = keys.named(store, key) if key is not None else None
    owner = found.id if found else webhooks.SERVICE
    hours = get_settings().webhooks.rotation_hours
    secret = webhooks.rotate(store, owner, hours) if rotate else webhooks.current_secret(store, owner)
    if as_json:
        click.echo(
            json.dumps({"type": "webhook-secret", "id": owner, **secret.model_dump(mode="json", include={"secret", "made"})})
        )
        return
    click.echo(secret.secret)
    whose = found.name if found else "callers without a key"
    until = f" The one before is signed with as well for {hours:g} hours." if rotate else ""
    click.echo(f"This signs the webhooks of {whose}; receivers verify them with it.{until}", err=True)


def _store() -> Any:
    from infra.compute import get_store
    from infra.settings import get_settings

    return get_store(get_settings())


def _shown(key: Any) -> dict[str, Any]:
    shown: dict[str, Any] = key.model_dump(mode="json", exclude={"sha256"})
    return shown


def _minute(moment: datetime | None) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M") if moment else "never"
