"""Runs computed on this machine: the batch's side of `flows.batching.executor`."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from infra.progress import StageEvent, publish
from infra.settings import get_settings
from stenoflow import isolated

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

_STOP_PATIENCE = 45.0
"""Seconds that cancelled stages are given to reach their next batch."""
_LONGEST_LINE = 1 << 20


class ProcessDied(Exception):
    """The process that computed the run is gone; the run may be what killed it, or have been beside the one that did."""

    def __init__(self, *, beside_others: bool) -> None:
        super().__init__()
        self.beside_others = beside_others


class Executor:
    """A process that computes runs, started when one is needed, and replaced when it dies or has done its share."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._waiting: dict[str, asyncio.Future[str]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._given = 0
        self._guard = asyncio.Lock()
        self.resident = 0
        """Bytes of memory that the process last used."""
        self.deaths = 0

    async def execute(self, run: FlowRun, *, by_hand: bool = False) -> str:
        """Execute the run; the name of the state it ended in. Raises ProcessDied. Whoever asks again meanwhile waits as well."""
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        async with self._guard:
            process = await self._ready()
            under_way = self._waiting.setdefault(str(run.id), ended)
            if under_way is ended:
                self._given += 1
                order = {"run": run.model_dump(mode="json"), "by_hand": by_hand}
                assert process.stdin is not None
                with contextlib.suppress(ConnectionError):  # its end is noticed where its lines are read
                    process.stdin.write(json.dumps(order).encode() + b"\n")
                    await process.stdin.drain()
        if under_way is not ended:
            return await asyncio.shield(under_way)
        try:
            return await ended
        finally:
            self._waiting.pop(str(run.id), None)

    async def stop(self, *, cancel: bool = False) -> None:
        """End the process, once what it computes has ended, or was cancelled."""
        if self._process is None or self._reader is None:
            return
        if cancel and self._process.returncode is None:
            await self._send({"cancel": True})
        await self._send({"end": True})
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_PATIENCE if cancel else None)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reader
        self._process = None

    async def _ready(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None and self._given < get_settings().batch.recycle:
            return self._process
        if self._process is not None and self._process.returncode is None:
            # The old one finishes what it has; its lines are read to their end before it is waited for.
            await self.stop()
        elif self._reader is not None:
            await self._reader
        self._process = await asyncio.create_subprocess_exec(
            *isolated.command("flows.batching.executor"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=_environment(),
            limit=_LONGEST_LINE,
            start_new_session=True,  # Ctrl-C is the batch's to handle
        )
        self._given = 0
        self._reader = asyncio.create_task(self._read(self._process))
        return self._process

    async def _send(self, line: dict[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._process.stdin.write(json.dumps(line).encode() + b"\n")
            await self._process.stdin.drain()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        mine = self._waiting
        async for text in process.stdout:
            try:
                line = json.loads(text)
            except ValueError:
                continue  # cut off by its death
            if "event" in line:
                publish(StageEvent(**line["event"]))
            elif ended := mine.get(line["ended"]):
                self.resident = line["rss"]
                if not ended.done():
                    ended.set_result(line["state"])
        await process.wait()
        left = [ended for ended in mine.values() if not ended.done()]
        self.deaths += bool(left)
        for ended in left:
            ended.set_exception(ProcessDied(beside_others=len(left) > 1))


def _environment() -> dict[str, str]:
    """This process's, with its settings and the Prefect API that its code talks to, and without what says which flow run it is."""
    from prefect.settings import get_current_settings

    from flows.prefect_compat.engine import environment_of_no_run

    return (
        environment_of_no_run()
        | get_settings.environment()
        | get_current_settings().to_environment_variables(exclude_unset=True)
    )
