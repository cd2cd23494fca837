"""What others can do to a machine on which `steno up --api` runs: web pages, other machines, and callers of Prefect's API.

Everything is sent over HTTP, as an attacker would. What would be executed leaves a file `pwned`; nothing may.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from tests.deployed import pid_at_work
from tests.ports import free_port
from tests.up import Up

pytestmark = pytest.mark.slow
EVIL = "https://evil.example"
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("doors")
    up = Up(folder, models_dir, "--api", STENO_API__PORT=str(free_port()))
    try:
        up.wait_until_said("Ctrl-C stops everything")
        yield up
    finally:
        up.kill()


@pytest.fixture
def pwned(up: Up) -> Iterator[Path]:
    """The file that must not be there, whatever the test has tried."""
    mark = up.folder / "pwned"
    yield mark
    assert not mark.exists()


def call(up: Up, method: str, path: str, **options: Any) -> httpx.Response:
    return httpx.request(method, f"{up.api}{path}", timeout=60, trust_env=False, verify=False, **options)


def answered(up: Up, method: str, path: str, body: Any = None, **options: Any) -> Any:
    """What the API gives to a caller that is no browser."""
    answer = call(up, method, path, json=body, **options)
    assert answer.status_code < 400, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
    return answer.json() if answer.content else None


def deployment(up: Up, name: str = "transcribe/one-recording") -> dict[str, Any]:
    found: dict[str, Any] = answered(up, "GET", f"/deployments/name/{name}")
    return found


def run_count(up: Up) -> int:
    return int(answered(up, "POST", "/flow_runs/count", {}))


def run_of(up: Up, path: str, **body: Any) -> str:
    return str(answered(up, "POST", f"{path}/create_flow_run", {"state": {"type": "SCHEDULED"}, **body})["id"])


def until(there: Callable[[], Any], timeout: float = 120) -> Any:
    deadline = time.monotonic() + timeout
    while not (found := there()):
        assert time.monotonic() < deadline, f"not there after {timeout:.0f} s"
        time.sleep(0.2)
    return found


def ended(up: Up, run: str, **options: Any) -> dict[str, Any]:
    def state() -> dict[str, Any] | None:
        found: dict[str, Any] = answered(up, "GET", f"/flow_runs/{run}", **options)
        return found if found["state_type"] in FINAL else None

    found: dict[str, Any] = until(state)
    return found


# -- a page that somebody on the machine has open --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Origin": "http://localhost:9"},
        {"Origin": EVIL, "Content-Type": "text/plain"},  # what a form can post, without asking first
        {"Origin": EVIL, "Content-Type": "application/x-www-form-urlencoded"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Referer": f"{EVIL}/page"},
    ],
)
def test_a_page_of_another_site_starts_nothing(up: Up, pwned: Path, headers: dict[str, str]) -> None:
    before, flow = run_count(up), deployment(up)
    run = {"job_variables": {"command": f"touch {pwned}"}, "parameters": {"request": {"source": "x.wav"}}}
    for method, path, body in (
        ("POST", f"/deployments/{flow['id']}/create_flow_run", run),
        ("POST", "/flow_runs/filter", {}),
        ("PATCH", f"/deployments/{flow['id']}", {"entrypoint": "evil.py:evil"}),
        ("DELETE", f"/deployments/{flow['id']}", {}),
    ):
        answer = call(up, method, path, headers=headers, content=json.dumps(body))
        assert answer.status_code == 403, f"{method} {path}"
        assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert run_count(up) == before
    assert deployment(up)["entrypoint"] == flow["entrypoint"]


def test_a_browser_that_asks_first_is_told_of_no_other_site(up: Up) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    for path in ("/flow_runs/filter", "/deployments/x/create_flow_run", "/health"):
        refused = call(up, "OPTIONS", path, headers={"Origin": EVIL, **asked})
        assert refused.status_code == 403
        assert "access-control-allow-origin" not in refused.headers
    own = f"http://127.0.0.1:{up.port}"
    allowed = call(up, "OPTIONS", "/flow_runs/filter", headers={"Origin": own, **asked})
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (204, own)
    assert "access-control-allow-origin" not in call(up, "GET", "/health").headers


@pytest.mark.parametrize("host", ["rebind.evil.example", "127.0.0.1.evil.example:80", "localhost@evil.example"])
def test_a_name_that_leads_here_is_not_answered_to(up: Up, host: str) -> None:
    for request in (f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n", f"GET /api/health HTTP/1.1\r\nHost: {host}\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", up.port), 30) as connection:
            connection.sendall(request.encode())
            assert connection.recv(65_536).split(b"\r\n")[0].split()[1] in (b"421", b"400")


def test_a_page_of_another_site_hears_no_events_and_no_logs(up: Up) -> None:
    async def opened(path: str, **headers: str) -> bool:
        url = f"{up.api.replace('http', 'ws', 1)}{path}"
        try:
            async with websockets.connect(
                url, additional_headers=headers, subprotocols=[websockets.Subprotocol("prefect")], proxy=None
            ) as stream:
                await stream.send(json.dumps({"type": "auth", "token": None}))
                return bool(json.loads(await stream.recv())["type"] == "auth_success")
        except websockets.InvalidStatus as refused:
            assert refused.response.status_code == 403
            return False

    for path in ("/events/out", "/events/in", "/logs/out"):
        assert not asyncio.run(opened(path, Origin=EVIL)), path
        assert not asyncio.run(opened(path, Origin="null")), path
    assert asyncio.run(opened("/events/out", Origin=f"http://127.0.0.1:{up.port}"))
    assert asyncio.run(opened("/events/out"))


def test_prefects_own_pages_work_by_every_name_of_loopback(up: Up) -> None:
    for name in ("127.0.0.1", "localhost"):
        page = f"http://{name}:{up.port}"
        # As a browser asks: the page by its address, what belongs to it as the page's own.
        own = {"Sec-Fetch-Site": "same-origin", "Referer": f"{page}/", "Host": f"{name}:{up.port}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{up.port}", trust_env=False, timeout=60) as browser:
            opened = browser.get(
                "/",
                headers={"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Accept": "text/html", "Host": own["Host"]},
                follow_redirects=True,
            )
            assert opened.status_code == 200 and "Prefect" in opened.text
            assert "frame-ancestors 'self'" in opened.headers["content-security-policy"]  # no other page can frame it
            scripts = [part.split('"')[0] for part in opened.text.split('src="')[1:]]
            assert scripts
            for script in scripts:
                assert browser.get(script, headers=own | {"Origin": page}).status_code == 200, script
            assert browser.get("/ui-settings", headers=own).json()["auth"] is None
            runs = browser.post("/api/flow_runs/filter", headers=own | {"Origin": page}, json={"limit": 5})
            assert runs.status_code == 200
            assert runs.headers["access-control-allow-origin"] == page


# -- a caller who reaches the API ------------------------------------------------------------------------------------------


def test_no_run_deployment_or_pool_says_what_is_executed(up: Up, pwned: Path) -> None:
    """With Prefect's own template put back into the pool, which takes a command and an environment from anybody."""
    flow, request = deployment(up), {"request": {"source": str(up.folder / "nowhere.wav")}}
    evil: dict[str, Any] = {
        "command": f"touch {pwned}",
        "env": {"PATH": str(up.folder), "STENO_COMPUTE__BACKEND": "evil:compute", "PYTHONPATH": str(up.folder)},
        "working_dir": str(up.folder),
    }
    path = f"/deployments/{flow['id']}"
    for given in (evil, {"name": "x"}, {"labels": {"a": "b"}}, {"stream_output": False}):
        refused = call(up, "POST", f"{path}/create_flow_run", json={"parameters": request, "job_variables": given})
        assert refused.status_code == 422, given

    (up.folder / "evil.py").write_text(f"from pathlib import Path\nPath({str(pwned)!r}).touch()\n")
    pool = answered(up, "GET", "/work_pools/stenoflow")
    open_template = {
        "variables": {"type": "object", "properties": {name: {"default": value} for name, value in evil.items()}},
        "job_configuration": {name: f"{{{{ {name} }}}}" for name in evil},
    }
    answered(up, "PATCH", "/work_pools/stenoflow", {"base_job_template": open_template})
    answered(up, "PATCH", path, {"job_variables": evil})
    time.sleep(5)  # until the worker has looked at its pool again
    run = run_of(up, path, parameters=request, job_variables=evil)
    answered(up, "PATCH", f"/flow_runs/{run}", {"job_variables": evil})
    found = ended(up, run)
    # It was executed, as ours: there is no such file.
    assert found["state_type"] == "FAILED"
    assert "nowhere.wav" in found["state"]["message"]

    answered(up, "PATCH", "/work_pools/stenoflow", {"base_job_template": pool["base_job_template"]})
    answered(up, "PATCH", path, {"job_variables": {}})


