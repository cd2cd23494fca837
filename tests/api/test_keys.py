"""Keys: made once, kept as hashes, seen and refused by every API process within seconds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import Depends, FastAPI

from api import auth, keys, problems
from api.auth import Caller
from flows.cli.main import run
from infra.compute import get_store
from infra.errors import ApiUnreachable
from infra.settings import StenoSettings, get_settings
from infra.store import Store
from speech.errors import InvalidOption

Ask = Callable[..., httpx.Response]


@pytest.fixture
def store(steno: StenoSettings) -> Store:
    return get_store(steno)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read of the keys is read again at every request."""
    monkeypatch.setattr(keys, "FRESH", 0.0)


def service(settings: StenoSettings) -> FastAPI:
    """An application that says who calls."""
    app = FastAPI()
    app.state.settings = settings
    problems.install(app)

    @app.get("/me")
    async def me(caller: Caller = Depends(auth.caller)) -> dict[str, str]:  # noqa: B008
        return {"id": caller.key_id, "name": caller.name}

    return app


async def ask(app: FastAPI, *authorization: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as client:
        return await client.get("/me", headers=[("Authorization", value) for value in authorization])


def test_a_key_is_kept_as_a_hash_only(store: Store) -> None:
    made = keys.make(store, "alice")
    kept = Path(store.root, "records", "api-keys", made.key.id).read_bytes()
    assert made.secret.startswith("sk-steno-")
    assert made.secret.rpartition("-")[2].encode() not in kept
    assert len(made.secret) - len(f"sk-steno-{made.key.id}-") == 43, "32 random bytes"
    assert keys.make(store, "bob").secret != made.secret


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "a\x00b", "a\x1b[31m"])
def test_a_name_must_be_fit_to_be_shown(store: Store, name: str) -> None:
    with pytest.raises(InvalidOption):
        keys.make(store, name)


def test_a_name_is_free_again_once_its_key_is_revoked(store: Store) -> None:
    first = keys.make(store, "alice")
    with pytest.raises(InvalidOption, match="already"):
        keys.make(store, "alice")
    keys.revoke(store, "alice")
    second = keys.make(store, "alice")
    assert keys.revoke(store, "alice").id == second.key.id
    assert {key.id for key in keys.kept(store)} == {first.key.id, second.key.id}


def test_a_key_is_revoked_by_id_by_name_or_as_it_is(store: Store) -> None:
    for told in ("id", "name", "secret"):
        made = keys.make(store, told)
        assert not keys.revoke(store, {"id": made.key.id, "name": told, "secret": made.secret}[told]).active


async def test_without_keys_anybody_calls(steno: StenoSettings) -> None:
    assert (await ask(service(steno))).json() == {"id": "anybody", "name": "anybody"}


async def test_a_key_says_who_calls(steno: StenoSettings, store: Store) -> None:
    made = keys.make(store, "alice")
    app = service(steno)
    for scheme in ("Bearer", "bearer", "BEARER"):
        answer = await ask(app, f"{scheme} {made.secret}")
        assert answer.json() == {"id": made.key.id, "name": "alice"}


async def test_what_is_no_key_is_refused(steno: StenoSettings, store: Store) -> None:
    made, other = keys.make(store, "alice"), keys.make(store, "bob")
    app = service(steno)
    id_of, secret = f"sk-steno-{made.key.id}-", made.secret.removeprefix(f"sk-steno-{made.key.id}-")
    wrong = [
        (),
        ("",),
        ("Bearer",),
        ("Bearer ",),
        (made.secret,),
        (f"Basic {made.secret}",),
        (f"Bearer {made.secret}x",),
        (f"Bearer {made.secret[:-1]}",),
        (f"Bearer {id_of}{'A' * 43}",),
        (f"Bearer {id_of}{secret.swapcase()}",),
        (f"Bearer sk-steno-{other.key.id}-{secret}",),
        (f"Bearer sk-steno-{'a' * 12}-{secret}",),
        (f"Bearer sk-steno-../../x-{secret}",),
        (f"Bearer {made.key.sha256}",),
        (f"Bearer {made.secret}", f"Bearer {made.secret}"),
        (f"Bearer {made.secret}, Bearer {other.secret}",),
    ]
    for given in wrong:
        answer = await ask(app, *given)
        assert answer.status_code == 401, given
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.json()["error"] == answer.json()["detail"]
        assert secret not in answer.text


async def test_a_key_given_where_none_is_needed_must_still_be_right(steno: StenoSettings) -> None:
    assert (await ask(service(steno), f"Bearer sk-steno-{'a' * 12}-{'b' * 43}")).status_code == 401


