"""Modal's gRPC service on grpclib: which handler answers which call, for a client on TCP or for one container on its socket.

A service is any object with methods named after RPCs in snake case (`FunctionMap` → `function_map`). A unary one is
`async def (request, caller) -> response`, a streaming one an async generator. What no service answers is UNIMPLEMENTED,
which the real client raises as `modal.exception.UnimplementedError`.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpclib.server
from google.protobuf.message import Message
from grpclib import GRPCError, Status
from grpclib.config import Configuration
from grpclib.const import Cardinality, Handler
from grpclib.encoding.proto import ProtoCodec
from grpclib.protocol import H2Protocol
from modal._utils.grpc_utils import custom_detail_codec
from modal_proto import api_grpc

if TYPE_CHECKING:
    from .state import Container

WINDOW = 64 * 1024 * 1024
"""Bytes in flight per connection and stream, as the client's own channels have: 64 KiB makes large messages crawl."""
REMEMBERED = 4096
"""Replies kept for a retry of the same request: the client sends its idempotency key again after a lost connection."""
ONCE = {"FunctionMap", "FunctionPutInputs", "FunctionRetryInputs", "AppCreate", "QueuePut"}
"""RPCs that must not act twice when the client retries them."""


def refuse(status: Status, message: str, *details: Message) -> GRPCError:
    return GRPCError(status, message, list(details) or None)


def not_found(message: str) -> GRPCError:
    return refuse(Status.NOT_FOUND, message)


@dataclass(frozen=True)
class Caller:
    """Who calls: a client (`container` is None) or the process inside one container."""

    metadata: Mapping[str, Any]
    container: Container | None = None

    def inside(self) -> Container:
        if self.container is None:
            raise refuse(Status.FAILED_PRECONDITION, "only a container may make this call")
        return self.container


def _specification() -> dict[str, Handler]:
    """Every RPC of the installed client: path → cardinality, request and reply types."""
    abstract: type = api_grpc.ModalClientBase
    names: frozenset[str] = getattr(abstract, "__abstractmethods__", frozenset())
    concrete = type("Specification", (abstract,), dict.fromkeys(names, lambda self, stream: None))
    mapping: dict[str, Handler] = concrete().__mapping__()
    return mapping


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


class Dispatcher:
    """All services together.

    `gate(rpc, request, caller)` is asked before each call, and may wait or raise; `loses` after it, whether the reply is lost.
    """

    def __init__(
        self,
        services: list[object],
        gate: Callable[[str, Message, Caller], Any],
        loses: Callable[[str, Message, Caller], bool],
    ) -> None:
        self.gate, self.loses = gate, loses
        self.methods: dict[str, tuple[str, Handler, Any]] = {}
        self.replies: OrderedDict[str, asyncio.Future[Message]] = OrderedDict()
        for path, spec in _specification().items():
            name = path.rsplit("/", 1)[1]
            found = [getattr(service, _snake(name)) for service in services if hasattr(service, _snake(name))]
            if len(found) > 1:
                raise TypeError(f"two services answer {name}")
            self.methods[path] = (name, spec, found[0] if found else None)

    def mapping(self, endpoint: Endpoint) -> dict[str, Handler]:
        return {
            path: Handler(self._bind(name, spec, method, endpoint), spec.cardinality, spec.request_type, spec.reply_type)
            for path, (name, spec, method) in self.methods.items()
        }

    def _bind(self, name: str, spec: Handler, method: Any, endpoint: Endpoint) -> Any:
        async def answer(stream: grpclib.server.Stream[Any, Any]) -> None:
            request = await stream.recv_message()
            assert request is not None
            caller = Caller(stream.metadata or {}, endpoint.container)
            await self.gate(name, request, caller)
            if method is None:
                raise refuse(Status.UNIMPLEMENTED, f"the Modal test server does not answer {name}")
            if spec.cardinality is Cardinality.UNARY_STREAM:
                async for reply in method(request, caller):
                    await stream.send_message(reply)
            else:
                reply = await self._once(name, method, request, caller)
                if not self.loses(name, request, caller):
                    await stream.send_message(reply)

        return answer

    async def _once(self, name: str, method: Any, request: Message, caller: Caller) -> Message:
        key = str(caller.metadata.get("x-idempotency-key", ""))
        if name not in ONCE or not key:
            reply: Message = await method(request, caller)
            return reply
        if key not in self.replies:
            # A task of its own: the client's connection may break while the call is made, and its retry asks for this reply.
            self.replies[key] = asyncio.ensure_future(method(request, caller))
            while len(self.replies) > REMEMBERED:
                self.replies.popitem(last=False)
        reply = await asyncio.shield(self.replies[key])
        return reply


class Connection(H2Protocol):
    """A client's connection, which can be cut."""

    socket: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.socket = transport
        super().connection_made(transport)

    @property
    def open(self) -> bool:
        return self.socket is None or not self.socket.is_closing()

    def cut(self) -> None:
        if self.socket is not None:
            self.socket.abort()


class Endpoint(grpclib.server.Server):
    """One listening place: TCP for clients, a unix socket for a container (its RPCs carry no task id)."""

    def __init__(self, dispatcher: Dispatcher, container: Container | None = None) -> None:
        self.container = container
        self.connections: set[Connection] = set()
        config = Configuration(http2_connection_window_size=WINDOW, http2_stream_window_size=WINDOW)
        super().__init__([], config=config, status_details_codec=custom_detail_codec, codec=ProtoCodec())
        self._mapping = dispatcher.mapping(self)

    def _protocol_factory(self) -> H2Protocol:
        plain = super()._protocol_factory()
        connection = Connection(plain.handler, self._config, self._h2_config)
        self.connections = {each for each in self.connections if each.open} | {connection}
        return connection

    def drop(self) -> int:
        """Reset all connections, as a network that goes away does; returns how many."""
        open_ones = [each for each in self.connections if each.open]
        for each in open_ones:
            each.cut()
        return len(open_ones)
