"""The browser's sign-in, and what a checkout without the page's bundle says."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from fastapi import Request, Response

from api import keys, session, web
from api.keyring import KeyRing
from infra.settings import StenoSettings
from infra.store import Store


def request(cookie: str, **headers: str) -> Request:
    found = {"cookie": f"{session.COOKIE}={cookie}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    raw = [(name.encode(), value.encode()) for name, value in found.items()]
    return Request({"type": "http", "scheme": "http", "method": "GET", "path": "/", "headers": raw})


async def test_a_session_is_its_keys_and_ends_with_it(steno: StenoSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.from_settings(steno)
    made, other = keys.make(store, "alice"), keys.make(store, "bob")
    ring = KeyRing(store, steno.home_path)
    answer = Response()
    session.start(answer, request(""), made.key)
    cookie = answer.headers["set-cookie"].partition("=")[2].partition(";")[0]
    assert made.secret not in cookie
    assert made.key.sha256 not in cookie
    found = await session.key_of(request(cookie), ring)
    assert found is not None
    assert found.id == made.key.id
    identity, expires, signed = cookie.split(".")
    for forged in (
        f"{other.key.id}.{expires}.{signed}",
        f"{identity}.{int(expires) + 1}.{signed}",
        f"{identity}.{expires}.{'0' * 64}",
        cookie[:-1],
        "",
    ):
        assert await session.key_of(request(forged), ring) is None, forged
    for site in ("same-site", "cross-site"):
        assert await session.key_of(request(cookie, sec_fetch_site=site), ring) is None
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: float(expires) + 1)
        assert await session.key_of(request(cookie), KeyRing(store, steno.home_path)) is None
    keys.revoke(store, made.key.id)
    assert await session.key_of(request(cookie), KeyRing(store, steno.home_path)) is None


async def test_a_checkout_without_the_bundle_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_SCRIPT", Path("/nowhere/page.js"))
    answer = await web.page()
    assert answer.status_code == 503
    assert b"make page" in answer.body
