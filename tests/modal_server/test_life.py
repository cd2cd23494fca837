"""The server's own life: other processes, restarts, redeployment, and that nothing is left of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from .client import CHECKOUT, ModalServer
from .conftest import SAMPLE

pytestmark = pytest.mark.slow

CALL = """
import modal, sys
print(modal.Function.from_name("sample", sys.argv[1]).remote(*map(float, sys.argv[2:])))
"""


def client(server: ModalServer, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CALL, *arguments]
    return subprocess.run(
        command, env=server.environ(**env), cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False
    )


def folder_of(server: ModalServer) -> Path:
    return Path(server.env["MODAL_CONFIG_PATH"]).parent


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def test_nothing_is_left_of_a_server_that_was_closed_at_work() -> None:
    before = mounts()
    with ModalServer.start("--grace", "1") as server:
        server.secret("sample-secret", SAMPLE_TOKEN="hush")
        server.deploy(SAMPLE)
        with subprocess.Popen(
            [sys.executable, "-c", CALL, "work", "60"], env=server.environ(), stderr=subprocess.DEVNULL
        ) as busy:
            server.until(lambda: server.calls and server.calls[-1]["state"] == "running")
            [container] = server.running
            assert not gone(container["pid"])
            busy.kill()
    assert gone(container["pid"])
    assert not folder_of(server).exists()
    assert mounts() == before
    assert server.process is not None and server.process.returncode == 0


def test_a_killed_server_takes_its_containers_with_it() -> None:
    server = ModalServer.start()
    assert server.process is not None
    try:
        server.secret("sample-secret", SAMPLE_TOKEN="hush")
        server.deploy(SAMPLE)
        assert client(server, "work", "0").stdout == "0.0\n"
        pids = [container["pid"] for container in server.running]
        server.process.kill()
        server.process.wait()
        deadline = time.monotonic() + 10
        while not all(gone(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert pids and all(gone(pid) for pid in pids)
    finally:
        server.close()
        shutil.rmtree(folder_of(server), ignore_errors=True)


def test_a_server_that_another_process_started_is_joined() -> None:
    command = [sys.executable, "-m", "tests.modal_server", "--grace", "1"]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        about = process.stdout.readline()
        server = ModalServer.attach(about)
        try:
            server.secret("sample-secret", SAMPLE_TOKEN="hush")
            server.deploy(SAMPLE)
            server.fault("refuse", "work", status="NOT_FOUND")
            assert "NotFoundError" in client(server, "work", "0").stderr
            assert client(server, "work", "0").stdout == "0.0\n"
            assert [call["state"] for call in ModalServer.attach(json.loads(about)).calls] == ["succeeded"]
            deploying_again_replaces_only_what_changed(server)
            stopping_the_app_ends_its_calls(server)
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    assert not folder_of(server).exists()


def deploying_again_replaces_only_what_changed(server: ModalServer) -> None:
    assert "no changes detected" in server.deploy(SAMPLE)
    assert server.app("sample")["version"] == 1
    server.deploy(SAMPLE, SAMPLE_LEVEL="43")
    assert server.app("sample")["version"] == 2
    server.until(lambda: not server.running)
    assert client(server, "work", "0").stdout == "0.0\n"
    assert [each["reason"] for each in server.containers] == ["replaced", ""]


def stopping_the_app_ends_its_calls(server: ModalServer) -> None:
    command = [sys.executable, "-c", CALL, "work", "60"]
    with subprocess.Popen(command, env=server.environ(), stderr=subprocess.PIPE, text=True) as busy:
        server.until(lambda: server.calls[-1]["state"] == "running")
        server.modal("app", "stop", "sample", "--yes")
        assert busy.stderr is not None
        assert "RemoteError" in busy.stderr.read()
    server.until(lambda: not server.running)
    assert "not found" in client(server, "work", "0").stderr


def test_tokens_are_checked(server: ModalServer) -> None:
    wrong = client(server, "work", "0", MODAL_TOKEN_SECRET="as-wrong")
    assert "AuthError: Token ID is malformed or unknown" in wrong.stderr
    none = server.environ()
    for name in ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"):
        none.pop(name)
    none["PATH"] = os.environ["PATH"]
    lacking = subprocess.run(
        [sys.executable, "-c", CALL, "work", "0"], env=none, capture_output=True, text=True, timeout=60, check=False
    )
    assert "Token missing" in lacking.stderr
    with pytest.raises(ValueError, match="no app is called"):
        server.app("nothing")


def test_without_namespaces_links_stand_in() -> None:
    with ModalServer.start("--isolation", "none", "--grace", "1") as server:
        assert not server.isolated
        server.secret("sample-secret", SAMPLE_TOKEN="hush")
        server.deploy(SAMPLE)
        assert client(server, "work", "0").stdout == "0.0\n"
        script = 'import modal; print(modal.Function.from_name("sample", "files").remote("write", "a", "text"))'
        done = subprocess.run(
            [sys.executable, "-c", script], env=server.environ(), capture_output=True, text=True, timeout=60, check=False
        )
        if os.access("/", os.W_OK):
            assert done.stdout == "True\n"
        else:
            assert "The container could not be started" in done.stderr
    assert not os.path.lexists("/sample")


def test_a_namespace_is_had_where_unshare_works(server: ModalServer) -> None:
    can = False
    for options in ("-m", "-rm"):
        with contextlib.suppress(FileNotFoundError):
            can = can or subprocess.run(["unshare", options, "true"], capture_output=True, check=False).returncode == 0
    assert server.isolated or not can
