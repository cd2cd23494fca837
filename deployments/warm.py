"""Processes that execute one run after another: imports are done and models loaded when a run arrives.

The worker's side of `deployments.execute`. A process executes one run at a time, so that whatever kills it costs that run alone.
It takes another one only where it has nothing left from the last: after a run that completed in order. It is replaced after
`STENO_BATCH__RECYCLE` runs, when its memory has grown, when a package or a `.env` file has changed, and when it was idle for
`STENO_COMPUTE__IDLE_SECONDS`: ended, it gives back its models and what a GPU's driver keeps for a process. One that has only
imported what runs need waits in its place.

Each end of the socket notices the other's death. A process whose worker is gone finishes its run, and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

SPARE_AFTER = 5.0
"""Seconds after the last idle process was taken before another one starts: its imports would compete with the run's start, and
a short run is over by then."""
_TRIES = 3


class Warm:
    """One process."""

    def __init__(self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self.made_of: object = None
        """The code and settings that it has read."""
        self.runs = 0
        self.retiring: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    async def begin(self, run: Mapping[str, str]) -> bool:
        """Hand it a run, by its variables. False when the process is gone, and has begun nothing."""
        self.runs += 1
        with contextlib.suppress(ConnectionError):
            self._writer.write(json.dumps(dict(run)).encode() + b"\n")
            await self._writer.drain()
            return bool(await self._reader.readline())
        return False

    async def ended(self) -> tuple[int, bool]:
        """Wait for the end of its run: an exit code, and whether it takes another run."""
        line = b""
        with contextlib.suppress(ConnectionError):
            line = await self._reader.readline()
        if not line:
            return await self._process.wait(), False
        return 0, bool(json.loads(line)["again"])

    def end(self) -> None:
        """End it at once: what its last run had to say was sent before that run ended, and a thread that hangs would keep it."""
        if self.retiring is not None:
            self.retiring.cancel()
        self._writer.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


@dataclass(frozen=True)
class Kind:
    """What a worker's processes are started with."""

    command: Callable[[int], list[str]]
    """By the descriptor of its end of the socket."""
    env: Callable[[], Mapping[str, str]]
    folder: Callable[[], Path]
    """It works there; made when it does not exist."""
    idle_seconds: float
    """After which models are given back."""


class WarmProcesses:
    """A worker's: as many as there were runs at once, and one idle one before a run needs it."""

    def __init__(self, kind: Kind, places: int | None) -> None:
        self._kind = kind
        self._places = places
        self._idle: list[Warm] = []
        """The latest used last."""
        self._busy: set[Warm] = set()
        self._starting: set[asyncio.Task[None]] = set()
        self._closed = False

    async def begin(self, run: Mapping[str, str]) -> Warm:
        """A process that has begun the run. Raises RuntimeError where none starts."""
        for _ in range(_TRIES):
            process = self._take() or await self._start()
            self._busy.add(process)
            begun = False
            try:
                begun = await process.begin(run)
            finally:
                if not begun:  # also where the worker is stopped meanwhile: the run is put back, and may not begin
                    self._busy.discard(process)
                    process.end()
            if begun:
                asyncio.get_running_loop().call_later(SPARE_AFTER, self.keep_spare)
                return process
        raise RuntimeError("The process for the run ended before it began; the worker's log says why.")

    async def ended(self, process: Warm) -> int:
        """Wait for the end of the run that the process has begun: an exit code."""
        again = False
        try:
            code, again = await process.ended()
        finally:
            self._busy.discard(process)
            if again and not self._closed:
                self._rest(process)
            else:
                process.end()
                self.keep_spare()
        return code

    def keep_spare(self) -> None:
        """Start a process unless an idle one is there, or as many as the worker has places."""
        self._idle = [process for process in self._idle if process.returncode is None]
        there = len(self._idle) + len(self._busy) + len(self._starting)
        if self._closed or self._idle or self._starting or (self._places is not None and there >= self._places):
            return
        starting = asyncio.create_task(self._add())
        self._starting.add(starting)
        starting.add_done_callback(self._starting.discard)
        starting.add_done_callback(lambda done: done.cancelled() or done.exception())  # the next run meets it again

    def close(self) -> None:
        """End those that are idle; the others end with their runs."""
        self._closed = True
        while self._idle:
            self._idle.pop().end()

    def _take(self) -> Warm | None:
        made_of = self._made_of()
        while self._idle:
            process = self._idle.pop()
            if process.returncode is None and process.made_of == made_of:
                if process.retiring is not None:
                    process.retiring.cancel()
                return process
            process.end()
        return None

    def _rest(self, process: Warm) -> None:
        self._idle.append(process)
        process.retiring = asyncio.get_running_loop().call_later(self._kind.idle_seconds, self._retire, process)

    def _retire(self, process: Warm) -> None:
        if process in self._idle:
            self._idle.remove(process)
            process.end()
            self.keep_spare()

    async def _add(self) -> None:
        process = await self._start()
        if self._closed:
            process.end()
        else:
            self._idle.insert(0, process)

    async def _start(self) -> Warm:
        made_of = self._made_of()
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *self._kind.command(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=os.environ | self._kind.env(),
                cwd=self._kind.folder(),
            )
        started = Warm(process, *await asyncio.open_unix_connection(sock=ours))
        started.made_of = made_of
        return started

    def _made_of(self) -> object:
        """Changes with the packages that are installed, and with what settings are read from."""
        folder = self._kind.folder()
        places = (*(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")), folder / ".env")
        folder.mkdir(parents=True, exist_ok=True)
        return folder, folder.stat().st_ino, tuple(_changed_at(place) for place in places)


def _changed_at(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime_ns
    return 0
