"""What containers print: kept, streamed to clients, and given per call."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from modal_proto import api_pb2

from .rpc import Caller, not_found
from .state import Container, Input, Signal, World

HELD = 55.0


@dataclass(frozen=True)
class Line:
    number: int
    at: float
    app_id: str
    task_id: str
    function_id: str
    base_id: str
    descriptor: int
    text: str
    call_id: str = ""
    input_id: str = ""
    also: tuple[str, ...] = ()
    """the calls that ran in the container when it was printed and one could not tell which"""


class LogStore:
    def __init__(self, world: World) -> None:
        self.world = world
        self.lines: list[Line] = []
        self.signal = Signal()

    def add(self, container: Container, text: str, descriptor: int, sole: Input | None) -> None:
        function = container.function
        line = Line(
            number=len(self.lines) + 1,
            at=time.time(),
            app_id=function.app.id,
            task_id=container.id,
            function_id=function.id,
            base_id=(function.base or function).id,
            descriptor=descriptor,
            text=text,
            call_id=sole.call.id if sole else "",
            input_id=sole.id if sole else "",
            also=tuple(item.call.id for item in container.running.values()),
        )
        self.lines.append(line)
        self.signal.fire()

    def of_call(self, call_id: str) -> str:
        return "".join(line.text for line in self.lines if line.call_id == call_id or call_id in line.also)

    def of_container(self, task_id: str) -> str:
        return "".join(line.text for line in self.lines if line.task_id == task_id)

    def wanted(
        self, request: api_pb2.AppGetLogsRequest | api_pb2.AppFetchLogsRequest | api_pb2.AppCountLogsRequest
    ) -> Iterator[Line]:
        for line in self.lines:
            if (
                request.app_id in {"", line.app_id}
                and request.task_id in {"", line.task_id}
                and request.function_id in {"", line.function_id, line.base_id}
                and request.parametrized_function_id in {"", line.function_id}
                and request.function_call_id in {"", line.call_id}
                and request.search_text in line.text
            ):
                yield line


def batch(line: Line) -> api_pb2.TaskLogsBatch:
    item = api_pb2.TaskLogs(
        data=line.text,
        timestamp=line.at,
        timestamp_ns=int(line.at * 1e9),
        file_descriptor=line.descriptor,  # type: ignore[arg-type]
        function_call_id=line.call_id,
        input_id=line.input_id,
        container_id=line.task_id,
    )
    return api_pb2.TaskLogsBatch(
        task_id=line.task_id,
        items=[item],
        entry_id=f"{line.number}-0",
        function_id=line.function_id,
        root_function_id=line.base_id,
        input_id=line.input_id,
    )


class LogService:
    def __init__(self, world: World, logs: LogStore) -> None:
        self.world, self.logs = world, logs

    async def app_get_logs(self, request: api_pb2.AppGetLogsRequest, caller: Caller) -> AsyncIterator[api_pb2.TaskLogsBatch]:
        """New lines until the time-out; `app_done` once a stopped app has no more."""
        last = int(request.last_entry_id.partition("-")[0] or 0)
        deadline = time.time() + min(request.timeout, HELD)
        app = self.world.apps.get(request.app_id)
        while True:
            app_done = app is not None and app.stopped and not self._running(app.id)
            for line in self.logs.wanted(request):
                if line.number > last and request.file_descriptor in {0, line.descriptor}:
                    last = line.number
                    yield batch(line)
            if app_done:
                yield api_pb2.TaskLogsBatch(app_done=True)
                return
            if (left := deadline - time.time()) <= 0:
                return
            await self.logs.signal.wait(min(left, 0.5))

    def _running(self, app_id: str) -> bool:
        return any(c.alive for c in self.world.containers.values() if c.function.app.id == app_id)

    async def app_fetch_logs(self, request: api_pb2.AppFetchLogsRequest, caller: Caller) -> api_pb2.AppFetchLogsResponse:
        if request.app_id not in self.world.apps:
            raise not_found(f"App {request.app_id} not found")
        begin, end = request.since.ToNanoseconds() / 1e9, request.until.ToNanoseconds() / 1e9
        lines = [
            line for line in self.logs.wanted(request) if begin <= line.at < end and request.source in {0, line.descriptor}
        ]
        return api_pb2.AppFetchLogsResponse(batches=[batch(line) for line in lines[-(request.limit or 500) :]])

    async def app_count_logs(self, request: api_pb2.AppCountLogsRequest, caller: Caller) -> api_pb2.AppCountLogsResponse:
        size = request.bucket_secs or 60
        begin, end = request.since.ToNanoseconds() / 1e9, request.until.ToNanoseconds() / 1e9
        starts = range(int(begin // size) * size, int(end) + size, size)
        counts = dict.fromkeys(starts, 0)
        for line in self.logs.wanted(request):
            if begin <= line.at < end and int(line.at // size) * size in counts:
                counts[int(line.at // size) * size] += 1
        response = api_pb2.AppCountLogsResponse(app_id=request.app_id)
        for start, count in counts.items():
            bucket = response.buckets.add()
            bucket.bucket_start_at.FromSeconds(start)
            bucket.stdout_logs = count
        return response
