"""One call on Modal from its spawning to its end: recorded, so that a run that was killed finds it again, watched, cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from infra.jobs import ProgressSink
from infra.on_modal.channel import INTERVAL, MOST
from infra.on_modal.contract import RemoteAnswer, RemoteEvent, calls_name, claim, events_name
from infra.on_modal.errors import modal_errors
from infra.progress import log_line
from infra.settings import ModalSettings
from infra.store import Store
from speech.stored import parsed
from stenoflow.errors import TransientError
from stenoflow.types import Frozen

if TYPE_CHECKING:
    import modal

T = TypeVar("T")

POLL = 20.0
"""Seconds that one request waits for the result."""
CANCEL_LIMIT = 10.0
"""Time-out for cancelling a call, in seconds; its executions are always bounded."""


class CallRecord(Frozen):
    """Where a stage is being computed, under `records/calls/<key>` in the store."""

    call_id: str
    app: str
    environment: str | None = None


class CallLost(Exception):
    """Modal no longer has the call, or its result: it is to be made again."""


class Calls:
    """Calls of one app, and their records in the store."""

    def __init__(self, store: Store, settings: ModalSettings) -> None:
        self.store = store
        self.settings = settings

    async def result(
        self,
        key: str,
        spawn: Callable[[], Awaitable[modal.FunctionCall[Any]]],
        doing: str,
        progress: ProgressSink,
        *,
        fresh: bool = False,
    ) -> RemoteAnswer:
        """The answer of the call that is recorded under `key`, or of a new one; always of a new one if `fresh`.

        Cancelling the awaiting task cancels the call. Raises the errors of `modal_errors`.
        """
        with modal_errors(doing):
            earlier = None if fresh else await self._recorded(key)
        if earlier is not None:
            with contextlib.suppress(CallLost):
                log_line(f"{doing}: attached to the earlier call {earlier.object_id}")
                return await self._awaited(key, earlier, doing, progress)
            log_line(f"{doing}: Modal no longer has the call; calling again")
        with modal_errors(doing):
            call = await spawn()
        record = CallRecord(call_id=call.object_id, app=self.settings.app, environment=self.settings.environment)
        try:
            await asyncio.to_thread(self.store.write_record, _name(key), record.model_dump_json().encode())
        except BaseException:
            await self._cancel(call)
            raise
        log_line(f"{doing}: {await call.get_dashboard_url.aio()}")
        try:
            return await self._awaited(key, call, doing, progress)
        except CallLost:
            raise TransientError(f"Modal lost the result of {doing}; it is recomputed.") from None

    async def _recorded(self, key: str) -> modal.FunctionCall[Any] | None:
        """The call that an earlier attempt recorded, or that its container noted where the attempt was killed too soon."""
        import modal
        from modal import exception

        content = await asyncio.to_thread(self.store.read_record, _name(key))
        try:
            record = parsed(CallRecord, content) if content else None
        except ValueError:
            record = None  # damaged; the container has noted the call as well
        if record is not None and (record.app, record.environment) == (self.settings.app, self.settings.environment):
            return await modal.FunctionCall.from_id(record.call_id).hydrate.aio()
        with contextlib.suppress(exception.NotFoundError):
            noted = await self._notes().get.aio(await self.claim(key))
            return await modal.FunctionCall.from_id(noted).hydrate.aio() if noted else None
        return None

    async def claim(self, key: str) -> str:
        """Where the call that computes `key` for this store is noted."""
        return claim(key, await asyncio.to_thread(lambda: self.store.identity))

    def _notes(self) -> modal.Dict:
        import modal

        return modal.Dict.from_name(calls_name(self.settings), environment_name=self.settings.environment)

    async def _awaited(self, key: str, call: modal.FunctionCall[Any], doing: str, progress: ProgressSink) -> RemoteAnswer:
        """The call's answer; its record goes when it has ended, and stays while it may still be at work."""
        from modal import exception

        watcher = asyncio.create_task(self._watch(call.object_id, progress))
        ended = True
        try:
            return RemoteAnswer.model_validate(await self._get(call, doing))
        except CallLost:
            raise
        except _OutOfReach as error:
            ended = False
            if isinstance(error.cause, exception.AuthError | exception.PermissionDeniedError):
                with modal_errors(doing):
                    raise error.cause from None
            raise TransientError(
                f"Modal was unreachable for {self.settings.reconnect:.0f} s during {doing} ({type(error.cause).__name__})."
            ) from None
        except BaseException:
            # Whether it is still at work is not known: what is made again must not be paid for twice.
            await self._cancel(call)
            raise
        finally:
            watcher.cancel()
            if ended:
                await asyncio.shield(self._ended(key, call.object_id, progress))

    async def _get(self, call: modal.FunctionCall[Any], doing: str) -> Any:
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
                with _builtin_timeouts_pass(), modal_errors(doing):
                    try:
                        return await call.get.aio(timeout=POLL)
                    except (exception.NotFoundError, exception.OutputExpiredError):
                        raise CallLost from None
                    except (*broken, exception.InternalFailure) as error:
                        away_since = away_since or time.monotonic()
                        if time.monotonic() - away_since > self.settings.reconnect:
                            if isinstance(error, exception.InternalFailure):
                                raise  # Modal's word on the call itself
                            raise _OutOfReach(error) from None
                        await asyncio.sleep(1.0)
                        continue
            except _StillRunning:
                away_since = None

    async def _watch(self, call_id: str, progress: ProgressSink) -> None:
        """Forward the container's messages."""
        while True:
            await asyncio.sleep(INTERVAL)
            with contextlib.suppress(Exception):
                await self._pass_on(call_id, progress)

    async def _pass_on(self, call_id: str, progress: ProgressSink) -> None:
        for value in await self._queue().get_many.aio(MOST, block=False, partition=call_id):
            event = RemoteEvent.model_validate(value)
            if event.line:
                log_line(event.line)
            if event.fraction is not None:
                progress(event.fraction)

    def _queue(self) -> modal.Queue:
        import modal

        return modal.Queue.from_name(events_name(self.settings), environment_name=self.settings.environment)

    async def _ended(self, key: str, call_id: str, progress: ProgressSink) -> None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CANCEL_LIMIT):
                await self._pass_on(call_id, progress)
                await self._notes().pop.aio(await self.claim(key), None)
        await asyncio.to_thread(self.store.delete_record, _name(key))

    async def _cancel(self, call: modal.FunctionCall[Any]) -> None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CANCEL_LIMIT):
                await call.cancel.aio()


class _StillRunning(Exception):
    pass


class _OutOfReach(Exception):
    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


@contextlib.contextmanager
def _builtin_timeouts_pass() -> Any:
    """`get(timeout=…)` raises the builtin TimeoutError when there is no result yet; Modal's own time-outs are others."""
    try:
        yield
    except TimeoutError:
        raise _StillRunning from None


def _name(key: str) -> str:
    return f"calls/{key}"
