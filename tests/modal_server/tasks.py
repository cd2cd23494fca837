"""What the runtime inside a container calls: fetch inputs, hand over outputs, heartbeats that carry cancellations."""

from __future__ import annotations

import asyncio
import signal
import time

from google.protobuf.empty_pb2 import Empty
from modal_proto import api_pb2

from .containers import Containers
from .rpc import Caller
from .scheduler import FAILURE, SUCCESS, TERMINATED, Scheduler
from .state import Container, Input, World

HELD = 30.0
HEARTBEAT = 14.0
"""The runtime sends one every 15 s and gives up on it after 15.1 s, so this is how long one may be held."""


class TaskService:
    def __init__(self, world: World, scheduler: Scheduler, containers: Containers) -> None:
        self.world, self.scheduler, self.containers = world, scheduler, containers

    async def container_hello(self, request: Empty, caller: Caller) -> Empty:
        return Empty()

    async def function_get_inputs(
        self, request: api_pb2.FunctionGetInputsRequest, caller: Caller
    ) -> api_pb2.FunctionGetInputsResponse:
        container = caller.inside()
        self.scheduler.ready(container)
        pool = self.world.pool(container.function)
        deadline = time.time() + HELD
        most = request.batch_max_size or 1
        while (left := deadline - time.time()) > 0:
            if container.state == "draining":
                return api_pb2.FunctionGetInputsResponse(inputs=[api_pb2.FunctionGetInputsItem(kill_switch=True)])
            if taken := self.scheduler.take(container, most):
                if most > 1:
                    taken += await self._linger(container, most - len(taken), request.batch_linger_ms / 1000)
                return api_pb2.FunctionGetInputsResponse(inputs=[self._item(item) for item in taken])
            await pool.signal.wait(left)
        return api_pb2.FunctionGetInputsResponse()

    async def _linger(self, container: Container, most: int, seconds: float) -> list[Input]:
        more: list[Input] = []
        deadline = time.time() + seconds
        while len(more) < most and time.time() < deadline:
            await self.world.pool(container.function).signal.wait(deadline - time.time())
            more += self.scheduler.take(container, most - len(more))
        return more

    def _item(self, item: Input) -> api_pb2.FunctionGetInputsItem:
        return api_pb2.FunctionGetInputsItem(
            input_id=item.id,
            input=item.payload,
            function_call_id=item.call.id,
            function_call_invocation_type=item.call.invocation,  # type: ignore[arg-type]
            retry_count=item.retry_count,
            function_map_idx=item.idx,
            attempt_token=item.token,
        )

    async def function_put_outputs(self, request: api_pb2.FunctionPutOutputsRequest, caller: Caller) -> Empty:
        container = caller.inside()
        for _ in range(3):
            await asyncio.sleep(0)  # what it printed is in the pipe by now: read that first, while it still runs this input
        for output in request.outputs:
            item = self.world.inputs.get(output.input_id)
            if item is None or item.container is not container or output.retry_count != item.retry_count:
                continue
            if output.result.status == TERMINATED and not output.result.exception:
                output.result.exception = "Input was cancelled by user"
            self.scheduler.finish(item, output.result, output.data_format, output.input_started_at, output.output_created_at)
        self.scheduler.scaling.schedule()
        return Empty()

    async def container_heartbeat(
        self, request: api_pb2.ContainerHeartbeatRequest, caller: Caller
    ) -> api_pb2.ContainerHeartbeatResponse:
        container = caller.inside()
        deadline = time.time() + HEARTBEAT
        while (left := deadline - time.time()) > 0:
            if container.to_cancel:
                event = api_pb2.CancelInputEvent(input_ids=sorted(container.to_cancel))
                return api_pb2.ContainerHeartbeatResponse(cancel_input_event=event)
            await container.signal.wait(left)
        return api_pb2.ContainerHeartbeatResponse()

    async def task_result(self, request: api_pb2.TaskResultRequest, caller: Caller) -> Empty:
        """The container could not start, or ended badly outside any input; a success says nothing more."""
        container = caller.inside()
        if request.result.status not in {SUCCESS, 0}:
            container.init_result = request.result
            container.reason = container.reason or "crashed"
            if request.result.status == FAILURE:
                container.init_result.status = api_pb2.GenericResult.GENERIC_STATUS_INIT_FAILURE
        return Empty()

    async def container_stop(self, request: api_pb2.ContainerStopRequest, caller: Caller) -> api_pb2.ContainerStopResponse:
        container = self.world.containers.get(request.task_id)
        if container is not None and request.graceful:
            self.scheduler.scaling.drain(container, "stopped")
        elif container is not None:
            self.containers.kill(container, "stopped", signal.SIGINT)
        return api_pb2.ContainerStopResponse()

    async def function_get_dynamic_concurrency(
        self, request: api_pb2.FunctionGetDynamicConcurrencyRequest, caller: Caller
    ) -> api_pb2.FunctionGetDynamicConcurrencyResponse:
        waiting = len(self.world.pool(caller.inside().function).pending)
        return api_pb2.FunctionGetDynamicConcurrencyResponse(
            concurrency=request.max_concurrency if waiting else request.target_concurrency
        )
