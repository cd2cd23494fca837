"""The calls of this process: recorded, so that a run that was killed finds them again, and left when nobody waits any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from infra.jobs import ProgressSink
from infra.on_modal.contract import RemoteAnswer, calls_name, claim
from infra.on_modal.errors import modal_errors
from infra.on_modal.live import CANCEL_LIMIT, UNCLAIMED, CallLost, LiveCall, OutOfReach
from infra.progress import log_line
from infra.settings import ModalSettings
from infra.store import Store
from speech.stored import parsed
from stenoflow.errors import TransientError
from stenoflow.types import Frozen

if TYPE_CHECKING:
    import modal


class CallRecord(Frozen):
    """Where a stage is being computed, under `records/calls/<key>` in the store."""

    call_id: str
    app: str
    environment: str | None = None


class Calls:
    """Calls of one app, and their records in the store."""

    def __init__(self, store: Store, settings: ModalSettings) -> None:
        self.store = store
        self.settings = settings
        self._live: dict[str, LiveCall] = {}
        """By the call's id."""

    def live(self, call: modal.FunctionCall[Any]) -> LiveCall:
        """The call as this process waits for it: once, however many of its stages are asked for."""
        found = self._live.get(call.object_id)
        if found is None or found.failed:
            found = self._live[call.object_id] = LiveCall(call, self.settings)
            loop = asyncio.get_running_loop()

            # What it went on with may not have been asked for yet; after that time its answer is Modal's to give.
            found.ended.add_done_callback(lambda _: loop.call_later(UNCLAIMED, self._live.pop, call.object_id, None))
        return found

    async def result(
        self,
        key: str,
        start: Callable[[], Awaitable[LiveCall]],
        doing: str,
        progress: ProgressSink,
        *,
        fresh: bool = False,
    ) -> RemoteAnswer:
        """The answer of the call that computes `key` already, or of the one that `start` makes; always of that one if `fresh`.

        Cancelling the awaiting task cancels the stage, and the call with its last stage. Raises the errors of `modal_errors`.
        """
        earlier = None if fresh else next((live for live in self._live.values() if live.computes(key)), None)
        if earlier is None and not fresh:
            with modal_errors(doing):
                earlier = await self._recorded(key)
            if earlier is not None:
                log_line(f"{doing}: attached to the earlier call {earlier.call.object_id}")
        if earlier is not None:
            with contextlib.suppress(CallLost):
                return await self._awaited(key, earlier, doing, progress)
            log_line(f"{doing}: Modal no longer has the call; calling again")
        with modal_errors(doing):
            live = await start()
        record = CallRecord(call_id=live.call.object_id, app=self.settings.app, environment=self.settings.environment)
        try:
            await asyncio.to_thread(self.store.write_record, _name(key), record.model_dump_json().encode())
            log_line(f"{doing}: {await live.call.get_dashboard_url.aio()}")
        except BaseException:
            await asyncio.shield(live.drop(key))
            raise
        try:
            return await self._awaited(key, live, doing, progress)
        except CallLost:
            raise TransientError(f"Modal lost the result of {doing}; it is recomputed.") from None

    async def _recorded(self, key: str) -> LiveCall | None:
        """The call that an earlier attempt recorded, or that its container noted where the attempt was killed too soon."""
        import modal
        from modal import exception

        content = await asyncio.to_thread(self.store.read_record, _name(key))
        try:
            record = parsed(CallRecord, content) if content else None
        except ValueError:
            record = None  # damaged; the container has noted the call as well
        noted: str | None = None
        if record is not None and (record.app, record.environment) == (self.settings.app, self.settings.environment):
            noted = record.call_id
        else:
            with contextlib.suppress(exception.NotFoundError):
                noted = await self._notes().get.aio(await self.claim(key))
        if not noted:
            return None
        with contextlib.suppress(exception.NotFoundError):
            return self.live(await modal.FunctionCall.from_id(noted).hydrate.aio())
        return None

    async def owner(self) -> str:
        """The identity of the store."""
        return await asyncio.to_thread(lambda: self.store.identity)

    async def claim(self, key: str) -> str:
        """Where the call that computes `key` for this store is noted."""
        return claim(key, await self.owner())

    def _notes(self) -> modal.Dict:
        import modal

        return modal.Dict.from_name(calls_name(self.settings), environment_name=self.settings.environment)

    async def _awaited(self, key: str, live: LiveCall, doing: str, progress: ProgressSink) -> RemoteAnswer:
        """The call's answer; its record goes when it has ended, and stays while it may still be at work."""
        from modal import exception

        ended = True
        try:
            with modal_errors(doing):
                return await live.answer(key, progress)
        except CallLost:
            raise
        except OutOfReach as error:
            ended = False
            if isinstance(error.cause, exception.AuthError | exception.PermissionDeniedError):
                with modal_errors(doing):
                    raise error.cause from None
            raise TransientError(
                f"Modal was unreachable for {self.settings.reconnect:.0f} s during {doing} ({type(error.cause).__name__})."
            ) from None
        except BaseException:
            # Whether it is still at work is not known: what is made again must not be paid for twice.
            await asyncio.shield(live.drop(key))
            raise
        finally:
            if ended:
                await asyncio.shield(self._ended(key))

    async def _ended(self, key: str) -> None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CANCEL_LIMIT):
                await self._notes().pop.aio(await self.claim(key), None)
        await asyncio.to_thread(self.store.delete_record, _name(key))


def _name(key: str) -> str:
    return f"calls/{key}"
