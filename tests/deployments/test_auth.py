"""The string that Prefect's API asks for: who makes it, who is asked, who finds it, and where it must never be."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import websockets

from deployments.auth import SERVER_AUTH, auth_file, made_string, server_auth
from deployments.welcome import Served, welcome
from flows.local_server import running
from flows.local_server.server import TemporaryServer
from infra.api_settings import ApiSettings
from infra.settings import StenoSettings
from stenoflow.errors import InvalidOption
from tests import stub_compute
from tests.cli.test_cli import steno
from tests.deployments.test_doors import ended
from tests.ports import free_port
from tests.prefect_home import prefect_home
from tests.up import Up


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (SERVER_AUTH, running.AUTH, "PREFECT_API_URL", "PREFECT_PROFILE", "STENO_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.chdir(tmp_path)


# -- a server that other machines reach --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("auth")
    up = Up(folder, models_dir, "--host", "0.0.0.0", "--api", **stubbed(folder), STENO_API__PORT=str(free_port()))
    try:
        up.wait_until_said("Ctrl-C stops everything")
        yield up
    finally:
        up.kill()


def stubbed(folder: Path) -> dict[str, str]:
    (folder / "plan.json").write_text(json.dumps({"log": str(folder / "stages.log")}))
    return {"STENO_COMPUTE__BACKEND": stub_compute.BACKEND, "STUB_PLAN": str(folder / "plan.json")}


def secret(up: Up) -> str:
    return (up.folder / "home/prefect-auth").read_text().strip()


def basic(up: Up) -> Any:
    return tuple(secret(up).split(":"))


@pytest.mark.slow
def test_strangers_are_refused_and_health_is_not_asked_for(up: Up) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{up.port}", trust_env=False, timeout=60) as client:
        assert client.get("/api/health").status_code == 200
        assert client.get("/ui-settings").json()["auth"] == "BASIC"  # its pages ask for the string
        for auth in (None, ("steno", "guess"), ("steno", "")):
            for method, path in (("GET", "/api/version"), ("POST", "/api/flow_runs/filter"), ("GET", "/api/admin/settings")):
                assert client.request(method, path, auth=auth, json={} if method == "POST" else None).status_code == 401
        assert client.post("/api/flow_runs/filter", auth=basic(up), json={}).status_code == 200
        named = {"Host": f"{socket.gethostname()}:{up.port}"}
        assert client.get("/api/health", headers=named).status_code == 200
        assert client.get("/api/health", headers={"Host": "evil.example"}).status_code == 421

    async def heard(token: str | None) -> bool:
        url = f"{up.api.replace('http', 'ws', 1)}/events/out"
        async with websockets.connect(url, subprotocols=[websockets.Subprotocol("prefect")], proxy=None) as stream:
            await stream.send(json.dumps({"type": "auth", "token": token}))
            try:
                return bool(json.loads(await stream.recv())["type"] == "auth_success")
            except websockets.ConnectionClosed:
                return False

    assert asyncio.run(heard(secret(up)))
    assert not asyncio.run(heard(None))
    assert not asyncio.run(heard("steno:guess"))


@pytest.mark.slow
def test_commands_of_this_machine_find_the_server_and_are_let_in(up: Up) -> None:
    """Nothing is configured: no PREFECT_API_URL, no string."""
    again = steno("deploy", "--json", folder=up.folder)
    assert {json.loads(line)["what"] for line in again.stdout.splitlines()} == {"unchanged"}, again.stderr

    with wave.open(str(up.folder / "talk.wav"), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes((np.random.default_rng(3).normal(0, 0.1, 32_000) * 32767).astype("<i2").tobytes())
    done = steno("transcribe", "talk.wav", "--json", folder=up.folder, **stubbed(up.folder))
    assert done.returncode == 0, done.stderr
    run = next(line["run"] for line in map(json.loads, done.stdout.splitlines()) if line.get("run"))

    def asked(method: str, path: str, body: Any = None) -> Any:
        return httpx.request(method, f"{up.api}{path}", auth=basic(up), json=body, timeout=60, trust_env=False).json()

    assert asked("GET", f"/flow_runs/{run}")["state_type"] == "COMPLETED"

    # The worker is let in, and so are the runs that it starts; a retry is handed to it, as only a running server can.
    flow = asked("GET", "/deployments/name/transcribe/one-recording")
    parameters = {"request": {"source": str(up.folder / "late.wav")}}
    made = asked("POST", f"/deployments/{flow['id']}/create_flow_run", {"parameters": parameters})
    assert ended(up, made["id"], auth=basic(up))["state_type"] == "FAILED"
    (up.folder / "talk.wav").rename(up.folder / "late.wav")
    retried = steno("retry", made["id"], folder=up.folder, **stubbed(up.folder))
    assert retried.returncode == 0, retried.stderr
    assert asked("GET", f"/flow_runs/{made['id']}")["state_type"] == "COMPLETED"

    # With its address spelled out, as in a script of before, the string still need not be.
    assert steno("deploy", folder=up.folder, PREFECT_API_URL=f"http://localhost:{up.port}/api").returncode == 0
    elsewhere = steno("retry", "late.wav", folder=up.folder, PREFECT_API_URL=up.api, PREFECT_HOME=str(up.folder / "other"))
    assert elsewhere.returncode == 4, elsewhere.stderr
    assert "PREFECT_API_AUTH_STRING" in elsewhere.stderr and "(401)" in elsewhere.stderr


@pytest.mark.slow
def test_the_server_of_a_single_command_is_that_commands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefect_home(tmp_path / "prefect")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    server = TemporaryServer()
    try:
        server.wait()
        with httpx.Client(trust_env=False, timeout=60) as client:

            def status(auth: Any = None, **headers: str) -> int:
                return client.post(f"{server.url}/flow_runs/filter", auth=auth, headers=headers, json={}).status_code

            own: Any = tuple(server.auth.split(":"))
            assert (status(own), status(), status(("steno", "guess"))) == (200, 401, 401)
            assert status(own, Origin="https://evil.example") == 403
            assert status(own, Host="evil.example") == 421
    finally:
        server.stop()


@pytest.mark.slow
def test_the_string_is_in_no_log_no_argument_and_no_file_that_others_read(up: Up) -> None:
    home, string = up.folder / "home", secret(up).partition(":")[2]
    assert len(string) >= 32
    private = {auth_file(home), up.folder / "prefect/steno-up.json"}
    for path in private:
        assert path.stat().st_mode & 0o777 == 0o600
    for path in up.folder.rglob("*"):
        if path.is_file() and path not in private:
            assert string.encode() not in path.read_bytes(), path
    processes = [psutil.Process(up.process.pid), *psutil.Process(up.process.pid).children(recursive=True)]
    assert len(processes) >= 5
    for process in processes:
        assert string not in " ".join(process.cmdline())
    for name in ("worker", "courier"):  # what they send, not what the server asks for
        environment = psutil.Process(up.children()[name]).environ()
        assert environment[running.AUTH] == secret(up) and SERVER_AUTH not in environment


@pytest.mark.slow
def test_what_others_reach_and_what_protects_it_is_said(up: Up) -> None:
    said = up.said()
    assert f"Its password: in {up.folder / 'home/prefect-auth'}" in said
    assert (
        f"Other machines can reach Prefect's UI and API ({socket.gethostname()}:{up.port}), protected by the password." in said
    )
    assert "Other machines can reach the REST API" not in said


def test_what_only_this_machine_reaches_says_so_and_the_rest_api_too(tmp_path: Path) -> None:
    said = welcome(Served("http://127.0.0.1:4200/api", "127.0.0.1", None, None, None, None))
    assert "every user of this machine can use it (STENO_DEPLOY__AUTH=true requires one)" in said
    assert "Other machines" not in said
    said = welcome(Served(None, "127.0.0.1", None, ApiSettings(host="0.0.0.0", port=8765), None, None))
    assert f"Other machines can reach the REST API ({socket.gethostname()}:8765), protected by API keys." in said


# -- who is asked ----------------------------------------------------------------------------------------------------------


def settings(home: Path, **deploy: Any) -> StenoSettings:
    return StenoSettings(home=home, deploy=deploy)


@pytest.mark.parametrize(
    ("host", "auth", "asks"),
    [
        ("127.0.0.1", None, False),
        ("localhost", None, False),
        ("::1", None, False),
        ("127.0.0.1", True, True),
        ("127.0.0.1", False, False),
        ("0.0.0.0", None, True),
        ("::", None, True),
        ("10.0.0.5", True, True),
    ],
)
def test_strangers_are_always_asked_and_users_of_this_machine_where_the_setting_says_so(
    tmp_path: Path, host: str, auth: bool | None, asks: bool
) -> None:
    found = server_auth(host, settings(tmp_path, auth=auth))
    assert (found is not None) is asks
    if found is not None:
        assert (found.string, found.source) == (made_string(tmp_path), str(auth_file(tmp_path)))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", ""])
def test_a_server_that_asks_nobody_is_refused_beyond_loopback(tmp_path: Path, host: str) -> None:
    with pytest.raises(InvalidOption, match="STENO_DEPLOY__AUTH=false lets everyone"):
        server_auth(host, settings(tmp_path, auth=False))
    refused = steno("up", "--host", host, "--port", str(free_port()), folder=tmp_path, STENO_DEPLOY__AUTH="false")
    assert refused.returncode == 2
    assert "listen on 127.0.0.1" in refused.stderr and "Traceback" not in refused.stderr


def test_a_string_of_the_operators_is_used_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER_AUTH, "operator:own")
    for host, auth in (("0.0.0.0", False), ("127.0.0.1", None)):
        found = server_auth(host, settings(tmp_path, auth=auth))
        assert found is not None and (found.string, found.source) == ("operator:own", SERVER_AUTH)
        said = welcome(Served("http://127.0.0.1:4200/api", host, found, None, None, None))
        assert SERVER_AUTH in said and "operator:own" not in said
    monkeypatch.delenv(SERVER_AUTH)
    profiles = tmp_path / "prefect" / "profiles.toml"
    profiles.parent.mkdir()
    profiles.write_text(f'active = "mine"\n[profiles.mine]\n{SERVER_AUTH} = "profile:own"\n')
    code = "from deployments.auth import *\nprint(server_auth('0.0.0.0', StenoSettings()).string)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | path(), check=False)
    assert done.stdout.strip() == "profile:own", done.stderr


def path() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(sys.path)}


def test_the_string_is_made_once_and_stays_private(tmp_path: Path) -> None:
    home = tmp_path / "home"
    made = made_string(home)
    assert made == made_string(home) != made_string(tmp_path / "other")
    file = auth_file(home)
    assert file.stat().st_mode & 0o777 == 0o600 and [*home.iterdir()] == [file]
    file.chmod(0o644)
    assert made_string(home) == made and file.stat().st_mode & 0o777 == 0o600
    file.write_text("\n")
    with pytest.raises(InvalidOption, match="is empty; delete it"):
        made_string(home)


# -- who finds it ----------------------------------------------------------------------------------------------------------


def test_a_server_is_found_while_it_runs_and_no_longer() -> None:
    assert running.find() is None
    with running.announced("http://127.0.0.1:4999/api", "steno:x"):
        found = running.find()
        assert found is not None and (found.url, found.auth, found.pid) == ("http://127.0.0.1:4999/api", "steno:x", os.getpid())
        assert running.state_file().stat().st_mode & 0o777 == 0o600
        for url in ("http://localhost:4999/api", f"http://{socket.gethostname()}:4999/api/"):
            assert running.is_at(found, url)
        for url in ("http://127.0.0.1:4998/api", "http://evil.example:4999/api", "https://127.0.0.1:4999/api"):
            assert not running.is_at(found, url)
        with running.announced("http://127.0.0.1:5000/api", None):
            assert running.find() is not None
        # The later one has gone; the file was its own.
        assert running.find() is None
    assert not running.state_file().exists()


def test_what_a_killed_one_left_is_not_believed(tmp_path: Path) -> None:
    code = (
        "from flows.local_server.running import announced\n"
        "with announced('http://127.0.0.1:4999/api', 'steno:x'): print('there', flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | path()
    )
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == "there\n"
        assert running.find() is not None
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
    assert running.state_file().exists() and running.find() is None
    running.state_file().write_text("not JSON")
    assert running.find() is None
    nowhere = steno("deploy", folder=tmp_path, PREFECT_HOME=str(tmp_path / "prefect"))
    assert nowhere.returncode == 2 and "No Prefect API to deploy to" in nowhere.stderr
