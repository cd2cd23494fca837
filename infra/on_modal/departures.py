"""Which calls recordings travel in: alone while there are few, several to a call once short ones come in numbers.

A call of its own costs a recording of a minute more time than its stages do. So what is short waits for a call that ends when
enough are at work already, and the next call takes all that wait.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from infra.jobs import StageJob
from infra.on_modal.live import LiveCall
from speech.stages import StageName
from stenoflow.errors import ArtifactMissing

SHORT = 180.0
"""Seconds of the longest recording that others share a call with."""
AT_ONCE = 4
"""Calls that are at work before recordings wait for one another."""


class Kind(NamedTuple):
    """What the recordings of one call have in common."""

    machine: str
    stage: StageName
    gpu: str | None
    model: str


class _Line:
    """Jobs of one kind."""

    def __init__(self) -> None:
        self.waiting: list[tuple[StageJob, asyncio.Future[LiveCall]]] = []
        self.calls = 0
        self.jobs = 0
        """In the calls that are at work."""


class Departures:
    """Makes calls of at most `limit` jobs of one kind by `spawn`."""

    def __init__(self, spawn: Callable[[Kind, Sequence[StageJob]], Awaitable[LiveCall]], limit: int) -> None:
        self._spawn = spawn
        self._limit = limit
        self._lines: defaultdict[Kind, _Line] = defaultdict(_Line)
        self._leaving: set[asyncio.Task[None]] = set()

    async def board(self, kind: Kind, job: StageJob) -> LiveCall:
        """The call that carries the job, once it is made. Raises what making it raises."""
        boarded: asyncio.Future[LiveCall] = asyncio.get_running_loop().create_future()
        self._lines[kind].waiting.append((job, boarded))
        self._depart(kind)
        return await boarded

    def _depart(self, kind: Kind) -> None:
        line = self._lines[kind]
        line.waiting = [(job, boarded) for job, boarded in line.waiting if not boarded.cancelled()]
        while line.waiting and (line.calls < max(AT_ONCE, -(-(line.jobs + len(line.waiting)) // self._limit))):
            aboard, line.waiting = line.waiting[: self._limit], line.waiting[self._limit :]
            line.calls += 1
            line.jobs += len(aboard)
            leaving = asyncio.create_task(self._leave(kind, aboard))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        if not line.calls:
            del self._lines[kind]

    async def _leave(self, kind: Kind, aboard: list[tuple[StageJob, asyncio.Future[LiveCall]]]) -> None:
        try:
            live = await self._spawn(kind, [job for job, _ in aboard])
        except Exception as error:
            if isinstance(error, ArtifactMissing) and len(aboard) > 1:  # one recording's, and no business of the others
                self._lines[kind].calls += len(aboard) - 1
                await asyncio.gather(*(self._leave(kind, [one]) for one in aboard))
                return
            self._arrived(kind, len(aboard))
            for _, boarded in aboard:
                if not boarded.done():
                    boarded.set_exception(error)
            return
        live.ended.add_done_callback(lambda _: self._arrived(kind, len(aboard)))
        for job, boarded in aboard:
            if boarded.cancelled():
                await live.drop(job.key)
            else:
                boarded.set_result(live)

    def _arrived(self, kind: Kind, jobs: int) -> None:
        line = self._lines[kind]
        line.calls -= 1
        line.jobs -= jobs
        self._depart(kind)
