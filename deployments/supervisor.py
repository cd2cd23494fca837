"""One machine's server and worker, kept running: a process that ends is started again, with longer and longer pauses."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from types import FrameType

from deployments.processes import Child
from infra.processes import ending_signals
from stenoflow.errors import ProcessKeepsEnding

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Seconds before a process that ended is started again; each end within `STEADY` seconds doubles the pause."""
STEADY = 300.0
"""Seconds after which a process counts as running well again."""
GIVE_UP = 8
"""Ends within `STEADY` seconds of each other after which it is not started again."""
GRACE = {"worker": 45.0, "courier": 30.0, "server": 12.0}
"""Seconds to end in order. The worker's runs have 30 of them to end theirs, the courier's attempts 20."""


class Supervisor:
    """Keeps processes running until `stop()`, SIGINT or SIGTERM."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._stop = threading.Event()
        self._children: list[Child] = []
        self._ends: dict[str, deque[float]] = {}
        self._due: dict[str, float] = {}

    def start(self, child: Child) -> None:
        """Start a process and keep it running from now on."""
        self._children.append(child)
        self._ends[child.name] = deque(maxlen=GIVE_UP)
        child.start()

    def stop(self) -> None:
        self._stop.set()

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def watch_signals(self) -> None:
        """Stop in order on Ctrl-C, SIGTERM and a closed terminal; the second time, end everything at once."""
        for number in ending_signals():
            signal.signal(number, self._signalled)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if self._stop.is_set():
            for child in self._children:
                if child.exit_code is None:
                    child.kill()
            os._exit(128 + number)
        self._stop.set()

    def run(self) -> None:
        """Watch the processes until stopped. Raises ProcessKeepsEnding when one keeps ending."""
        while not self._stop.wait(0.5):
            for child in self._children:
                self._look_at(child)

    def _look_at(self, child: Child) -> None:
        if child.exit_code is None:
            return
        now = time.monotonic()
        due = self._due.get(child.name)
        if due is None:
            self._due[child.name] = now + self._ended(child, now)
        elif now >= due:
            del self._due[child.name]
            child.start()

    def _ended(self, child: Child, now: float) -> float:
        """Note that it ended; the pause before it is started again."""
        ends = self._ends[child.name]
        ends.append(now)
        recent = sum(now - end < STEADY for end in ends)
        if recent >= GIVE_UP:
            raise ProcessKeepsEnding(
                f"The {child.name} stopped {recent} times within minutes, most recently with "
                f"{_exit(child.exit_code or 0)}{_last_line(child)}"
            )
        pause: float = min(FIRST_PAUSE * 2.0 ** (recent - 1), LONGEST_PAUSE)
        self._say(f"The {child.name} ended with {_exit(child.exit_code or 0)}; starting it again in {pause:.0f} s.")
        return pause

    def end(self, children: Iterable[Child] | None = None) -> None:
        """End the processes in order, the last started first, so that a worker can still report to its server."""
        for child in reversed(list(children) if children is not None else self._children):
            child.stop(GRACE.get(child.name, 10.0))


def _exit(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"code {code}"


def _last_line(child: Child) -> str:
    line = child.last_line()
    return f" ({line}); its log is {child.log}." if line else f"; its log is {child.log}."
