"""Which input runs in which container, and what becomes of it.

What Modal does with an input whose container dies is done here too: it is run again, with the same retry count, for ever
for a deployed app; only the function's own failures and time-outs count as retries.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine

from modal_proto import api_pb2

from .containers import Containers
from .faults import AT_DELIVERY, AT_END, DURING, Fault, Faults
from .logs import LogStore
from .scaling import Limits, Scaling
from .state import ASYNC, App, Attempt, Container, Input, Pool, World
from .variants import refresh

Result = api_pb2.GenericResult
SUCCESS, FAILURE, TERMINATED = Result.GENERIC_STATUS_SUCCESS, Result.GENERIC_STATUS_FAILURE, Result.GENERIC_STATUS_TERMINATED
TIMEOUT, INTERNAL, OOM = (
    Result.GENERIC_STATUS_TIMEOUT,
    Result.GENERIC_STATUS_INTERNAL_FAILURE,
    Result.GENERIC_STATUS_KERNEL_OOM_KILL,
)
TICK = 0.2


class Scheduler:
    def __init__(self, world: World, containers: Containers, faults: Faults, logs: LogStore, limits: Limits) -> None:
        self.world, self.containers, self.faults, self.logs, self.limits = world, containers, faults, logs, limits
        self.scaling = Scaling(world, containers, limits)
        self.disconnect: Callable[[Input, Fault], None] = lambda item, fault: None
        self.tasks: set[asyncio.Task[None]] = set()
        containers.ended = self.container_ended

    def spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def run(self) -> None:
        while True:
            self.scaling.schedule()
            self._watch_clocks()
            await asyncio.sleep(TICK)

    # Inputs

    def submit(self, item: Input) -> None:
        pool = self.world.pool(item.call.function)
        pool.pending.append(item)
        self.scaling.schedule()
        pool.signal.fire()

    def take(self, container: Container, most: int) -> list[Input]:
        """The next inputs for a container that asks; the same method for all, since they are handed over as one batch."""
        pool, now = self.world.pool(container.function), time.time()
        taken: list[Input] = []
        for item in list(pool.pending):
            if len(taken) == max(most, 1) or container.reason:
                break
            if item.not_before > now or (taken and item.payload.method_name != taken[0].payload.method_name):
                continue
            if fault := self.faults.take(AT_DELIVERY, item.tag, item):
                self._deliver_badly(item, container, fault)
                continue
            pool.pending.remove(item)
            item.state, item.container = "running", container
            item.attempts.append(Attempt(container.id, now))
            container.running[item.id] = item
            container.served += 1
            taken.append(item)
            if fault := self.faults.take(DURING, item.tag, item):
                self.spawn(self._strike(item, len(item.attempts), fault))
        return taken

    def _deliver_badly(self, item: Input, container: Container, fault: Fault) -> None:
        if fault.kind == "delay":
            item.not_before = time.time() + fault.seconds
        elif fault.kind == "boot":
            self.containers.kill(container, "killed")
        else:
            self.world.pool(item.call.function).pending.remove(item)
            item.attempts.append(Attempt("", time.time(), time.time(), "internal failure"))
            self.finish(item, Result(status=INTERNAL, exception=fault.message or "An internal failure was told to happen"))

    async def _strike(self, item: Input, attempt: int, fault: Fault) -> None:
        await asyncio.sleep(fault.after)
        container = item.container
        if item.state != "running" or container is None or len(item.attempts) != attempt:
            return
        if fault.kind == "kill":
            self.containers.kill(container, "killed")
        elif fault.kind == "preempt":
            await self.containers.interrupt(container, "preempted", self.limits.grace)
        elif fault.kind == "timeout":
            self._time_out(item)
        elif fault.kind == "disconnect":
            self.disconnect(item, fault)
        else:
            self.logs.add(container, "Container killed: out of memory\n", api_pb2.FILE_DESCRIPTOR_STDERR, item)
            if fault.final:
                self.finish(item, Result(status=OOM, exception="Container ran out of memory and was killed", exitcode=137))
            self.containers.kill(container, "oom")

    def finish(
        self, item: Input, result: api_pb2.GenericResult, data_format: int = 0, began: float = 0, ended: float = 0
    ) -> None:
        """The input has its outcome: give it to whoever waits, or run it again where its retry policy says so."""
        names = {SUCCESS: "succeeded", FAILURE: "failed", TERMINATED: "cancelled", TIMEOUT: "timed out", OOM: "oom"}
        outcome = names.get(result.status, "internal failure")
        self.release(item, outcome)
        if item.output is not None or self._retry(item, result.status):
            return
        item.state = "cancelled" if result.status == TERMINATED else "finished"
        item.output = api_pb2.FunctionGetOutputsItem(
            result=result,
            idx=item.idx,
            input_id=item.id,
            data_format=data_format,  # type: ignore[arg-type]
            task_id=item.attempts[-1].container_id if item.attempts else "",
            input_started_at=began,
            output_created_at=ended or time.time(),
            retry_count=item.retry_count,
        )
        if self.faults.take(AT_END, item.tag, item):
            item.call.expired = True
        item.call.outputs.append(item.output)
        item.call.signal.fire()
        item.call.data_out.signal.fire()

    def release(self, item: Input, outcome: str) -> None:
        """The input is no longer in its container."""
        if item.attempts and not item.attempts[-1].ended:
            item.attempts[-1].ended, item.attempts[-1].outcome = time.time(), outcome
        container, item.container = item.container, None
        if container is not None:
            container.running.pop(item.id, None)
            container.to_cancel.discard(item.id)
            container.idle_since, container.last = time.time(), item

    def _retry(self, item: Input, status: int) -> bool:
        """Calls that nobody waits for are retried here; the client itself retries those that it waits for."""
        policy = item.call.function.definition.retry_policy
        mine = item.call.invocation in ASYNC and status not in {SUCCESS, TERMINATED}
        if not mine or item.cancelled_at or item.retry_count >= policy.retries:
            return False
        delay = policy.initial_delay_ms / 1000 * (policy.backoff_coefficient or 1) ** item.retry_count
        item.retry_count += 1
        item.state, item.not_before = "pending", time.time() + min(delay, policy.max_delay_ms / 1000 or delay)
        self.submit(item)
        return True

    def cancel(self, item: Input, kill: bool = False) -> None:
        """Its caller sees it end at once; the container is told, and killed when it does not let go of it."""
        if item.output is not None:
            return
        item.cancelled_at = time.time()
        container, pool = item.container, self.world.pool(item.call.function)
        if item in pool.pending:
            pool.pending.remove(item)
        result = Result(status=TERMINATED, exception="Input was cancelled by user")
        item.state = "cancelled"
        item.output = api_pb2.FunctionGetOutputsItem(
            result=result, idx=item.idx, input_id=item.id, retry_count=item.retry_count
        )
        item.call.outputs.append(item.output)
        item.call.signal.fire()
        if container is not None and kill:
            self.containers.kill(container, "cancelled")
        elif container is not None:
            container.to_cancel.add(item.id)
            container.signal.fire()

    def _time_out(self, item: Input) -> None:
        container = item.container
        limit = item.call.function.definition.timeout_secs
        if container is not None:
            self.logs.add(
                container, f"Task's current input hit its timeout of {limit}s\n", api_pb2.FILE_DESCRIPTOR_STDERR, item
            )
        self.finish(item, Result(status=TIMEOUT, exception=f"Task's current input {item.id} hit its timeout of {limit}s"))
        if container is not None:
            self.spawn(self.containers.interrupt(container, "timeout", min(self.limits.grace, 2)))

    # Containers

    def container_ended(self, container: Container) -> None:
        pool = self.world.pool(container.function)
        pool.containers.pop(container.id, None)
        expected = container.reason not in {"crashed", "exited"} or self.scaling.closed
        if not container.served and not expected:
            self._failed_start(pool, container)
        for item in list(container.running.values())[::-1]:
            self.release(item, container.reason)
            if item.output is None:
                item.state = "pending"
                if container.reason == "crashed":
                    item.not_before = time.time() + min(0.1 * 2 ** len(item.attempts), 10)
                    text = f"Container exited with code {container.exit_code} while it ran an input, which is run again\n"
                    self.logs.add(container, text, api_pb2.FILE_DESCRIPTOR_STDERR, item)
                pool.pending.appendleft(item)
        pool.signal.fire()
        self.scaling.schedule()

    def _failed_start(self, pool: Pool, container: Container) -> None:
        pool.failed_starts += 1
        pool.not_before = time.time() + 0.1 * 2**pool.failed_starts
        if pool.failed_starts >= self.limits.failed_starts:
            result = container.init_result or Result(
                status=Result.GENERIC_STATUS_INIT_FAILURE,
                exception=f"Container exited with code {container.exit_code} before it took an input",
            )
            pool.failed_starts = 0
            while pool.pending:
                self.finish(pool.pending.popleft(), result)

    def ready(self, container: Container) -> None:
        if container.state == "starting":
            container.state, container.ready_at = "ready", time.time()
            container.idle_since = container.ready_at
            self.world.pool(container.function).failed_starts = 0

    def published(self, app: App) -> None:
        """A new version: variants follow their base, containers of the old definition drain."""
        for function in self.world.functions.values():
            if function.app is app or (function.base and function.base.app is app):
                if function.base:
                    refresh(function)
                for container in self.world.pool(function).live():
                    if container.generation != function.definition_id:
                        self.scaling.drain(container, "replaced")
        self.scaling.schedule()

    def stopped(self, app: App) -> None:
        for item in self.world.inputs.values():
            if item.call.function.app is app:
                self.cancel(item)
        for container in self.world.containers.values():
            if container.alive and container.function.app is app:
                self.spawn(self.containers.interrupt(container, "stopped", min(self.limits.grace, 5)))
        self.logs.signal.fire()

    def _watch_clocks(self) -> None:
        now = time.time()
        for container in [each for each in self.world.containers.values() if each.alive]:
            self._watch(container, now)
        for pool in self.world.pools.values():
            if any(0 < item.not_before <= now for item in pool.pending):
                pool.signal.fire()

    def _watch(self, container: Container, now: float) -> None:
        function = container.function
        for item in list(container.running.values()):
            if item.cancelled_at and now > item.cancelled_at + self.limits.cancel_grace:
                self.containers.kill(container, "cancelled")
            elif not item.cancelled_at and now > item.attempts[-1].began + function.timeout:
                self._time_out(item)
        startup = function.definition.startup_timeout_secs or function.timeout
        if container.state == "starting" and now > container.started_at + startup:
            container.init_result = Result(status=TIMEOUT, exception=f"Container did not start within {startup}s")
            self.containers.kill(container, "crashed")
        self.scaling.let_go(container, now)

    async def close(self) -> None:
        self.scaling.closed = True
        for container in self.world.containers.values():
            self.containers.kill(container, "stopped")
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*self.containers.watchers, return_exceptions=True), 20)
        for task in self.tasks:
            task.cancel()
