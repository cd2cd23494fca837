"""Keys: made once, kept as hashes, seen and refused by every API process within seconds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI

from api import auth, keyring, keys, problems
from api.auth import Caller
from infra.compute import get_store
from infra.settings import StenoSettings, get_settings
from infra.store import Store
from stenoflow.cli.main import run
from stenoflow.errors import ApiUnreachable, InvalidOption

Ask = Callable[..., httpx.Response]


@pytest.fixture
def store(steno: StenoSettings) -> Store:
    return get_store(steno)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read of the keys is read again at every request."""
    monkeypatch.setattr(keyring, "FRESH", 0.0)


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
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
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
    assert {key.id for key in keys.all_keys(store)} == {first.key.id, second.key.id}


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
    monkeypatch.setattr(keyring, "STALE", 0.0)
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
    assert not keys.named(store, "alice").metrics
    assert run(["keys", "make", "prometheus", "--metrics"]) == 0 and run(["keys", "rotate", "prometheus"]) == 0
    assert keys.named(store, "prometheus").metrics
    capsys.readouterr()
    assert run(["keys", "list"]) == 0
    shown = capsys.readouterr().out
    assert "alice" in shown and "60 requests/min, 3 pending jobs" in shown and "never" in shown
    assert secret.rpartition("-")[2] not in shown
    assert run(["keys", "revoke", "alice"]) == 0
    assert "Revoked alice" in capsys.readouterr().out
    assert run(["keys", "list", "--json"]) == 0
    assert "alice" not in capsys.readouterr().out
    assert run(["keys", "list", "--all", "--json"]) == 0
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    line = next(line for line in lines if line["name"] == "alice")
    assert line["revoked"] and "sha256" not in line
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


# -- keys that were seen are required for good -----------------------------------------------------------------------------


def _expired_prefix(home: Path, store: Store) -> None:
    shutil.rmtree(Path(store.root, "records"))


def _renamed(home: Path, store: Store) -> None:
    Path(store.root, "records").rename(Path(store.root, "records-before"))


def _unmounted(home: Path, store: Store) -> None:
    shutil.rmtree(store.root)


def _no_key_files(home: Path, store: Store) -> None:
    for record in Path(store.root, "records", "api-keys").iterdir():
        record.unlink()


def _another_home(home: Path, store: Store) -> None:
    _expired_prefix(home, store)
    (home / keyring.HOME_MARK).unlink()


@pytest.mark.parametrize("lost", [_expired_prefix, _renamed, _unmounted, _no_key_files])
async def test_keys_whose_records_are_gone_are_still_required(
    steno: StenoSettings, store: Store, at_once: None, lost: Callable[[Path, Store], None]
) -> None:
    made = keys.make(store, "alice")
    app = service(steno)
    assert (await ask(app, f"Bearer {made.secret}")).status_code == 200
    lost(steno.home_path, store)
    for process in (app, service(steno)):
        assert (await ask(process)).status_code == 401
        assert (await ask(process, f"Bearer {made.secret}")).status_code == 401


async def test_the_store_tells_the_services_of_other_homes(steno: StenoSettings, store: Store, at_once: None) -> None:
    made = keys.make(store, "alice")
    assert (await ask(service(steno), f"Bearer {made.secret}")).status_code == 200
    _another_home(steno.home_path, store)
    assert (await ask(service(steno))).status_code == 401


async def test_keys_of_an_older_version_are_marked_when_they_are_seen(
    steno: StenoSettings, store: Store, at_once: None
) -> None:
    keys.make(store, "alice")
    Path(store.root, keys.MARK).unlink()
    assert (await ask(service(steno))).status_code == 401
    assert Path(store.root, keys.MARK).exists() and (steno.home_path / keyring.HOME_MARK).exists()


