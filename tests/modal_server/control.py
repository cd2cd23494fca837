"""The control endpoint: `POST /control/<operation>` with a JSON object of arguments; the answer is JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from modal_proto import api_pb2

from . import containers, describe
from .faults import matches
from .objects import Secret
from .server import Server
from .state import new_id


class Control:
    def __init__(self, server: Server, stop: Callable[[], None]) -> None:
        self.server, self.stop_server = server, stop
        self.describer = describe.Describer(server.world, server.objects, server.files, server.rootfs)

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/control/{operation}", self.handle)]

    async def handle(self, request: web.Request) -> web.Response:
        operation = getattr(self, "do_" + request.match_info["operation"], None)
        if operation is None or request.headers.get("authorization") != self.server.world.token_secret:
            return web.Response(status=404)
        try:
            result = operation(**json.loads(await request.read() or b"{}"))
        except Exception as error:  # the test sees what is wrong with what it asked
            return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=400)
        return web.json_response(result)

    def do_calls(self, function: str = "*") -> list[dict[str, Any]]:
        described = [describe.call(each) for each in self.server.world.calls.values()]
        return [each for each in described if matches(function, each["function"])]

    def do_containers(self, function: str = "*") -> list[dict[str, Any]]:
        found = [containers.describe(each) for each in self.server.world.containers.values()]
        return [each for each in found if matches(function, each["function"])]

    def do_app(self, name: str) -> dict[str, Any]:
        matching = [each for each in self.server.world.apps.values() if each.name == name]
        app = self.server.world.deployed(name) or (matching[-1] if matching else None)
        if app is None:
            raise LookupError(f"no app is called {name!r}: {', '.join(each.name for each in self.server.world.apps.values())}")
        return self.describer.app(app)

    def do_bill(self, description: str, cost: str, day: str, environment: str = "main") -> None:
        """Have the workspace's billing report hold a row of that day (`2026-10-04`, UTC)."""
        item = api_pb2.WorkspaceBillingReportItem(description=description, cost=cost, environment_name=environment)
        item.interval.FromJsonString(f"{day}T00:00:00Z")
        self.server.world.bills.append(item)

    def do_logs(self, call: str = "", container: str = "") -> str:
        logs = self.server.logs
        return (
            logs.of_call(call) if call else logs.of_container(container) if container else "".join(x.text for x in logs.lines)
        )

    def do_fault(self, **options: Any) -> int:
        return self.server.faults.arm(**options)

    def do_faults(self) -> list[dict[str, Any]]:
        return self.server.faults.listed()

    def do_clear_faults(self) -> None:
        self.server.faults.clear()

    def do_away(self, seconds: float = 0) -> int:
        return self.server.go_away(seconds)

    def do_expire(self, call: str) -> None:
        self.server.world.calls[call].expired = True

    def do_secret(self, name: str, env: dict[str, str]) -> str:
        secrets = self.server.objects.secrets
        secret = next((each for each in secrets.values() if each.name == name), None) or Secret(new_id("st"), name)
        secret.env = env
        secrets[secret.id] = secret
        return secret.id

    def do_seed(self, volume: str, source: str, to: str = "/") -> int:
        return self.server.files.seed(self.server.volumes.named(volume), Path(source), to)

    def do_volume(self, name: str) -> dict[str, Any]:
        volume = self.server.volumes.named(name)
        return {"id": volume.id, "folder": str(volume.folder), "files": sorted(volume.marks), "commits": volume.commits}

    def do_kill(self, container: str, signal: int = 9) -> None:
        self.server.containers.kill(self.server.world.containers[container], "killed", signal)

    def do_scale_to_zero(self) -> None:
        """Let idle containers go, as when their scale-down window has passed."""
        for each in self.server.world.containers.values():
            if each.state == "ready" and not each.running:
                self.server.scheduler.scaling.drain(each, "idle")

    def do_forget_calls(self) -> None:
        done = [each for each in self.server.world.calls.values() if not each.unfinished]
        for each in done:
            del self.server.world.calls[each.id]

    def do_stop(self) -> None:
        self.stop_server()
