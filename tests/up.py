"""`steno up` as a test starts it: a process of its own, which may be killed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.deployed import QUICK, ROOT
from tests.ports import free_port
from tests.prefect_home import prefect_home


def gone(pids: set[int], timeout: float = 90) -> bool:
    deadline = time.monotonic() + timeout
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


class Up:
    """`steno up` in a process of its own."""

    def __init__(self, folder: Path, models: Path, *arguments: str, **variables: str) -> None:
        self.port = free_port()
        self.folder = folder
        self.output = folder / "up.log"
        env = {name: value for name, value in os.environ.items() if not name.startswith(("STENO_", "PREFECT_"))}
        env |= QUICK | {
            "STENO_HOME": str(folder / "home"),
            "STENO_MODELS_DIR": str(models),
            "PREFECT_HOME": str(prefect_home(folder / "prefect")),
            "PYTHONPATH": str(ROOT),
        }
        env |= variables
        # The page's port is one for all of this machine.
        asked = {"--api", "--no-server", "--no-worker"} & set(arguments) or "STENO_API__PORT" in variables
        arguments = arguments if asked else (*arguments, "--no-api")
        with self.output.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stenoflow.cli.main", "up", "--port", str(self.port), *arguments],
                env=env,
                stdout=log,
                stderr=log,
                cwd=folder,
                start_new_session=True,
            )

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def wait_until_said(self, text: str, timeout: float = 200) -> None:
        deadline = time.monotonic() + timeout
        while text not in self.said():
            assert self.process.poll() is None and time.monotonic() < deadline, self.said()
            time.sleep(0.2)

    def children(self) -> dict[str, int]:
        """The processes of the server, the worker and the courier."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            try:
                command = " ".join(child.cmdline())
            except psutil.Error:  # it has just ended
                continue
            for name, module in (
                ("server", "flows.local_server.server"),
                ("worker", "deployments.worker"),
                ("courier", "deployments.courier"),
            ):
                if module in command:
                    found[name] = child.pid
        return found

    def kill(self) -> None:
        """`kill -9`; what it started ends by itself."""
        running = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        started = {}
        for child in running:
            with contextlib.suppress(psutil.Error):  # it has just ended
                started[child.pid] = " ".join(child.cmdline())
        self.process.kill()
        self.process.wait()
        assert gone(set(started)), {pid: command for pid, command in started.items() if not gone({pid}, 0)}
