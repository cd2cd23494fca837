"""The server put together: its services, its gate, its two ports, its clean end."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from google.protobuf.message import Message
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from .apps import AppService
from .blobs import Blobs
from .calls import CallService
from .containers import Containers
from .faults import Fault, Faults
from .functions import FunctionService
from .images import ImageService
from .logs import LogService, LogStore
from .objects import Objects
from .queues import QueueService
from .rootfs import Rootfs, why_not_isolated
from .rpc import Caller, Dispatcher, Endpoint, refuse
from .scaling import Limits
from .scheduler import Scheduler
from .state import Input, World
from .tasks import TaskService
from .volume_files import VolumeFiles
from .volumes import VolumeService
from .web import Web

LOOPBACK = "127.0.0.1"
UPLOAD_LIMIT = 4 * 1024**3
ANONYMOUS = {"TokenFlowCreate", "TokenFlowWait"}
"""what a client without a token may call"""


@dataclass(frozen=True)
class Options:
    folder: Path
    port: int = 0
    isolation: str = "auto"
    """auto, namespace (or fail) or none"""
    container_env: dict[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)


class Server:
    def __init__(self, options: Options) -> None:
        self.options, folder = options, options.folder
        for name in ("files", "blobs", "volumes", "trees", "c"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        refused = "it was not asked for" if options.isolation == "none" else why_not_isolated(folder)
        if options.isolation == "namespace" and refused:
            raise OSError(f"No mount namespace can be had here ({refused}); --isolation none does without, with links.")
        token = secrets.token_hex(8)
        self.world = World(folder, f"ak-{token}", f"as-{token}")
        self.faults, self.logs = Faults(), LogStore(self.world)
        self.rootfs = Rootfs(folder, folder / "files", isolated=not refused)
        self.files = VolumeFiles(folder / "volumes")
        self.blobs = Blobs(folder / "blobs", self.files)
        self.objects = Objects(self.world)
        containers = Containers(self.world, self.rootfs, self.files, self.objects, self.logs, options.container_env)
        self.containers = containers
        self.scheduler = Scheduler(self.world, containers, self.faults, self.logs, options.limits)
        self.scheduler.disconnect = self._disconnect
        self.web = Web(self.world, self.scheduler)
        self.functions = FunctionService(self.world, self.scheduler, self.web.url)
        self.volumes = VolumeService(self.world, self.files, self.rootfs, self.blobs)
        services = [
            AppService(self.world, self.scheduler, self.objects),
            self.functions,
            CallService(self.world, self.scheduler),
            TaskService(self.world, self.scheduler, containers),
            ImageService(self.world, self.rootfs, folder / "blobs"),
            LogService(self.world, self.logs),
            self.volumes,
            self.objects,
            QueueService(),
            self.blobs,
        ]
        self.dispatcher = containers.dispatcher = Dispatcher(services, self._gate, self._loses)
        self.door = Endpoint(self.dispatcher)
        self.old_doors: list[Endpoint] = []
        self.port = 0
        self.away_until = 0.0
        self.returning: asyncio.Task[None] | None = None

    async def start(self, routes: list[web.RouteDef]) -> None:
        app = web.Application(client_max_size=UPLOAD_LIMIT)
        app.add_routes([*routes, *self.blobs.routes(), *self.web.routes()])
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, LOOPBACK, 0)
        await site.start()
        assert self.runner.addresses
        self.blobs.base = self.web.base = f"http://{LOOPBACK}:{self.runner.addresses[0][1]}"
        await self.door.start(LOOPBACK, self.options.port)
        assert self.door._server is not None
        self.port = self.door._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        self.ticking = asyncio.create_task(self.scheduler.run())

    def env(self) -> dict[str, str]:
        """What a client needs in its environment: this server, and nothing of the user's own account."""
        return {
            "MODAL_SERVER_URL": f"http://{LOOPBACK}:{self.port}",
            "MODAL_TOKEN_ID": self.world.token_id,
            "MODAL_TOKEN_SECRET": self.world.token_secret,
            "MODAL_CONFIG_PATH": str(self.options.folder / "modal.toml"),
            "MODAL_ENVIRONMENT": "main",
            "MODAL_DISABLE_API_PROXY": "1",
            "NO_PROXY": f"{LOOPBACK},localhost",
        }

    async def _gate(self, rpc: str, request: Message, caller: Caller) -> None:
        """Before each call: who is it, is the server there, is this to be refused."""
        if caller.container is not None or rpc in ANONYMOUS:
            return
        given = caller.metadata.get("x-modal-token-id"), caller.metadata.get("x-modal-token-secret")
        if given != (self.world.token_id, self.world.token_secret):
            raise refuse(Status.UNAUTHENTICATED, "Token ID is malformed or unknown")
        if fault := self.faults.take({"refuse"}, self._tag(request), rpc=rpc):
            raise _refusal(fault)

    def _loses(self, rpc: str, request: Message, caller: Caller) -> bool:
        """Whether the connection breaks when this was done but before the client hears of it."""
        fault = None if caller.container else self.faults.take({"lose"}, self._tag(request), rpc=rpc)
        if fault:
            self.go_away(fault.seconds)
        return fault is not None

    def _tag(self, request: Any) -> str:
        """The function, class or object that a request is about."""
        if isinstance(request, api_pb2.FunctionMapRequest) and request.function_id in self.world.functions:
            tag = self.world.functions[request.function_id].tag
            method = request.pipelined_inputs[0].input.method_name if request.pipelined_inputs else ""
            return f"{tag.removesuffix('.*')}.{method}" if method else tag
        if (call := self.world.calls.get(getattr(request, "function_call_id", ""))) and call.inputs:
            return call.inputs[0].tag
        if (function := self.world.functions.get(getattr(request, "function_id", ""))) is not None:
            return function.tag
        return str(getattr(request, "object_tag", "") or getattr(request, "deployment_name", ""))

    # The network

    def _disconnect(self, item: Input, fault: Fault) -> None:
        self.go_away(fault.seconds)

    def go_away(self, seconds: float) -> int:
        """Reset all clients' connections and refuse new ones for so long; containers do not notice."""
        dropped = self.door.drop()
        if seconds > 0:
            self.away_until = max(self.away_until, time.time() + seconds)
            if self.returning is None or self.returning.done():
                assert self.door._server is not None
                self.door._server.close()
                self.old_doors.append(self.door)
                self.returning = asyncio.create_task(self._return())
        return dropped

    async def _return(self) -> None:
        while (left := self.away_until - time.time()) > 0:  # noqa: ASYNC110 (it may have been put off meanwhile)
            await asyncio.sleep(left)
        self.door = Endpoint(self.dispatcher)
        await self.door.start(LOOPBACK, self.port, reuse_address=True)

    async def close(self) -> None:
        self.ticking.cancel()
        if self.returning is not None:
            self.returning.cancel()
        await self.scheduler.close()
        for door in [self.door, *self.old_doors]:
            door.close()
            door.drop()
        await self.runner.cleanup()
        self.rootfs.close()
        shutil.rmtree(self.options.folder, ignore_errors=True)


def _refusal(fault: Fault) -> GRPCError:
    details = [api_pb2.RPCRetryPolicy(retry_after_secs=fault.retry_after)] if fault.retry_after else []
    return refuse(Status[fault.status], fault.message or f"{fault.status} was told to happen", *details)
