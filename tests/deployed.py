"""Stenoflow as it is deployed: a real Prefect server and a real worker, both processes of their own, that tests may kill.

    with Deployed.start(tmp_path) as deployed:
        run = deployed.submit({"source": str(recording), "output_dir": str(tmp_path)})
        deployed.wait(run, {"COMPLETED"})
        assert deployed.executions()["asr"] == 1

Stages are run by `tests.stub_compute`: set what they do with `deployed.plan(seconds={"asr": 2})`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from deployments import processes
from deployments.processes import Child
from deployments.up import server_environment, worker_environment
from infra.settings import StenoSettings
from tests import stub_compute
from tests.prefect_home import prefect_home

ROOT = Path(__file__).parents[1]
T = TypeVar("T")
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
QUICK = {
    # The server's loops, at the pace of a test.
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "2",
    "PREFECT_SERVER_SERVICES_FOREMAN_LOOP_SECONDS": "2",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "2",
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT1S",
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "1",
    # The worker's and the run's.
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_WORKER_PREFETCH_SECONDS": "1",
    "PREFECT_WORKER_HEARTBEAT_SECONDS": "3",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_CLIENT_MAX_RETRIES": "12",
    "STENO_RETRY__DELAY": "0.05",
}


@dataclass
class Deployed:
    """A server and a worker. Everything they write is under `home`."""

    home: Path
    url: str
    env: dict[str, str]
    server: Child
    worker: Child
    deployments: dict[str, str] = field(default_factory=dict)
    """Full name (`transcribe/one-recording`) to id."""

    @classmethod
    @contextlib.contextmanager
    def start(
        cls, home: Path, env: dict[str, str] | None = None, *, ui: bool = False, worker: bool = True, limit: int = 4
    ) -> Iterator[Deployed]:
        """Start a server with its own database, register the deployments, start a worker; afterwards leave no process.

        `env` may hold any `STENO_…` or `PREFECT_…` variable, as `PREFECT_SERVER_DATABASE_CONNECTION_URL`.
        """
        home.mkdir(parents=True, exist_ok=True)
        listener = processes.listen("127.0.0.1", 0)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        given = _environment(home, url, ui) | (env or {})
        with _process_environment(given, url):
            # As `steno up` starts them, where the test does not say otherwise.
            environment = server_environment(StenoSettings(), url, worker_environment(given))
        deployed = cls(
            home,
            url,
            environment,
            processes.server(listener, environment, home / "server.log"),
            processes.worker("stenoflow", "test-worker", limit, environment, home / "worker.log"),
        )
        deployed.plan()
        try:
            if environment.get("PREFECT_SERVER_DATABASE_CONNECTION_URL", "sqlite").startswith("sqlite"):
                prefect_home(Path(environment["PREFECT_HOME"]))
            deployed.server.start()
            processes.wait_healthy(url, deployed.server, 180)
            deployed.deploy()
            if worker:
                deployed.worker.start()
            yield deployed
        finally:
            listener.close()
            deployed.stop()

    # -- what the server is asked ---------------------------------------------------------------------------------------

    def request(self, method: str, path: str, **json_body: Any) -> httpx.Response:
        """A call of the REST API, as the UI makes it."""
        with httpx.Client(trust_env=False, timeout=60, transport=httpx.HTTPTransport(retries=5)) as client:
            return client.request(method, f"{self.url}{path}", json=json_body or None)

    def call(self, method: str, path: str, **json_body: Any) -> Any:
        """The same, and its answer. Fails on any status above 399."""
        response = self.request(method, path, **json_body)
        assert response.status_code < 400, f"{method} {path}: {response.status_code} {response.text[:500]}"
        return response.json() if response.content else None

    def client(self) -> Any:
        """Prefect's own client for this server (`async with deployed.client() as client`)."""
        from prefect.client.orchestration import PrefectClient

        return PrefectClient(self.url)

    def deploy(self) -> list[Any]:
        """Register everything through the product's own code, with the settings of `env`; what was changed."""
        from deployments.register import register

        async def registered() -> list[Any]:
            async with self.client() as client:
                return await register(client, StenoSettings())

        with self.environment():
            changes = _run(registered())
        for found in self.call("POST", "/deployments/filter", limit=200):
            flow = self.call("GET", f"/flows/{found['flow_id']}")
            self.deployments[f"{flow['name']}/{found['name']}"] = found["id"]
        return changes

    def submit(self, request: dict[str, Any] | None = None, deployment: str = "transcribe/one-recording", **fields: Any) -> str:
        """Create a run of a deployment, as the UI's form does; its id. `parameters=` replaces `{"request": request}`."""
        body = {"parameters": {"request": request} if request is not None else {}, "state": {"type": "SCHEDULED"}} | fields
        body.setdefault("idempotency_key", str(uuid.uuid4()))  # a server that has only just come back may take its time
        path, patience = f"/deployments/{self.deployments[deployment]}/create_flow_run", 4
        while True:
            try:
                return str(self.call("POST", path, **body)["id"])
            except httpx.TimeoutException:
                patience -= 1
                if not patience:
                    raise

    def run(self, run: str) -> dict[str, Any]:
        """The flow run as the API shows it."""
        found: dict[str, Any] = self.call("GET", f"/flow_runs/{run}")
        return found

    def runs(self, deployment: str | None = None, **filters: Any) -> list[dict[str, Any]]:
        body: dict[str, Any] = {"sort": "START_TIME_DESC", "limit": 200} | filters
        if deployment:
            body["deployments"] = {"id": {"any_": [self.deployments[deployment]]}}
        found: list[dict[str, Any]] = self.call("POST", "/flow_runs/filter", **body)
        return found

    def task_runs(self, run: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call(
            "POST", "/task_runs/filter", flow_runs={"id": {"any_": [run]}}, sort="EXPECTED_START_TIME_ASC", limit=200
        )
        return found

    def states(self, run: str) -> list[str]:
        """The names of all states the run has had, in order."""
        found = self.call("GET", f"/flow_run_states/?flow_run_id={run}")
        return [state["name"] for state in sorted(found, key=lambda state: state["timestamp"])]

    def logs(self, run: str) -> str:
        found = self.call("POST", "/logs/filter", logs={"flow_run_id": {"any_": [run]}}, sort="TIMESTAMP_ASC", limit=200)
        return "\n".join(line["message"] for line in found)

    def artifacts(self, run: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call(
            "POST", "/artifacts/filter", artifacts={"flow_run_id": {"any_": [run]}}, limit=200
        )
        return found

    def retry(self, run: str) -> dict[str, Any]:
        """What the UI's Retry button does."""
        state = {"type": "SCHEDULED", "name": "AwaitingRetry"}
        answer: dict[str, Any] = self.call("POST", f"/flow_runs/{run}/set_state", state=state, force=False)
        assert answer["status"] == "ACCEPT", answer
        return answer

    def cancel(self, run: str) -> None:
        """What the UI's Cancel button does."""
        self.call("POST", f"/flow_runs/{run}/set_state", state={"type": "CANCELLING", "name": "Cancelling"}, force=False)

    def wait(self, run: str, states: Iterable[str] = FINAL, timeout: float = 120) -> dict[str, Any]:
        """The run once its state's type or name is one of `states`. Fails when that takes longer than `timeout` seconds."""
        wanted, deadline, found = set(states), time.monotonic() + timeout, None
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError, AssertionError):
                found = self.run(run)
                if {found["state_type"], found["state_name"]} & wanted:
                    return found
            time.sleep(0.2)
        state = (found or {}).get("state") or {}
        raise AssertionError(
            f"after {timeout:.0f} s the run is {state.get('name')} ({state.get('message')}), not one of {sorted(wanted)}\n"
            f"states: {self.states(run)}\nlogs: {self.logs(run)[-3000:]}\nworker: {self.tail('worker')}"
        )

    # -- the stages -----------------------------------------------------------------------------------------------------

    def plan(self, **changes: Any) -> None:
        """What the stages do from now on; see `tests.stub_compute`. Without arguments: each succeeds at once."""
        plan = {"log": str(self.home / "stages.log")} | changes
        aside = self.home / "plan.aside"
        aside.write_text(json.dumps(plan))
        aside.replace(self.home / "plan.json")

    def executions(self) -> Counter[str]:
        """How often each stage was begun, over all processes."""
        return stub_compute.executions(self.home / "stages.log")

    def events(self, event: str) -> list[dict[str, Any]]:
        """The stages' log: `begin`, `progress`, `end` or `cancelled`."""
        return stub_compute.events(self.home / "stages.log", event)

    def wait_for_stage(self, stage: str, event: str = "progress", timeout: float = 90, *, after: float = 0) -> dict[str, Any]:
        """The first such event of that stage, once it has happened."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for line in self.events(event):
                if line["stage"] == stage and line["at"] > after:
                    return line
            time.sleep(0.05)
        raise AssertionError(f"no {event} of {stage} after {timeout:.0f} s; worker: {self.tail('worker')}")

    def wait_for_stage_of(self, run: str, stage: str, timeout: float = 90) -> dict[str, Any]:
        """The first progress of that run's stage."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for line in self.events("progress"):
                if (line["run"], line["stage"]) == (run, stage):
                    return line
            time.sleep(0.05)
        raise AssertionError(f"{stage} of {run} not begun after {timeout:.0f} s; worker: {self.tail('worker')}")

    # -- the processes --------------------------------------------------------------------------------------------------

    def flow_pids(self, run: str | None = None) -> list[int]:
        """The processes that execute flow runs of this server (that one, when given)."""
        return [process.pid for process in psutil.process_iter() if self._executes(process, run)]

    def _executes(self, process: psutil.Process, run: str | None) -> bool:
        try:
            env = process.environ()
        except (psutil.Error, OSError):
            return False
        if env.get("PREFECT_API_URL") != self.url or process.status() == psutil.STATUS_ZOMBIE:
            return False
        if run is None:
            return "PREFECT__FLOW_RUN_ID" in env or "deployments.execute" in process.cmdline()
        return env.get("PREFECT__FLOW_RUN_ID") == run or process.pid == pid_at_work(Path(self.env["STENO_HOME"]), run)

    def kill_flow(self, run: str | None = None) -> None:
        """`kill -9` of what executes the run (all runs)."""
        for pid in self.flow_pids(run):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_worker(self) -> None:
        """`kill -9` of the worker alone; the flow processes it started live on, as they would."""
        _kill(self.worker)

    def kill_server(self) -> None:
        _kill(self.server)

    def restart_worker(self) -> None:
        self.worker.start()

    def restart_server(self) -> None:
        """Start it again on the same port and database, and wait until it answers."""
        self.server.start()
        processes.wait_healthy(self.url, self.server, 180)

    def stop(self) -> None:
        """End everything that was started, flow processes included."""
        if self.worker.exit_code is None:
            self.worker.stop(0.1)
        self.kill_flow()
        if self.server.exit_code is None:
            self.server.stop(5)

    def tail(self, name: str, lines: int = 40) -> str:
        """The end of the server's or the worker's output."""
        path = self.home / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    @contextlib.contextmanager
    def environment(self) -> Iterator[None]:
        """This process with the deployment's environment, for code that reads settings and for Prefect's client."""
        with _process_environment(self.env, self.url):
            yield


def pid_at_work(home: Path, run: str) -> int | None:
    """The process that has marked the run as its own (`flows.orphans.marked`)."""
    try:
        return int((home / "running" / run).read_text().split("/")[3])
    except (OSError, IndexError):
        return None


@contextlib.contextmanager
def _process_environment(env: dict[str, str], url: str) -> Iterator[None]:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from infra.settings import get_settings

    before = dict(os.environ)
    os.environ.update(env)
    get_settings.cache_clear()
    try:
        with temporary_settings({PREFECT_API_URL: url}):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        get_settings.cache_clear()


def _environment(home: Path, url: str, ui: bool) -> dict[str, str]:
    """What the processes see: nothing of the caller's Prefect, everything under `home`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "STENO_"))}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return inherited | {
        "PYTHONPATH": os.pathsep.join(paths),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))),
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_PROFILES_PATH": str(home / "prefect" / "profiles.toml"),
        "PREFECT_API_URL": url,
        "PREFECT_UI_ENABLED": str(int(ui)),
        "PREFECT_UI_API_URL": url,
        "PREFECT_UI_STATIC_DIRECTORY": str(home / "prefect" / "ui"),
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "STENO_HOME": str(home / "steno"),
        "STENO_COMPUTE__BACKEND": stub_compute.BACKEND,
        "STUB_PLAN": str(home / "plan.json"),
        **QUICK,
    }


def _kill(child: Child) -> None:
    if child.exit_code is None:
        os.kill(child.pid, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(child.pid)], timeout=10)
        child.stop(0.1)


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, also where an event loop runs already."""
    from concurrent.futures import ThreadPoolExecutor
    from contextvars import copy_context

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(copy_context().run, asyncio.run, coroutine).result()