async def test_the_first_key_closes_a_running_service(steno: StenoSettings, store: Store, at_once: None) -> None:
    app = service(steno)
    assert (await ask(app)).status_code == 200
    keys.make(store, "alice")
    assert (await ask(app)).status_code == 401


async def test_a_revoked_key_is_refused_by_every_process_and_leaves_no_door_open(
    steno: StenoSettings, store: Store, at_once: None
) -> None:
    made = keys.make(store, "alice")
    apps = [service(steno), service(steno)]
    for app in apps:
        assert (await ask(app, f"Bearer {made.secret}")).status_code == 200
    keys.revoke(Store.from_settings(steno), "alice")
    for app in apps:
        assert (await ask(app, f"Bearer {made.secret}")).status_code == 401
        assert (await ask(app)).status_code == 401, "nor does a service open when its last key is gone"


async def test_a_damaged_record_opens_nothing(steno: StenoSettings, store: Store, at_once: None) -> None:
    made = keys.make(store, "alice")
    store.write_record(f"api-keys/{made.key.id}", b'{"id": ')
    app = service(steno)
    assert (await ask(app)).status_code == 401
    assert (await ask(app, f"Bearer {made.secret}")).status_code == 401


async def test_keys_read_before_outlive_a_short_outage_of_the_store_only(
    steno: StenoSettings, store: Store, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = keys.make(store, "alice")
    app = service(steno)
    assert (await ask(app, f"Bearer {made.secret}")).status_code == 200

    def out_of_reach(folder: str) -> Iterator[object]:
        raise ApiUnreachable("The store cannot be reached.")

    monkeypatch.setattr(app.state.keyring._store, "files", out_of_reach)
    assert (await ask(app, f"Bearer {made.secret}")).status_code == 200
    monkeypatch.setattr(keys, "STALE", 0.0)
    answer = await ask(app, f"Bearer {made.secret}")
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)


async def test_the_use_of_a_key_is_noted(steno: StenoSettings, store: Store) -> None:
    made = keys.make(store, "alice")
    assert keys.last_used(store, made.key) is None
    app = service(steno)
    await ask(app, f"Bearer {made.secret}")
    for task in list(app.state.keyring._notes):
        await task
    assert keys.last_used(store, made.key) is not None


# -- the command line ---------------------------------------------------------------------------------------------------


def test_the_command_line_makes_lists_and_revokes(
    steno: StenoSettings, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["keys", "list"]) == 0
    assert "steno keys make" in capsys.readouterr().out
    assert run(["keys", "make", "alice", "--rate", "60", "--pending", "3"]) == 0
    said = capsys.readouterr()
    secret = said.out.strip()
    assert secret.startswith("sk-steno-"), "the key alone, fit for `> file`"
    assert secret not in said.err
    assert run(["keys", "list"]) == 0
    shown = capsys.readouterr().out
    assert "alice" in shown and "60 requests/min, 3 pending jobs" in shown and "never" in shown
    assert secret.rpartition("-")[2] not in shown
    assert run(["keys", "revoke", "alice"]) == 0
    assert "Revoked alice" in capsys.readouterr().out
    assert run(["keys", "list", "--json"]) == 0
    assert capsys.readouterr().out == ""
    assert run(["keys", "list", "--all", "--json"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["name"] == "alice" and line["revoked"] and "sha256" not in line
    assert run(["keys", "revoke", "nobody"]) == 2
    assert "steno keys list" in capsys.readouterr().err


# -- where it may listen ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_keys(steno: StenoSettings, host: str) -> None:
    auth.check_bind(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "*", "192.168.1.5", "8.8.8.8", "no-such-host.invalid", "::ffff:8.8.8.8"])
def test_other_addresses_are_refused_without_keys(steno: StenoSettings, host: str) -> None:
    with pytest.raises(InvalidOption, match="steno keys make"):
        auth.check_bind(host)


def test_with_a_key_any_address_will_do(steno: StenoSettings, store: Store) -> None:
    keys.make(store, "alice")
    auth.check_bind("0.0.0.0")


def test_keys_that_are_not_required_keep_nobody_out(
    steno: StenoSettings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.make(store, "alice")
    monkeypatch.setenv("STENO_API__REQUIRE_KEYS", "false")
    get_settings.cache_clear()
    with pytest.raises(InvalidOption, match="require keys"):
        auth.check_bind("0.0.0.0")
    auth.check_bind("127.0.0.1")
