"""Web endpoints: an HTTP request becomes an input (an ASGI scope), its messages come back on the call's stream."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiohttp import web
from modal._serialization import deserialize_data_format, serialize_data_format
from modal_proto import api_pb2

from .scheduler import SUCCESS, Scheduler
from .state import Call, Function, Input, World, new_id

LIMIT = 150.0
"""Seconds after which Modal ends a web request."""
ASGI = api_pb2.DATA_FORMAT_ASGI


class Web:
    def __init__(self, world: World, scheduler: Scheduler) -> None:
        self.world, self.scheduler = world, scheduler
        self.base = ""

    def url(self, function: Function, method: str) -> str:
        return f"{self.base}/web/{function.id}/{method or '-'}"

    def routes(self) -> list[web.RouteDef]:
        return [web.route("*", "/web/{id}/{method}{path:(/.*)?}", self.serve)]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        function = self.world.functions.get(request.match_info["id"])
        if function is None or function.app.stopped:
            return web.Response(status=404, text="modal-http: invalid function call")
        call = Call(new_id("fc"), function, api_pb2.FUNCTION_CALL_TYPE_UNARY, api_pb2.FUNCTION_CALL_INVOCATION_TYPE_SYNC)
        method = request.match_info["method"].strip("-")
        payload = api_pb2.FunctionInput(args=self._scope(request), data_format=api_pb2.DATA_FORMAT_PICKLE)
        if method:
            payload.method_name = method
        item = Input(new_id("in"), call, 0, payload)
        call.inputs.append(item)
        self.world.calls[call.id], self.world.inputs[item.id] = call, item
        self._send(call, {"type": "http.request", "body": await request.read(), "more_body": False})
        self.scheduler.submit(item)
        try:
            return await self._answer(request, call, item)
        except asyncio.CancelledError:
            self.scheduler.cancel(item)
            raise

    def _scope(self, request: web.Request) -> bytes:
        path = request.match_info["path"] or "/"
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": request.query_string.encode(),
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.raw_headers],
            "client": (request.remote or "127.0.0.1", 0),
            "server": ("127.0.0.1", 80),
        }
        return serialize_data_format(((scope,), {}), api_pb2.DATA_FORMAT_PICKLE)

    def _send(self, call: Call, message: dict[str, Any]) -> None:
        data = serialize_data_format(message, ASGI)
        call.data_in.put([api_pb2.DataChunk(data_format=ASGI, data=data, index=len(call.data_in.chunks) + 1)])

    async def _answer(self, request: web.Request, call: Call, item: Input) -> web.StreamResponse:
        response: web.StreamResponse | None = None
        seen, deadline = 0, time.time() + LIMIT
        while time.time() < deadline:
            for chunk in call.data_out.chunks[seen:]:
                seen += 1
                message = deserialize_data_format(chunk.data, chunk.data_format, None)
                if message["type"] == "http.response.start":
                    response = web.StreamResponse(status=message["status"])
                    for name, value in message.get("headers", ()):
                        response.headers.add(name.decode(), value.decode())
                    await response.prepare(request)
                elif response is not None:
                    await response.write(message.get("body", b""))
                    if not message.get("more_body"):
                        await response.write_eof()
                        return response
            if item.output is not None and item.output.result.status != SUCCESS:
                return web.Response(status=500, text="modal-http: internal error: function raised")
            await call.data_out.signal.wait(1)
        self.scheduler.cancel(item)
        return web.Response(status=504, text="modal-http: request timed out")
