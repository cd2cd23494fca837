"""Calls as a client makes them: start, wait, retry, cancel, and the streams of generators."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable

from google.protobuf.empty_pb2 import Empty
from modal._utils.jwt_utils import DecodedJwt
from modal_proto import api_pb2

from .rpc import Caller, not_found
from .scheduler import FAILURE, INTERNAL, OOM, SUCCESS, TERMINATED, TIMEOUT, Scheduler
from .state import Call, DataStream, Input, World, new_id

HELD = 55.0
OUTSTANDING = 1000


class CallService:
    def __init__(self, world: World, scheduler: Scheduler) -> None:
        self.world, self.scheduler = world, scheduler

    def _call(self, call_id: str) -> Call:
        if call_id not in self.world.calls:
            raise not_found(f"Function call {call_id} not found")
        return self.world.calls[call_id]

    def _add(self, call: Call, items: Iterable[api_pb2.FunctionPutInputsItem]) -> list[api_pb2.FunctionPutInputsResponseItem]:
        added = []
        for each in items:
            item = Input(new_id("in"), call, each.idx, each.input)
            call.inputs.append(item)
            self.world.inputs[item.id] = item
            added.append(api_pb2.FunctionPutInputsResponseItem(idx=item.idx, input_id=item.id, input_jwt=item.token))
            self.scheduler.submit(item)
        return added

    async def function_map(self, request: api_pb2.FunctionMapRequest, caller: Caller) -> api_pb2.FunctionMapResponse:
        function = self.world.functions.get(request.function_id)
        if function is None or function.app.stopped:
            raise not_found(f"Function {request.function_id} not found")
        invocation = request.function_call_invocation_type
        call = Call(new_id("fc"), function, request.function_call_type, invocation, request.parent_input_id)
        self.world.calls[call.id] = call
        return api_pb2.FunctionMapResponse(
            function_call_id=call.id,
            pipelined_inputs=self._add(call, request.pipelined_inputs),
            retry_policy=function.definition.retry_policy,
            function_call_jwt=call.token,
            sync_client_retries_enabled=True,
            max_inputs_outstanding=OUTSTANDING,
        )

    async def function_put_inputs(
        self, request: api_pb2.FunctionPutInputsRequest, caller: Caller
    ) -> api_pb2.FunctionPutInputsResponse:
        return api_pb2.FunctionPutInputsResponse(inputs=self._add(self._call(request.function_call_id), request.inputs))

    async def function_finish_inputs(self, request: api_pb2.FunctionFinishInputsRequest, caller: Caller) -> Empty:
        self._call(request.function_call_id)
        return Empty()

    async def function_retry_inputs(
        self, request: api_pb2.FunctionRetryInputsRequest, caller: Caller
    ) -> api_pb2.FunctionRetryInputsResponse:
        tokens = []
        for each in request.inputs:
            item = self.world.inputs[DecodedJwt.decode_without_verification(each.input_jwt).payload["input"]]
            if item.output is not None and not item.cancelled_at:
                item.output, item.state = None, "pending"
                item.retry_count += 1
                item.payload.CopyFrom(each.input)
                self.scheduler.submit(item)
            tokens.append(item.token)
        return api_pb2.FunctionRetryInputsResponse(input_jwts=tokens)

    async def function_get_outputs(
        self, request: api_pb2.FunctionGetOutputsRequest, caller: Caller
    ) -> api_pb2.FunctionGetOutputsResponse:
        """Outputs that came after the last one seen; held until there is one or the time is over.

        An expired call has neither outputs nor unfinished inputs; the client then still waits out its own time-out.
        """
        call = self._call(request.function_call_id)
        last = int(request.last_entry_id.partition("-")[0] or 0)
        deadline = time.time() + min(request.timeout, HELD)
        while True:
            outputs = [] if call.expired else self._outputs(call, request, last)
            left = deadline - time.time()
            if outputs or left <= 0:
                return api_pb2.FunctionGetOutputsResponse(
                    outputs=outputs,
                    idxs=[each.idx for each in outputs],
                    last_entry_id=f"{len(call.outputs)}-0",
                    num_unfinished_inputs=0 if call.expired else call.unfinished,
                )
            await call.signal.wait(left)

    def _outputs(
        self, call: Call, request: api_pb2.FunctionGetOutputsRequest, last: int
    ) -> list[api_pb2.FunctionGetOutputsItem]:
        if request.HasField("start_idx"):
            inside = (each for each in call.inputs if request.start_idx <= each.idx <= request.end_idx)
            return [each.output for each in inside if each.output is not None]
        return call.outputs[last:]

    async def function_call_from_id(
        self, request: api_pb2.FunctionCallFromIdRequest, caller: Caller
    ) -> api_pb2.FunctionCallFromIdResponse:
        call = self._call(request.function_call_id)
        metadata = api_pb2.FunctionCallHandleMetadata(app_id=call.function.app.id, function_id=call.function.id)
        return api_pb2.FunctionCallFromIdResponse(function_call_id=call.id, num_inputs=len(call.inputs), metadata=metadata)

    async def function_call_cancel(self, request: api_pb2.FunctionCallCancelRequest, caller: Caller) -> Empty:
        for item in self._call(request.function_call_id).inputs:
            self.scheduler.cancel(item, kill=request.terminate_containers)
        return Empty()

    async def function_call_get_info(
        self, request: api_pb2.FunctionCallGetInfoRequest, caller: Caller
    ) -> api_pb2.FunctionCallGetInfoResponse:
        call = self._call(request.function_call_id)
        statuses = [item.output.result.status for item in call.inputs if item.output is not None]

        def count(*wanted: int) -> api_pb2.InputCategoryInfo:
            return api_pb2.InputCategoryInfo(total=sum(status in wanted for status in statuses))

        info = api_pb2.FunctionCallInfo(
            function_call_id=call.id,
            created_at=call.created_at,
            pending_inputs=api_pb2.InputCategoryInfo(total=call.unfinished),
            succeeded_inputs=count(SUCCESS),
            failed_inputs=count(FAILURE, INTERNAL, OOM, api_pb2.GenericResult.GENERIC_STATUS_INIT_FAILURE),
            timeout_inputs=count(TIMEOUT),
            cancelled_inputs=count(TERMINATED),
            total_inputs=len(call.inputs),
        )
        return api_pb2.FunctionCallGetInfoResponse(info=info)

    # Streams

    def _stream(self, request: api_pb2.FunctionCallGetDataRequest | api_pb2.FunctionCallPutDataRequest) -> Call:
        if request.WhichOneof("call_info") == "attempt_token":
            return self.world.inputs[DecodedJwt.decode_without_verification(request.attempt_token).payload["input"]].call
        return self._call(request.function_call_id)

    async def _follow(self, call: Call, stream: DataStream, last: int) -> AsyncIterator[api_pb2.DataChunk]:
        deadline = time.time() + HELD
        while time.time() < deadline:
            for chunk in [each for each in stream.chunks if each.index > last]:
                last = max(last, chunk.index)
                yield chunk
            await stream.signal.wait(min(deadline - time.time(), 5))

    async def function_call_get_data_out(
        self, request: api_pb2.FunctionCallGetDataRequest, caller: Caller
    ) -> AsyncIterator[api_pb2.DataChunk]:
        call = self._stream(request)
        async for chunk in self._follow(call, call.data_out, request.last_index):
            yield chunk

    async def function_call_get_data_in(
        self, request: api_pb2.FunctionCallGetDataRequest, caller: Caller
    ) -> AsyncIterator[api_pb2.DataChunk]:
        call = self._stream(request)
        async for chunk in self._follow(call, call.data_in, request.last_index):
            yield chunk

    async def function_call_put_data_out(self, request: api_pb2.FunctionCallPutDataRequest, caller: Caller) -> Empty:
        self._stream(request).data_out.put(list(request.data_chunks))
        return Empty()