def test_code_of_others_is_not_executed(up: Up, pwned: Path) -> None:
    flow, folder = deployment(up), up.folder
    (folder / "evil.py").write_text(
        f"from pathlib import Path\nPath({str(pwned)!r}).touch()\nfrom prefect import flow\n@flow\ndef evil(): pass\n"
    )
    steps = [{"prefect.deployments.steps.run_shell_script": {"script": f"touch {pwned}"}}]
    runs = {}
    for name, fields in {
        "file": {"entrypoint": "evil.py:evil", "path": str(folder)},
        "module": {"entrypoint": "subprocess.getoutput", "path": str(folder)},
        "steps": {"entrypoint": "evil.py:evil", "pull_steps": steps},
    }.items():
        made = answered(
            up, "POST", "/deployments/", {"name": name, "flow_id": flow["flow_id"], "work_pool_name": "stenoflow", **fields}
        )
        runs[name] = run_of(up, f"/deployments/{made['id']}", parameters={"cmd": f"touch {pwned}"})
    # With the entrypoint of ours, what else the deployment says counts for nothing.
    ours = {"name": "ours", "flow_id": flow["flow_id"], "work_pool_name": "stenoflow", "entrypoint": flow["entrypoint"]}
    made = answered(up, "POST", "/deployments/", ours | {"pull_steps": steps, "path": str(folder)})
    missing = {"request": {"source": str(folder / "missing.wav")}}
    runs["ours"] = run_of(up, f"/deployments/{made['id']}", parameters=missing)

    for name, run in runs.items():
        found = ended(up, run)
        assert found["state_type"] == "FAILED", name
        expected = "missing.wav" if name == "ours" else "Not executed. Workers only execute Stenoflow's flows"
        assert expected in found["state"]["message"], name