async def test_only_a_setting_goes_back_to_no_keys(steno: StenoSettings, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    keys.make(store, "alice")
    monkeypatch.setenv("STENO_API__REQUIRE_KEYS", "false")
    get_settings.cache_clear()
    assert (await ask(service(get_settings()))).json()["name"] == "anybody"


BEYOND: dict[str, dict[str, Any]] = {
    "bound to all addresses": {"settings": {"host": "0.0.0.0"}},
    "bound to an address of the network": {"settings": {"host": "192.168.1.5"}},
    "socket of the network": {"scope": {"server": ("192.168.1.5", 8765)}},
    "socket of IPv6": {"scope": {"server": ("2001:db8::1", 8765)}},
    "peer of the network": {"scope": {"client": ("192.168.1.9", 4711)}},
    "another name": {"headers": {"host": "rebind.evil.example"}},
    "a name that begins like loopback": {"headers": {"host": "127.0.0.1.evil.example"}},
    "nginx": {"headers": {"x-real-ip": "203.0.113.9"}},
    "a proxy": {"headers": {"x-forwarded-for": "203.0.113.9"}},
    "a proxy of RFC 7239": {"headers": {"forwarded": "for=203.0.113.9"}},
    "nginx as it comes": {"scope": {"http_version": "1.0"}},
}
# What else proxies and tunnels add.
BEYOND |= {
    name: {"headers": {name: "203.0.113.9"}}
    for name in (
        "via",
        "x-forwarded",
        "forwarded-for",
        "x-original-forwarded-for",
        "x-client-ip",
        "x-cluster-client-ip",
        "fastly-client-ip",
        "true-client-ip",
        "x-azure-clientip",
        "x-appengine-remote-addr",
        "x-original-host",
        "cdn-loop",
        "cf-ray",
        "tailscale-user-login",
        "x-envoy-external-address",
        "x-amzn-trace-id",
        "proxy-authorization",
    )
}


@pytest.mark.parametrize("required", [None, False])
@pytest.mark.parametrize("how", BEYOND)
async def test_who_comes_from_beyond_this_machine_needs_a_key_at_every_request(
    steno: StenoSettings, how: str, required: bool | None
) -> None:
    case = BEYOND[how]
    chosen = {"require_keys": required} | case.get("settings", {})
    app = service(steno.model_copy(update={"api": steno.api.model_copy(update=chosen)}))

    async def moved(scope: Any, receive: Any, send: Any) -> None:
        await app(scope | case.get("scope", {}), receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(moved), base_url="http://127.0.0.1") as client:
        assert (await client.get("/me", headers=case.get("headers"))).status_code == 401


# -- owners, rotation, expiry ----------------------------------------------------------------------------------------------


def test_jobs_belong_to_an_owner_above_keys(store: Store) -> None:
    alice = keys.make(store, "alice").key
    assert alice.owned_by == alice.id, "its own"
    web, mobile = keys.make(store, "acme-web", owner="acme").key, keys.make(store, "acme-mobile", owner="acme").key
    assert (web.owned_by, mobile.owned_by) == ("acme", "acme")
    assert keys.make(store, "alice-ci", owner="alice").key.owned_by == alice.id, "a key's name stands for its owner"
    assert keys.make(store, "bot", owner=alice.id).key.owned_by == alice.id


def test_a_key_that_is_made_again_continues_the_jobs_of_the_one_before(store: Store) -> None:
    first = keys.make(store, "alice").key
    keys.revoke(store, "alice")
    second = keys.make(store, "alice").key
    assert second.id != first.id and second.owned_by == first.owned_by
    keys.revoke(store, "alice")
    assert keys.make(store, "alice", owner="new").key.owned_by == "new"


def test_a_key_of_an_older_version_owns_what_it_made(store: Store) -> None:
    made = keys.make(store, "alice").key
    record = json.loads(store.read_record(f"api-keys/{made.id}") or b"")
    for name in ("owner", "expires"):
        del record[name]
    store.write_record(f"api-keys/{made.id}", json.dumps(record).encode())
    assert keys.named(store, "alice").owned_by == made.id
    assert keys.rotate(store, "alice").key.owned_by == made.id


@pytest.mark.parametrize("owner", ["", "a/b", "../x", "anybody", "a b", ".x", "x" * 65, "abcdefghijkl", "é"])
def test_an_owners_name_is_fit_for_a_file(store: Store, owner: str) -> None:
    with pytest.raises(InvalidOption, match="owner"):
        keys.make(store, "alice", owner=owner)


async def test_a_rotated_key_works_in_place_of_the_old_one(steno: StenoSettings, store: Store, at_once: None) -> None:
    old = keys.make(store, "alice", keys.KeyLimits(rate=9), owner="acme")
    app = service(steno)
    new = keys.rotate(store, "alice")
    assert (new.key.name, new.key.owned_by, new.key.limits) == ("alice", "acme", old.key.limits)
    assert [(await ask(app, f"Bearer {key.secret}")).status_code for key in (old, new)] == [401, 200]
    newer = keys.rotate(store, "alice", overlap=timedelta(hours=1))
    assert [(await ask(app, f"Bearer {key.secret}")).status_code for key in (new, newer)] == [200, 200]
    assert keys.named(store, "alice").id == newer.key.id
    keys.revoke(store, "alice")
    assert [(await ask(app, f"Bearer {key.secret}")).status_code for key in (new, newer)] == [401, 401], "all of the name"


async def test_a_key_expires(steno: StenoSettings, store: Store, at_once: None) -> None:
    with pytest.raises(InvalidOption, match="future"):
        keys.make(store, "late", expires=datetime.now(UTC) - timedelta(seconds=1))
    made = keys.make(store, "alice", expires=datetime.now(UTC) + timedelta(days=90))
    app = service(steno)
    assert (await ask(app, f"Bearer {made.secret}")).status_code == 200
    ended = made.key.model_copy(update={"expires": datetime.now(UTC) - timedelta(seconds=1)})
    store.write_record(f"api-keys/{made.key.id}", ended.model_dump_json().encode())
    answer = await ask(app, f"Bearer {made.secret}")
    assert answer.status_code == 401 and "expired" in answer.json()["detail"]
    assert (await ask(app)).status_code == 401, "nor does a service open when its last key has expired"
    assert keys.make(store, "alice").key.owned_by == made.key.owned_by, "the name is free again"


def test_the_command_line_rotates_and_lets_keys_expire(
    steno: StenoSettings, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["keys", "make", "web", "--owner", "acme", "--expires", "90d", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    span = datetime.fromisoformat(made["expires"]) - datetime.fromisoformat(made["made"])
    assert made["owner"] == "acme" and timedelta(days=89) < span < timedelta(days=91)
    assert (steno.home_path / keyring.HOME_MARK).exists()
    assert run(["keys", "rotate", "web", "--overlap", "1h", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["owner"] == "acme"
    assert run(["keys", "list"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("acme") == 2 and shown.count("expires") == 2
    assert run(["keys", "webhook-secret", "acme"]) == 0
    of_owner = capsys.readouterr().out
    assert run(["keys", "webhook-secret", "web"]) == 0
    assert capsys.readouterr().out == of_owner, "signed for the owner, whichever key"
    for wrong in ("soon", "-1d", "2020-01-01", "9" * 6 + "w", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"):
        assert run(["keys", "make", "x", f"--expires={wrong}"]) == 2, wrong
