"""The server as a test holds it: start it, deploy to it, arm faults, read what it saw."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]
FOREIGN = {"MODAL_PROFILE", "MODAL_IS_REMOTE", *(f"{kind}_PROXY" for kind in ("HTTP", "HTTPS", "ALL"))}
FOREIGN |= {name.lower() for name in FOREIGN}
"""what of the user's environment would lead the client elsewhere"""


class ModalServer:
    """A server in a process of its own, or one that another process started (`attach`). Use as a context manager."""

    def __init__(self, about: Mapping[str, Any], process: subprocess.Popen[str] | None = None) -> None:
        self.env: dict[str, str] = dict(about["env"])
        """what a client process needs in its environment"""
        self.about = dict(about)
        self.control_url: str = about["control"]
        self.isolated: bool = about["isolated"]
        self.process = process

    @classmethod
    def start(cls, *options: str) -> ModalServer:
        """Start one; `options` as of `python -m tests.modal_server`. It ends with this process, however that ends."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.modal_server", "--until-stdin-closes", *options],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the Modal test server ended with {process.wait()} before it was ready")
        return cls(json.loads(line), process)

    @classmethod
    def attach(cls, about: str | Mapping[str, Any]) -> ModalServer:
        """The server that printed `about`."""
        return cls(json.loads(about) if isinstance(about, str) else about)

    def __enter__(self) -> ModalServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def control(self, operation: str, **arguments: Any) -> Any:
        request = urllib.request.Request(
            f"{self.control_url}/control/{operation}",
            data=json.dumps(arguments).encode(),
            headers={"authorization": self.env["MODAL_TOKEN_SECRET"]},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise ValueError(f"{operation}: {error.read().decode() or error}") from None

    # What to run against it

    def environ(self, **more: str) -> dict[str, str]:
        """The environment for a process that is a client."""
        inherited = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        return {**inherited, **self.env, **more}

    def modal(self, *arguments: str, **env: str) -> str:
        """Run the real `modal` command; returns what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "modal", *arguments],
            cwd=CHECKOUT,
            env=self.environ(**env),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"modal {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def deploy(self, module: str, **env: str) -> str:
        """`modal deploy -m module`, as a user does it."""
        return self.modal("deploy", "-m", module, **env)

    # What it saw

    @property
    def calls(self) -> list[dict[str, Any]]:
        """Every call: function, id, state, attempts (container, began, ended, outcome), inputs; see `describe.call`."""
        return self.calls_of("*")

    def calls_of(self, function: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.control("calls", function=function)
        return found

    @property
    def containers(self) -> list[dict[str, Any]]:
        """Every container there was: pid, state, reason it ended, the calls it runs."""
        found: list[dict[str, Any]] = self.control("containers")
        return found

    @property
    def running(self) -> list[dict[str, Any]]:
        return [each for each in self.containers if each["state"] != "dead"]

    def app(self, name: str) -> dict[str, Any]:
        """The app as the client sent it: see `describe.Describer`."""
        found: dict[str, Any] = self.control("app", name=name)
        return found

    def logs(self, call: str = "", container: str = "") -> str:
        """What was printed during a call, by a container, or by all."""
        return str(self.control("logs", call=call, container=container))

    # What to do to it

    def fault(self, kind: str, function: str = "*", **options: Any) -> int:
        """Arm a fault (see the package's docstring); returns its number in `faults`."""
        return int(self.control("fault", kind=kind, function=function, **options))

    @property
    def faults(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.control("faults")
        return found

    def clear_faults(self) -> None:
        self.control("clear_faults")

    def go_away(self, seconds: float = 0) -> int:
        """Reset all clients' connections, and refuse new ones for so long."""
        return int(self.control("away", seconds=seconds))

    def expire(self, call: str) -> None:
        self.control("expire", call=call)

    def secret(self, name: str, **env: str) -> None:
        self.control("secret", name=name, env=env)

    def seed(self, volume: str, source: Path, to: str = "/") -> int:
        """Fill a volume from a folder, large files linked rather than copied; returns how many files."""
        return int(self.control("seed", volume=volume, source=str(source), to=to))

    def volume(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.control("volume", name=name)
        return found

    def kill(self, container: str, signal: int = 9) -> None:
        self.control("kill", container=container, signal=signal)

    def scale_to_zero(self) -> None:
        """Let all idle containers go and wait until they have left."""
        self.control("scale_to_zero")
        self.until(lambda: all(each["running"] for each in self.running))

    def until(self, condition: Callable[[], object], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not so within {seconds} s; calls: {self.calls}; containers: {self.containers}")
            time.sleep(0.05)
