"""The warm workers: processes with the models loaded, which the API asks over a socket and starts again when they end.

The API itself loads no model and imports nothing of the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Sequence
from typing import Any

from api import cures
from api.errors import Unavailable
from infra import chunk_messages
from infra.chunk_messages import Garbled, Message
from infra.compute import runtime_of
from infra.settings import StenoSettings
from stenoflow import isolated

RETRY_START = 5.0
"""Seconds after a failed start before the next one is tried."""
_GRACE = 5.0
_log = logging.getLogger(__name__)


class WorkerEnded(Exception):
    """The process ended, or no longer answers, while it was asked."""


class Worker:
    """One process, started when it is first asked. One question at a time."""

    def __init__(self, settings: StenoSettings) -> None:
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._refusal: tuple[float, Unavailable] | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, while it is there."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def started(self) -> None:
        """Start the process unless it runs, and wait for its models. Raises Unavailable."""
        if self.pid is not None and self._writer is not None:
            return
        if self._refusal is not None and time.monotonic() - self._refusal[0] < RETRY_START:
            raise self._refusal[1]
        try:
            await self._start()
            self._refusal = None
        except Unavailable as error:
            self._refusal = time.monotonic(), error
            raise

    async def _start(self) -> None:
        await self.close()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *isolated.command("infra.chunk_worker", str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        self._reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        try:
            ready = await self.ask(_greeting(self._settings), (), self._settings.api.chunk_start_seconds)
        except WorkerEnded:
            raise Unavailable("The worker for audio chunks did not start.", retry_after=RETRY_START) from None
        if "error" in ready.header:
            await self.close()
            _log.error("the worker for audio chunks did not start: %s", ready.header["detail"])
            code, detail = ready.header["error"], ready.header["detail"]
            raise Unavailable(cures.message_for_callers(code, detail, ready.header["happened"]), retry_after=60.0, code=code)
        _log.info("a worker for audio chunks is ready after %.1f s", ready.header["seconds"])

    async def ask(self, header: dict[str, Any], parts: Sequence[bytes], seconds: float) -> Message:
        """The answer. Raises WorkerEnded, also when there is none within so many seconds: then the process is ended."""
        assert self._reader is not None
        assert self._writer is not None
        try:
            async with asyncio.timeout(seconds):
                self._writer.write(chunk_messages.packed(header, parts))
                await self._writer.drain()
                return await _message(self._reader)
        except (TimeoutError, EOFError, ConnectionError, Garbled) as error:
            await self.close(grace=0.0)
            raise WorkerEnded(type(error).__name__) from None

    async def close(self, grace: float = _GRACE) -> None:
        """Hang up, which ends the process; kill it when it does not."""
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(ConnectionError):
                await self._writer.wait_closed()
        process, self._process, self._reader, self._writer = self._process, None, None, None
        if process is None:
            return
        try:
            async with asyncio.timeout(grace):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _message(reader: asyncio.StreamReader) -> Message:
    length = chunk_messages.header_length(await reader.readexactly(chunk_messages.LENGTH.size))
    header, sizes = chunk_messages.parsed_header(await reader.readexactly(length))
    return Message(header, tuple([await reader.readexactly(size) for size in sizes]))


def _greeting(settings: StenoSettings) -> dict[str, Any]:
    """What to load, and how to run it: alone on its cores, unlike the stages of a flow."""
    return {"params": {"model": settings.model}, "runtime": runtime_of(settings).model_dump(mode="json")}


class Pool:
    """As many workers as the settings say, and a short queue before them."""

    def __init__(self, settings: StenoSettings) -> None:
        self._settings = settings.api
        self.workers = [Worker(settings) for _ in range(self._settings.chunk_workers)]
        self._idle: asyncio.Queue[Worker] = asyncio.Queue()
        for worker in self.workers:
            self._idle.put_nowait(worker)
        self._under_way: set[asyncio.Task[Message]] = set()

    async def ask(self, header: dict[str, Any], parts: Sequence[bytes]) -> Message:
        """A worker's answer. Raises Unavailable when too many wait already, when none answers in time, and when none starts."""
        if not self.workers:
            raise Unavailable("This service does not accept audio chunks.", code="no_chunks")
        if len(self._under_way) >= len(self.workers) + self._settings.chunk_queue:
            raise Unavailable("The workers for audio chunks are busy; send the chunk again.", retry_after=2.0, code="busy")
        task = asyncio.create_task(self._answer(header, parts))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        # A caller who hangs up must not leave a worker in the middle of an answer.
        return await asyncio.shield(task)

    async def _answer(self, header: dict[str, Any], parts: Sequence[bytes]) -> Message:
        try:
            async with asyncio.timeout(self._settings.chunk_timeout):
                worker = await self._idle.get()
        except TimeoutError:
            raise Unavailable(
                "No worker for audio chunks became free in time; send the chunk again.", retry_after=5.0, code="busy"
            ) from None
        try:
            return await self._from(worker, header, parts)
        finally:
            self._idle.put_nowait(worker)

    async def _from(self, worker: Worker, header: dict[str, Any], parts: Sequence[bytes]) -> Message:
        """The worker's answer, asked once more when its process ends: that may not have been the chunk's fault."""
        for attempt in (1, 2):
            await worker.started()
            try:
                return await worker.ask(header, parts, self._settings.chunk_timeout)
            except WorkerEnded as error:
                _log.error("a worker for audio chunks stopped during a chunk (%s)", error)
                if attempt == 2 or str(error) == TimeoutError.__name__:
                    break
        raise Unavailable(
            "The worker for audio chunks stopped; send the chunk again.", retry_after=RETRY_START, code="worker_lost"
        )

    async def start(self) -> None:
        """Load the models of all workers. What goes wrong is said again when a chunk comes."""
        await asyncio.gather(*(worker.started() for worker in self.workers), return_exceptions=True)

    async def close(self) -> None:
        """End all workers."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await asyncio.gather(*(worker.close() for worker in self.workers))
