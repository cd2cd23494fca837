"""Subscriptions and secrets in the store, and signatures that the reference implementation accepts."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from infra import webhooks
from infra.post import posted
from infra.settings import NetSettings
from infra.store import Store

BODY = '{"type":"transcribe.completed","data":{"metadata":{"né":"✓"}}}'


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), tmp_path / "scratch")


def test_signatures_are_those_of_standard_webhooks(store: Store) -> None:
    headers = webhooks.signed(store, "alice", "msg_1", BODY.encode())
    secret = webhooks.current_secret(store, "alice").secret
    assert secret.startswith("whsec_")
    assert Webhook(secret).verify(BODY, headers)["type"] == "transcribe.completed"
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{BODY}".encode()
    by_the_specification = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), content, hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(by_the_specification).decode()}"
    for changed in (BODY.replace("✓", "x"), BODY + " "):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(changed, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY, headers | {"webhook-id": "msg_2"})
    with pytest.raises(WebhookVerificationError):
        Webhook(webhooks.current_secret(store, "bob").secret).verify(BODY, headers)


def test_while_secrets_are_rotated_both_verify(store: Store) -> None:
    old = webhooks.current_secret(store, "alice").secret
    new = webhooks.rotate(store, "alice", 1).secret
    assert new != old and webhooks.current_secret(store, "alice").secret == new
    headers = webhooks.signed(store, "alice", "msg_1", BODY.encode())
    assert all(Webhook(secret).verify(BODY, headers) for secret in (old, new))
    newest = webhooks.rotate(store, "alice", 0).secret
    headers = webhooks.signed(store, "alice", "msg_1", BODY.encode())
    assert Webhook(newest).verify(BODY, headers)
    assert Webhook(old).verify(BODY, headers), "its hour is not over"
    with pytest.raises(WebhookVerificationError):
        Webhook(new).verify(BODY, headers)


def test_an_address_is_kept_once_for_its_owner_and_read_by_nobody_else(store: Store) -> None:
    url = "https://hooks.example.org/T0/secret?key=1"
    name = webhooks.subscribe(store, "alice", url)
    assert webhooks.subscribe(store, "alice", url) == name != webhooks.subscribe(store, "bob", url)
    found = webhooks.subscription(store, name)
    assert found is not None and found.url == url and found.host == "hooks.example.org"
    webhooks.current_secret(store, "alice")
    for folder in ("webhooks", "webhook-secrets"):
        for path in Path(store.root, "records", folder).iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert webhooks.subscription(store, "../webhook-secrets/alice") is None


def test_an_address_that_is_forgotten_is_not_told(store: Store) -> None:
    name = webhooks.subscribe(store, "alice", "https://hooks.example.org/")
    assert list(webhooks.old_subscriptions(store, time.time() - 60)) == []
    assert list(webhooks.old_subscriptions(store, time.time() + 60)) == [name]
    webhooks.forget(store, name)
    assert webhooks.subscription(store, name) is None


@pytest.fixture
def guide(store: Store, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The receiver of the guide with the secret of alice, and its address."""
    text = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    script = tmp_path / "receiver.py"
    script.write_text(code)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = os.environ | {"WEBHOOK_SECRET": webhooks.current_secret(store, "alice").secret, "PORT": str(port)}
    process = subprocess.Popen([sys.executable, str(script)], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    yield process, f"http://127.0.0.1:{port}/"
    process.kill()


async def test_the_receiver_of_the_guide_takes_each_message_once_and_refuses_forged_ones(
    store: Store, guide: tuple[subprocess.Popen[bytes], str]
) -> None:
    process, url = guide
    body = b'{"type":"transcribe.completed","timestamp":"2026-01-01T00:00:00Z","data":{"job_id":"1","status":"completed"}}'

    async def status(owner: str) -> int | None:
        headers = webhooks.signed(store, owner, "msg_1", body)
        return (await posted(url, body, headers, NetSettings(allow_hosts=("127.0.0.1",)), 10)).status

    deadline = time.monotonic() + 60
    while await status("mallory") is None:
        assert time.monotonic() < deadline and process.poll() is None
    assert [await status(owner) for owner in ("alice", "mallory", "alice")] == [204, 400, 204]
    process.terminate()
    said, _ = process.communicate(timeout=20)
    assert said.decode().splitlines() == ["transcribe.completed 1"]
