"""What the server knows: apps, functions, calls with their inputs and attempts, containers. Plain data, no behaviour."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import string
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from modal._utils.jwt_utils import DecodedJwt
from modal_proto import api_pb2

ASYNC = {api_pb2.FUNCTION_CALL_INVOCATION_TYPE_ASYNC, api_pb2.FUNCTION_CALL_INVOCATION_TYPE_ASYNC_LEGACY}
GENERATOR = api_pb2.Function.FUNCTION_TYPE_GENERATOR
DEFAULT_TIMEOUT = 300


def new_id(prefix: str) -> str:
    return f"{prefix}-" + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(22))


class Signal:
    """Wakes all who wait now; unlike an Event it needs no clearing."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def fire(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def wait(self, seconds: float) -> None:
        """Return when fired, or after `seconds`."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(waiter, max(seconds, 0))
        self._waiters.discard(waiter)


@dataclass
class App:
    id: str
    name: str
    state: int
    environment: str = "main"
    functions: dict[str, str] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    version: int = 0
    created_at: float = field(default_factory=time.time)
    deployed_at: float = 0.0
    stopped_at: float = 0.0
    published: dict[str, str] = field(default_factory=dict)
    """definition of each function in the current version"""

    @property
    def stopped(self) -> bool:
        return self.state == api_pb2.APP_STATE_STOPPED

    def lifecycle(self) -> api_pb2.AppLifecycle:
        return api_pb2.AppLifecycle(
            app_state=self.state,  # type: ignore[arg-type]
            created_at=self.created_at,
            deployed_at=self.deployed_at,
            version=self.version,
            stopped_at=self.stopped_at,
        )


@dataclass
class Function:
    """A function, a class's service function (`Name.*`), or a variant of one: other options or parameters."""

    id: str
    app: App
    tag: str
    definition: api_pb2.Function
    data: api_pb2.FunctionData | None = None
    ranked_gpus: list[str] = field(default_factory=list)
    definition_id: str = field(default_factory=lambda: new_id("de"))
    base: Function | None = None
    params: bytes = b""
    options: api_pb2.FunctionOptions | None = None

    @property
    def concurrency(self) -> int:
        return max(self.definition.max_concurrent_inputs, 1) * max(self.definition.batch_max_size, 1)

    @property
    def timeout(self) -> float:
        return self.definition.timeout_secs or DEFAULT_TIMEOUT

    def scaling(self) -> api_pb2.AutoscalerSettings:
        return self.definition.autoscaler_settings


@dataclass
class Attempt:
    container_id: str
    began: float
    ended: float = 0.0
    outcome: str = "running"


@dataclass
class Input:
    id: str
    call: Call
    idx: int
    payload: api_pb2.FunctionInput
    retry_count: int = 0
    state: str = "pending"
    """pending, running, finished or cancelled"""
    not_before: float = 0.0
    container: Container | None = None
    attempts: list[Attempt] = field(default_factory=list)
    output: api_pb2.FunctionGetOutputsItem | None = None
    cancelled_at: float = 0.0
    touched: set[int] = field(default_factory=set)
    """numbers of the faults that already met it: each meets an input at most once per count"""

    @property
    def token(self) -> str:
        return DecodedJwt.encode_without_signature({"idx": self.idx, "input": self.id, "try": self.retry_count})

    @property
    def tag(self) -> str:
        """`asr`, or `Speech.asr` for a method."""
        tag, method = self.call.function.tag, self.payload.method_name
        return f"{tag.removesuffix('.*')}.{method}" if method else tag


class DataStream:
    """Messages of a generator (out) or a web request's body (in), kept so that a reader may start anew."""

    def __init__(self) -> None:
        self.chunks: list[api_pb2.DataChunk] = []
        self.signal = Signal()

    def put(self, chunks: list[api_pb2.DataChunk]) -> None:
        known = {chunk.index for chunk in self.chunks}
        self.chunks += [chunk for chunk in chunks if chunk.index not in known]
        self.signal.fire()


@dataclass
class Call:
    id: str
    function: Function
    kind: int
    invocation: int
    parent: str = ""
    inputs: list[Input] = field(default_factory=list)
    outputs: list[api_pb2.FunctionGetOutputsItem] = field(default_factory=list)
    signal: Signal = field(default_factory=Signal)
    expired: bool = False
    created_at: float = field(default_factory=time.time)
    data_in: DataStream = field(default_factory=DataStream)
    data_out: DataStream = field(default_factory=DataStream)

    @property
    def token(self) -> str:
        return DecodedJwt.encode_without_signature({"call": self.id})

    @property
    def unfinished(self) -> int:
        return sum(item.output is None for item in self.inputs)


@dataclass
class Container:
    id: str
    function: Function
    generation: str
    folder: Path
    pid: int = 0
    state: str = "starting"
    """starting, ready, draining, dead"""
    started_at: float = field(default_factory=time.time)
    ready_at: float = 0.0
    ended_at: float = 0.0
    idle_since: float = 0.0
    exit_code: int | None = None
    reason: str = ""
    """why it ended: idle, replaced, crashed, killed, oom, preempted, timeout, cancelled, stopped"""
    served: int = 0
    running: dict[str, Input] = field(default_factory=dict)
    last: Input | None = None
    to_cancel: set[str] = field(default_factory=set)
    init_result: api_pb2.GenericResult | None = None
    signal: Signal = field(default_factory=Signal)
    process: asyncio.subprocess.Process | None = None
    views: dict[str, Any] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        return self.state != "dead"

    @property
    def free(self) -> int:
        return self.function.concurrency - len(self.running) if self.state in {"starting", "ready"} else 0


@dataclass
class Pool:
    """The containers of one function (or variant), and what waits for them."""

    function: Function
    pending: deque[Input] = field(default_factory=deque)
    containers: dict[str, Container] = field(default_factory=dict)
    signal: Signal = field(default_factory=Signal)
    failed_starts: int = 0
    not_before: float = 0.0

    def live(self) -> Iterator[Container]:
        return (container for container in self.containers.values() if container.alive)


@dataclass
class World:
    """Everything there is, and the folder that it is in."""

    folder: Path
    token_id: str
    token_secret: str
    apps: dict[str, App] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    classes: dict[str, tuple[App, str]] = field(default_factory=dict)
    images: dict[str, api_pb2.ImageGetOrCreateRequest] = field(default_factory=dict)
    calls: dict[str, Call] = field(default_factory=dict)
    inputs: dict[str, Input] = field(default_factory=dict)
    pools: dict[str, Pool] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)
    metadata: dict[str, Message | None] = field(default_factory=dict)
    """of every object that a function may depend on: id → what hydrates it inside a container"""

    bills: list[api_pb2.WorkspaceBillingReportItem] = field(default_factory=list)

    def deployed(self, name: str) -> App | None:
        live = (app for app in self.apps.values() if app.name == name and app.state == api_pb2.APP_STATE_DEPLOYED)
        return next(live, None)

    def pool(self, function: Function) -> Pool:
        if function.id not in self.pools:
            self.pools[function.id] = Pool(function)
        return self.pools[function.id]
