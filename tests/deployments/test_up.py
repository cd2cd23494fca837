"""`steno up` and `steno deploy` as commands, and how their processes are kept running."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments import processes, supervisor
from deployments.processes import Child, listen
from deployments.supervisor import Supervisor
from deployments.up import can_serve_page, database_url, server_environment
from infra.api_settings import ApiSettings
from infra.settings import StenoSettings
from stenoflow.errors import InvalidOption, PortTaken, ProcessKeepsEnding
from tests.cli.test_cli import steno
from tests.deployed import ROOT
from tests.guides import commands, shell, spoken
from tests.ports import free_port
from tests.up import Up, gone


@pytest.fixture
def up(tmp_path: Path, models_dir: Path) -> Iterator[Up]:
    with contextlib.ExitStack() as stack:
        up = Up(tmp_path, models_dir)
        stack.callback(up.kill)
        up.wait_until_said("Ctrl-C stops everything")
        yield up


@pytest.mark.slow
def test_up_starts_everything_keeps_it_running_and_ends_it(up: Up) -> None:
    assert f"http://127.0.0.1:{up.port}" in up.said()
    page = httpx.get(f"http://127.0.0.1:{up.port}/", timeout=30, trust_env=False, follow_redirects=True)
    assert "Prefect" in page.text

    taken = steno("up", "--port", str(up.port), folder=up.folder)
    assert taken.returncode == 3
    assert f"Port {up.port} on 127.0.0.1 is in use" in taken.stderr

    again = steno("deploy", "--json", folder=up.folder, PREFECT_API_URL=up.api)
    changes = [json.loads(line) for line in again.stdout.splitlines()]
    assert {change["what"] for change in changes} == {"unchanged"}
    assert {change["kind"] for change in changes} == {"work pool", "deployment", "automation"}

    before = up.children()
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 120
    while (after := up.children()).keys() != before.keys() or set(after.values()) & set(before.values()):
        assert time.monotonic() < deadline, up.said()
        time.sleep(0.2)
    assert "The server ended with signal SIGKILL; starting it again" in up.said()
    # The port was never free meanwhile: this waits for the new server.
    assert httpx.get(f"{up.api}/health", timeout=120, trust_env=False).json() is True

    os.kill(up.process.pid, signal.SIGINT)
    assert up.process.wait(90) == 0
    assert "Stopping." in up.said()
    assert gone(set(after.values()), timeout=1)


@pytest.mark.slow
def test_nothing_is_left_when_up_itself_is_killed(up: Up) -> None:
    children = set(up.children().values())
    assert len(children) == 3
    up.process.kill()
    assert gone(children)


def logged(up: Up, run: str, until: str) -> str:
    """What the Logs tab of a run shows, each line with its level, once `until` is among it."""
    deadline = time.monotonic() + 60
    wanted = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
    while True:
        rows = httpx.post(f"{up.api}/logs/filter", json=wanted, timeout=60, trust_env=False).json()
        said = "\n".join(f"{logging.getLevelName(row['level'])} {row['message']}" for row in rows)
        if until in said:
            return said
        assert time.monotonic() < deadline, said
        time.sleep(0.5)


def recipe(title: str) -> str:
    """The commands that the README gives under a title, as they are pasted. Five lines at most."""
    found = re.search(
        rf"^\*\*{title}\*\*.*?^```console\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert found
    lines = [line.removeprefix("$ ") for line in found[1].splitlines()]
    assert 0 < len(lines) <= 5
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_the_readme_says_to_paste_works(up: Up) -> None:
    """An ad-hoc run, which fails for want of its recording; its retry; the nightly batch, which takes what is new."""
    env = commands(up.folder) | {"PREFECT_HOME": str(up.folder / "prefect"), "STENO_HOME": str(up.folder / "home")}

    def paste(title: str) -> str:
        return shell(recipe(title).replace("4200", str(up.port)), up.folder, env)

    def ended(run: str) -> dict[str, Any]:
        deadline = time.monotonic() + 200
        while True:
            found: dict[str, Any] = httpx.get(f"{up.api}/flow_runs/{run}", timeout=60, trust_env=False).json()
            if found["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                return found
            assert time.monotonic() < deadline, found["state"]
            time.sleep(0.5)

    started = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", paste("Ad hoc"))
    assert started
    failed = ended(started[0])
    assert (failed["state_type"], failed["name"]) == ("FAILED", "talk.mp3")
    assert str(up.folder / "talk.mp3") in failed["state"]["message"]
    said = logged(up, started[0], until="Finished in state")
    assert "INFO fetch started" in said
    assert "Traceback" not in said

    talk = spoken(up.folder / "talk.mp3")  # what a file holds is found by looking into it
    paste("Retry")
    assert ended(started[0])["state_type"] == "COMPLETED"
    said = logged(up, started[0], until="Finished in state Completed()")
    assert re.search("INFO export computed in ", said)

    recordings = up.folder / "recordings"
    recordings.mkdir()
    talk.rename(recordings / "standup.wav")
    os.utime(recordings / "standup.wav", (1_700_000_000, 1_700_000_000))
    paste("Every night")
    nightly = httpx.get(f"{up.api}/deployments/name/batch/nightly", timeout=60, trust_env=False).json()
    assert [schedule["schedule"]["cron"] for schedule in nightly["schedules"]] == ["0 2 * * *"]
    run = httpx.post(f"{up.api}/deployments/{nightly['id']}/create_flow_run", json={}, timeout=60, trust_env=False).json()
    assert ended(run["id"])["state_type"] == "COMPLETED"
    assert (up.folder / "home/transcripts/standup.json").is_file()


# -- keeping processes running ------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(supervisor, "GIVE_UP", 3)


def child(code: str, tmp_path: Path) -> Child:
    return Child("worker", [sys.executable, "-c", code], os.environ, tmp_path / "worker.log")


def test_a_process_that_keeps_ending_is_given_up_and_its_last_line_said(tmp_path: Path, quick: None) -> None:
    said: list[str] = []
    keeper = Supervisor(said.append)
    keeper.start(child("print('no disk'); raise SystemExit(4)", tmp_path))
    with pytest.raises(ProcessKeepsEnding, match=r"stopped 3 times.*code 4 \(no disk\).*worker\.log"):
        keeper.run()
    assert len(said) == 2
    keeper.end()


def test_a_process_that_does_not_end_when_asked_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(supervisor.GRACE, "worker", 0.2)
    stubborn = child(
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)", tmp_path
    )
    keeper = Supervisor(lambda _: None)
    keeper.start(stubborn)
    deadline = time.monotonic() + 30
    while not stubborn.last_line():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    keeper.stop()
    keeper.run()
    keeper.end()
    assert stubborn.exit_code == -signal.SIGKILL


# -- what is refused ----------------------------------------------------------------------------------------------------


def test_ports_and_hosts_that_cannot_be_had_are_said() -> None:
    with listen("127.0.0.1", 0) as listener, pytest.raises(PortTaken, match="choose one with --port"):
        listen("127.0.0.1", listener.getsockname()[1])
    with pytest.raises(Exception, match="choose another --host"):
        listen("192.0.2.1", 0)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("postgres://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql+asyncpg://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("sqlite:////tmp/x.db", "sqlite+aiosqlite:////tmp/x.db"),
    ],
)
def test_a_database_is_named_as_anybody_would(given: str, wanted: str) -> None:
    assert database_url(given) == wanted
    env = server_environment(StenoSettings(deploy={"database_url": given}), "http://x/api", {})
    assert env["PREFECT_SERVER_DATABASE_CONNECTION_URL"] == wanted


def test_another_database_is_refused_without_its_password() -> None:
    with pytest.raises(InvalidOption) as refused:
        database_url("mysql://root:secret@host/db")
    assert "secret" not in str(refused.value)


def test_the_environment_decides_before_our_defaults() -> None:
    env = server_environment(StenoSettings(), "http://x/api", {"PREFECT_SERVER_LOGGING_LEVEL": "DEBUG"})
    assert env["PREFECT_SERVER_LOGGING_LEVEL"] == "DEBUG"
    assert env["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"].endswith("filesystem")


class Refusing(BaseHTTPRequestHandler):
    status = 401

    def do_POST(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        ok = self.path.endswith("/health")
        self.send_response(200 if ok else self.status)
        self.end_headers()
        self.wfile.write(b"true" if ok else b'{"detail": "no"}')

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.mark.parametrize(("status", "code"), [(401, "prefect_denied"), (403, "prefect_denied"), (418, "prefect_refused")])
def test_an_api_that_refuses_is_said_in_a_sentence(tmp_path: Path, status: int, code: str) -> None:
    handler = type("Handler", (Refusing,), {"status": status})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/api"
        result = steno("deploy", "--json", folder=tmp_path, PREFECT_API_URL=url, PREFECT_API_KEY="pnu_secret")
        server.shutdown()
    problem = json.loads(result.stdout.splitlines()[-1])
    assert (problem["code"], problem["exit_code"]) == (code, result.returncode)
    assert "pnu_secret" not in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_an_api_that_is_not_there_is_said_in_a_sentence(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/api"
    for arguments in (("deploy",), ("up", "--no-server")):
        result = steno(*arguments, folder=tmp_path, PREFECT_API_URL=url)
        assert result.returncode == 6
        assert "does not answer" in result.stderr
        assert "Traceback" not in result.stderr
    nowhere = steno("deploy", folder=tmp_path)
    assert nowhere.returncode == 2
    assert "PREFECT_API_URL" in nowhere.stderr
    nothing = steno("up", "--no-server", "--no-worker", folder=tmp_path)
    assert nothing.returncode == 2


def test_the_worker_starts_with_the_python_it_runs_on(tmp_path: Path) -> None:
    started = processes.worker("pool", "name", 3, {}, tmp_path / "log")
    assert started._command[:2] == [sys.executable, "-P"]
    assert started._command[-4:] == ["deployments.worker", "pool", "name", "3"]


@pytest.mark.slow
def test_the_address_of_the_page_answers_as_soon_as_it_is_shown(tmp_path: Path, models_dir: Path) -> None:
    port = free_port()
    up = Up(tmp_path, models_dir, STENO_API__PORT=str(port))
    try:
        up.wait_until_said(f"The page:     http://127.0.0.1:{port}")
        assert httpx.get(f"http://127.0.0.1:{port}/", timeout=30, trust_env=False).status_code in (200, 503)  # built or not
    finally:
        up.kill()


def test_the_page_is_served_unasked_only_to_this_machine_and_where_its_port_is_free() -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert not can_serve_page(ApiSettings(port=port), said.append)
    assert said == [f"The page is not served: port {port} is taken (STENO_API__PORT chooses another)."]
    assert can_serve_page(ApiSettings(port=port), said.append)
    assert not can_serve_page(ApiSettings(host="0.0.0.0", port=port), said.append)
