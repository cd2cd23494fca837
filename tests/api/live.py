"""The API as it is served: a process of its own (`steno api`), beside a real Prefect server and a real worker.

    def test_something(live_api: LiveApi) -> None:
        job = live_api.submit({"audio_url": live_api.recording("talk.wav")})
        assert live_api.ended(job)["status"] == "completed"

Stages are stood in for by `tests.stub_compute` (`live_api.deployed.plan(seconds={"asr": 2})`). What is fetched is fetched for
real: `recording` writes a wav file of its own content and gives the URL under which a server on loopback hands it out.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from tests.deployed import Deployed

ENDED = {"completed", "failed", "canceled"}


@dataclass
class LiveApi:
    """A served API, and what it stands on."""

    deployed: Deployed
    files: Path
    """What is in here is handed out under `files_url`."""
    files_url: str
    env: dict[str, str]
    url: str = ""
    process: subprocess.Popen[bytes] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    _made: int = 0

    @classmethod
    @contextlib.contextmanager
    def start(cls, home: Path, env: dict[str, str] | None = None, **options: Any) -> Iterator[LiveApi]:
        """Server, worker, API and a file server; afterwards no process is left. `options` are `Deployed.start`'s."""
        files = home / "files"
        files.mkdir(parents=True)
        handler = functools.partial(_Files, directory=str(files))
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            port = server.server_address[1]
            extra = {"STENO_NET__ALLOW_HOSTS": f'["127.0.0.1:{port}"]', "STENO_API__PORT": "0"} | (env or {})
            with Deployed.start(home, extra, **options) as deployed:
                live = cls(deployed, files, f"http://127.0.0.1:{port}", deployed.env)
                try:
                    live.start_api()
                    yield live
                finally:
                    live.stop_api()
                    server.shutdown()

    # -- the process --------------------------------------------------------------------------------------------------

    def start_api(self, timeout: float = 240) -> None:
        """Start `steno api`, and wait until it answers; on the port it had before, if it had one."""
        log = self.deployed.home / "api.log"
        env = self.env | ({"STENO_API__PORT": self.url.rpartition(":")[2]} if self.url else {})
        before = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stenoflow.cli.main", "api"],
                env=env,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
            )
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self.process.poll() is None:
            said = re.search(r"API: (http://\S+)", log.read_text(errors="replace")[before:])
            if said:
                self.url = said[1]
                with contextlib.suppress(httpx.HTTPError):
                    if self.request("GET", "/health").status_code == 200:
                        return
            time.sleep(0.1)
        raise AssertionError(f"the API did not start: {log.read_text(errors='replace')[-2000:]}")

    def stop_api(self) -> int | None:
        """SIGTERM, and its exit code."""
        if self.process is None or self.process.poll() is not None:
            return None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill_api()
            return -9

    def kill_api(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def log(self) -> str:
        """What the API's process said."""
        return (self.deployed.home / "api.log").read_text(errors="replace")

    # -- what callers do ------------------------------------------------------------------------------------------------

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One call, with `headers` (a bearer key) where they are set."""
        headers, timeout = self.headers | options.pop("headers", {}), options.pop("timeout", 60)
        # It is no https: reading the certificates takes longer than the call.
        with httpx.Client(base_url=self.url, trust_env=False, verify=False, timeout=timeout) as client:
            return client.request(method, path, headers=headers, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def submit(self, body: dict[str, Any], **options: Any) -> str:
        """The id of a new job."""
        answer = self.post("/transcribes", json=body, **options)
        assert answer.status_code == 202, f"{answer.status_code} {answer.text}"
        return str(answer.json()["job_id"])

    def upload(self, path: Path, **fields: Any) -> str:
        """The id of a new job of that file."""
        with path.open("rb") as file:
            answer = self.post("/transcribes", files={"file": (path.name, file)}, data=fields)
        assert answer.status_code == 202, f"{answer.status_code} {answer.text}"
        return str(answer.json()["job_id"])

    def job(self, job_id: str, **options: Any) -> dict[str, Any]:
        """The job as the API shows it."""
        answer = self.get(f"/transcribes/{job_id}", **options)
        assert answer.status_code == 200, f"{answer.status_code} {answer.text}"
        found: dict[str, Any] = answer.json()
        return found

    def ended(self, job_id: str, timeout: float = 120) -> dict[str, Any]:
        """The job once it has ended."""
        return self.until(job_id, ENDED, timeout)

    def until(self, job_id: str, statuses: set[str], timeout: float = 120) -> dict[str, Any]:
        """The job once it has one of these statuses."""
        deadline, job = time.monotonic() + timeout, {}
        while time.monotonic() < deadline:
            if (job := self.job(job_id))["status"] in statuses:
                return job
            time.sleep(0.2)
        raise AssertionError(
            f"after {timeout:.0f} s the job is {job}\nworker: {self.deployed.tail('worker')}\nAPI: {self.log()[-2000:]}"
        )

    # -- recordings -----------------------------------------------------------------------------------------------------

    def file(self, name: str = "", seconds: float = 1.0) -> Path:
        """A wav file of its own content."""
        self._made += 1
        path = self.files / (name or f"recording-{self._made}.wav")
        samples = int(16_000 * seconds)
        with wave.open(str(path), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(16_000)
            out.writeframes(self._made.to_bytes(2, "little") * samples)
        return path

    def recording(self, name: str = "", seconds: float = 1.0) -> str:
        """The URL of such a file."""
        return f"{self.files_url}/{self.file(name, seconds).name}"


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        """Into no test's output."""