def test_what_a_deployment_is_changed_to_while_its_run_is_at_work_is_not_executed(up: Up, pwned: Path) -> None:
    """When the run's process dies, Prefect's worker would load the code that the deployment names now, for its hooks."""
    flow = deployment(up)
    (up.folder / "evil.py").write_text(
        f"from pathlib import Path\nPath({str(pwned)!r}).touch()\nfrom prefect import flow\n@flow\ndef evil(): pass\n"
    )
    os.mkfifo(up.folder / "slow.wav")  # nothing comes of it
    run = run_of(up, f"/deployments/{flow['id']}", parameters={"request": {"source": str(up.folder / "slow.wav")}})

    until(lambda: answered(up, "GET", f"/flow_runs/{run}")["state_type"] == "RUNNING")
    answered(up, "PATCH", f"/deployments/{flow['id']}", {"entrypoint": "evil.py:evil", "path": str(up.folder)})
    executing = until(lambda: pid_at_work(up.folder / "home", run))
    os.kill(executing, signal.SIGKILL)
    found = until(lambda: (now := answered(up, "GET", f"/flow_runs/{run}"))["state_type"] == "FAILED" and now)
    assert "Not executed." in found["state"]["message"]
    states = answered(up, "GET", f"/flow_run_states/?flow_run_id={run}")
    assert "Crashed" in {state["name"] for state in states}
