"""Queues: first in, first out, per partition."""

from __future__ import annotations

import time

from google.protobuf.empty_pb2 import Empty
from modal_proto import api_pb2

from .objects import Queue, by_id, get_or_create
from .rpc import Caller

HELD = 55.0


class QueueService:
    def __init__(self) -> None:
        self.queues: dict[str, Queue] = {}

    def _queue(self, queue_id: str) -> Queue:
        return by_id(self.queues, queue_id)

    async def queue_get_or_create(
        self, request: api_pb2.QueueGetOrCreateRequest, caller: Caller
    ) -> api_pb2.QueueGetOrCreateResponse:
        queue = get_or_create(Queue, self.queues, "qu", request)
        return api_pb2.QueueGetOrCreateResponse(queue_id=queue.id, metadata=queue.metadata())

    async def queue_get_by_id(self, request: api_pb2.QueueGetByIdRequest, caller: Caller) -> api_pb2.QueueGetByIdResponse:
        return api_pb2.QueueGetByIdResponse(queue_id=request.queue_id, metadata=self._queue(request.queue_id).metadata())

    async def queue_heartbeat(self, request: api_pb2.QueueHeartbeatRequest, caller: Caller) -> Empty:
        return Empty()

    async def queue_delete(self, request: api_pb2.QueueDeleteRequest, caller: Caller) -> Empty:
        self.queues.pop(self._queue(request.queue_id).id)
        return Empty()

    async def queue_put(self, request: api_pb2.QueuePutRequest, caller: Caller) -> Empty:
        queue = self._queue(request.queue_id)
        for value in request.values:
            queue.counter += 1
            queue.partitions[request.partition_key].append((queue.counter, value))
        queue.signal.fire()
        return Empty()

    async def queue_get(self, request: api_pb2.QueueGetRequest, caller: Caller) -> api_pb2.QueueGetResponse:
        queue = self._queue(request.queue_id)
        partition = queue.partitions[request.partition_key]
        deadline = time.time() + min(request.timeout, HELD)
        while not partition and (left := deadline - time.time()) > 0:
            await queue.signal.wait(left)
        count = min(len(partition), max(request.n_values, 1))
        return api_pb2.QueueGetResponse(values=[partition.popleft()[1] for _ in range(count)])

    async def queue_len(self, request: api_pb2.QueueLenRequest, caller: Caller) -> api_pb2.QueueLenResponse:
        partitions = self._queue(request.queue_id).partitions
        wanted = partitions.values() if request.total else [partitions[request.partition_key]]
        return api_pb2.QueueLenResponse(len=sum(len(each) for each in wanted))

    async def queue_next_items(self, request: api_pb2.QueueNextItemsRequest, caller: Caller) -> api_pb2.QueueNextItemsResponse:
        queue = self._queue(request.queue_id)
        last = int(request.last_entry_id or 0)
        deadline = time.time() + min(request.item_poll_timeout, HELD)
        while True:
            items = [(number, value) for number, value in queue.partitions[request.partition_key] if number > last]
            if items or (left := deadline - time.time()) <= 0:
                listed = [api_pb2.QueueItem(value=value, entry_id=str(number)) for number, value in items]
                return api_pb2.QueueNextItemsResponse(items=listed)
            await queue.signal.wait(left)

    async def queue_clear(self, request: api_pb2.QueueClearRequest, caller: Caller) -> Empty:
        partitions = self._queue(request.queue_id).partitions
        for key in list(partitions) if request.all_partitions else [request.partition_key]:
            partitions[key].clear()
        return Empty()
