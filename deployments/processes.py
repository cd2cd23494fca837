"""The server and the worker of one machine as child processes, which end when their parent does, however that ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from flows.local_server import database
from infra.listening import listen
from stenoflow import isolated
from stenoflow.errors import ApiUnreachable

__all__ = ["Child", "api", "listen", "server", "wait_healthy", "worker"]


class Child:
    """A process in a session of its own, so that a terminal's Ctrl-C reaches only the parent, which stops it in order."""

    def __init__(
        self,
        name: str,
        command: list[str],
        env: Mapping[str, str],
        log: Path,
        *,
        echo: bool = False,
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._env = dict(env)
        self._echo = echo
        self._pass_fds = pass_fds
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        for folder in (self.log.parent, *(Path(self._env[name]) for name in ("PREFECT_HOME",) if name in self._env)):
            folder.mkdir(parents=True, exist_ok=True)  # SQLite does not make the folder of its database
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                # Held open by us: the child reads it, and ends when it closes.
                stdin=subprocess.PIPE,
                stdout=None if self._echo else log,
                stderr=None if self._echo else log,
                env=self._env,
                pass_fds=self._pass_fds,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll() if self._process else 0

    def stop(self, grace: float) -> None:
        """Ask it to end, and after `grace` seconds end it; harmless when it has ended."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(grace)
            except subprocess.TimeoutExpired:
                self.kill()
        self._close()

    def kill(self) -> None:
        """End it and what it started at once."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._close()

    def _close(self) -> None:
        stdin: IO[bytes] | None = self._process.stdin if self._process else None
        if stdin is not None:
            with contextlib.suppress(OSError):
                stdin.close()

    def last_line(self, limit: int | None = 300) -> str:
        """What it said last, for a sentence about why it ended."""
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return lines[-1].strip()[:limit] if lines else ""


def server(
    listener: socket.socket, env: Mapping[str, str], log: Path, *, names: tuple[str, ...] = (), echo: bool = False
) -> Child:
    """Prefect's API, UI and services on that socket; `names` are hosts that it answers to besides its address."""
    command = isolated.command("flows.local_server.server", "lasting", str(listener.fileno()), *names)
    return Child("server", command, env, log, echo=echo, pass_fds=(listener.fileno(),))


def worker(pool: str, name: str, limit: int, env: Mapping[str, str], log: Path, *, echo: bool = False) -> Child:
    """A worker of the pool that runs at most `limit` runs at once; 0 for any number."""
    return Child("worker", isolated.command("deployments.worker", pool, name, str(limit)), env, log, echo=echo)


def courier(pool: str, name: str, env: Mapping[str, str], log: Path, *, echo: bool = False) -> Child:
    """What delivers webhooks."""
    return Child("courier", isolated.command("deployments.courier", pool, name), env, log, echo=echo)


def api(env: Mapping[str, str], log: Path, *, echo: bool = False) -> Child:
    """The REST API, where STENO_API__HOST and STENO_API__PORT say."""
    return Child("api", isolated.command("api.service"), env, log, echo=echo)


def wait_healthy(url: str, child: Child, timeout: float, until: Callable[[], bool] = lambda: False) -> None:
    """Return when the API answers, or `until` says so. Raises ApiUnreachable when it does not in time, or its process ends."""
    import httpx

    deadline = time.monotonic() + timeout
    with httpx.Client(trust_env=False) as client:
        while time.monotonic() < deadline and child.exit_code is None:
            with contextlib.suppress(httpx.HTTPError):
                if client.get(f"{url}/health", timeout=5.0).status_code == 200:
                    return
            if until():
                return
            time.sleep(0.1)
    if (trouble := database.error_in(child.last_line(limit=None))) is not None:
        raise trouble
    raise ApiUnreachable(f"Prefect's server did not start ({child.last_line()}); see its log, {child.log}.")
