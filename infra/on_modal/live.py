"""A call at Modal that this process waits for: one request at a time, on behalf of all stages that the call computes."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infra.jobs import ProgressSink
from infra.on_modal.channel import INTERVAL, MOST
from infra.on_modal.contract import RemoteAnswer, RemoteAnswers, RemoteEvent, events_name, stops
from infra.progress import log_line
from infra.settings import ModalSettings

if TYPE_CHECKING:
    import modal

POLL = 20.0
"""Seconds that one request waits for the result."""
CANCEL_LIMIT = 10.0
"""Time-out for cancelling a call, in seconds; its executions are always bounded."""
UNCLAIMED = 60.0
"""Seconds for which a stage that the call went on with is computed although no run has asked for it yet."""


class CallLost(Exception):
    """Modal no longer has the call, or its result: it is to be made again."""


class OutOfReach(Exception):
    """Modal could not be asked for `STENO_MODAL__RECONNECT` seconds; the call goes on."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


@dataclass
class _Waiter:
    answered: asyncio.Future[RemoteAnswer]
    progress: ProgressSink
    context: contextvars.Context
    """Of the run that waits: log lines go to its log."""


class LiveCall:
    """Made when the call is spawned or found again; it polls until the call has ended, whoever still waits."""

    def __init__(self, call: modal.FunctionCall[Any], settings: ModalSettings) -> None:
        self.call = call
        self.settings = settings
        self.answers: dict[str, RemoteAnswer] = {}
        """Those that no run has collected yet."""
        self._collected: set[str] = set()
        self._wanted: dict[str, float] = {}
        """Keys of stages that are still wanted, and since when."""
        self._waiters: dict[str, _Waiter] = {}
        self._events: defaultdict[str, list[RemoteEvent]] = defaultdict(list)
        self.ended = asyncio.create_task(self._poll(), context=contextvars.Context())  # not that of the run that came first
        self.ended.add_done_callback(lambda done: done.cancelled() or done.exception())

    def want(self, *keys: str) -> None:
        """Somebody waits for these stages, or will ask for them soon."""
        for key in keys:
            if key not in self._collected:
                self._wanted.setdefault(key, time.monotonic())

    @property
    def failed(self) -> bool:
        """Whether it ended without answers, or Modal was out of reach for too long."""
        return self.ended.done() and (self.ended.cancelled() or self.ended.exception() is not None)

    def computes(self, key: str) -> bool:
        """Whether the answer for that key is here, or still to come."""
        return key in self.answers or (key in self._wanted and not self.ended.done())

    async def answer(self, key: str, progress: ProgressSink) -> RemoteAnswer:
        """What became of that stage, as soon as it has ended. Raises CallLost, OutOfReach and Modal's own errors."""
        self.want(key)
        loop = asyncio.get_running_loop()
        waiter = self._waiters[key] = _Waiter(loop.create_future(), progress, contextvars.copy_context())
        for event in self._events.pop(key, ()):
            self._handle(event)
        try:
            if key in self.answers:
                waiter.answered.set_result(self.answers[key])
            else:
                waited: set[asyncio.Future[Any]] = {waiter.answered, self.ended}
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not waiter.answered.done():
                self.ended.result()
                raise CallLost
            return waiter.answered.result()
        finally:
            self._waiters.pop(key, None)
            if waiter.answered.done():
                self._forget(key)

    async def drop(self, key: str) -> None:
        """The stage is no longer wanted: the container stops it, or, when it was the last, Modal the call."""
        self._forget(key)
        if self.ended.done() and not self.failed:
            return
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CANCEL_LIMIT):
                if self._wanted:
                    await self._queue().put.aio(key, partition=stops(self.call.object_id))
                else:
                    await self.call.cancel.aio()

    def _forget(self, key: str) -> None:
        self._collected.add(key)
        self.answers.pop(key, None)
        self._wanted.pop(key, None)

    # -- until it has ended ---------------------------------------------------------------------------------------------

    async def _poll(self) -> None:
        watcher = asyncio.create_task(self._watch())
        try:
            given = RemoteAnswers.model_validate(await self._get())
        finally:
            watcher.cancel()
            with contextlib.suppress(Exception):
                async with asyncio.timeout(CANCEL_LIMIT):
                    await self._pass_on()
        for key, answer in given.answers.items():
            self._answered(key, answer)
        if given.rest is not None:
            for key in list(self._wanted):
                if key not in given.answers:
                    self._answered(key, given.rest)

    async def _get(self) -> Any:
        """Wait in requests of POLL seconds. A network that is away for a while changes nothing: the call goes on without us."""
        from grpclib.exceptions import StreamTerminatedError
        from modal import exception

        broken = (
            exception.ConnectionError,
            exception.ServiceError,
            exception.InternalError,
            StreamTerminatedError,
            ConnectionError,
            # Answers to the question and not to the call, which goes on.
            exception.ResourceExhaustedError,
            exception.ConflictError,
            exception.DataLossError,
            exception.AuthError,
            exception.PermissionDeniedError,
        )
        away_since: float | None = None
        while True:
            try:
                return await self.call.get.aio(timeout=POLL)
            except (exception.NotFoundError, exception.OutputExpiredError):
                raise CallLost from None
            except (*broken, exception.InternalFailure) as error:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > self.settings.reconnect:
                    if isinstance(error, exception.InternalFailure):
                        raise  # Modal's word on the call itself
                    raise OutOfReach(error) from None
                await asyncio.sleep(1.0)
            except TimeoutError:  # the builtin one: no result yet
                away_since = None

    async def _watch(self) -> None:
        """Forward the container's messages, and give up what nobody asked for."""
        while True:
            await asyncio.sleep(INTERVAL)
            with contextlib.suppress(Exception):
                await self._pass_on()
            for key, since in list(self._wanted.items()):
                if key not in self._waiters and key not in self.answers and time.monotonic() - since > UNCLAIMED:
                    await self.drop(key)

    async def _pass_on(self) -> None:
        for value in await self._queue().get_many.aio(MOST, block=False, partition=self.call.object_id):
            event = RemoteEvent.model_validate(value)
            if event.answer is not None:
                self._answered(event.key, event.answer)
            elif event.key in self._waiters:
                self._handle(event)
            elif event.key not in self._collected:
                self._events[event.key].append(event)

    def _handle(self, event: RemoteEvent) -> None:
        waiter = self._waiters[event.key]
        if event.line:
            waiter.context.run(log_line, event.line)
        if event.fraction is not None:
            waiter.progress(event.fraction)

    def _answered(self, key: str, answer: RemoteAnswer) -> None:
        self.want(*answer.next)
        if key in self._collected:
            return
        self.answers[key] = answer
        waiter = self._waiters.get(key)
        if waiter is not None and not waiter.answered.done():
            waiter.answered.set_result(answer)

    def _queue(self) -> modal.Queue:
        import modal

        return modal.Queue.from_name(events_name(self.settings), environment_name=self.settings.environment)
