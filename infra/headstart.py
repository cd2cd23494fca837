"""Work that is begun before the run that will ask for it is there: a command does not wait idly for Prefect's server.

Work is identified by its stage key. A run takes it over by key; work that was requested before it started is not started any
more, so that nothing is computed twice. An error is discarded: the run then computes the stage itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, Generic, TypeVar

from stenoflow.errors import StageCancelled

T = TypeVar("T")

_LOOK = 0.2
"""Seconds between two looks at whether the one who waits was cancelled."""


class Begun(Generic[T]):
    """One piece of work, at work in another thread or done."""

    def __init__(self, stopped: threading.Event) -> None:
        self.moment = time.perf_counter()
        self._future: Future[T] = Future()
        self._stopped = stopped
        self._fraction = 0.0

    def perform(self, work: Callable[[Callable[[float], None]], T]) -> T:
        """Do the work in this thread; `work` gets the sink for the fraction done."""
        try:
            result = work(self._report)
        except BaseException as error:
            self._future.set_exception(error)
            raise
        self._future.set_result(result)
        return result

    def _report(self, fraction: float) -> None:
        if self._stopped.is_set():
            raise StageCancelled("The stage was started ahead of its run, which was cancelled.")
        self._fraction = fraction

    def result(self, report: Callable[[float], None]) -> T | None:
        """What came of it, when it is done; None when it failed. Blocks.

        When `report` raises, the work is stopped, and the error passed on once it has ended.
        """
        while not wait([self._future], _LOOK).done:
            try:
                report(self._fraction)
            except BaseException:
                self._stopped.set()
                wait([self._future])
                raise
        return None if self._future.exception() is not None else self._future.result()


class HeadStart:
    """What was begun, and what was asked for, since it was made."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._begun: dict[str, Begun[Any]] = {}
        self._asked: set[str] = set()
        self._taken: list[tuple[float, float]] = []
        """When each that was handed over was begun, and when it was asked for."""
        self._stopped = threading.Event()

    def begin(self, key: str) -> Begun[Any] | None:
        """Announce the work of that key; None when it was cancelled or already taken over."""
        with self._guard:
            if key in self._asked or self._stopped.is_set():
                return None
            begun = self._begun[key] = Begun(self._stopped)
            return begun

    def take(self, key: str) -> Begun[Any] | None:
        """The work of that key, if it was begun. Only the first who asks gets it."""
        with self._guard:
            self._asked.add(key)
            begun = self._begun.pop(key, None)
            if begun is not None:
                self._taken.append((begun.moment, time.perf_counter()))
            return begun

    def waits(self, key: str) -> bool:
        """Whether the work of that key was started and not taken over yet."""
        with self._guard:
            return key in self._begun

    def seconds_before(self, moment: float) -> float:
        """How long before `moment` (of `time.perf_counter`) the first piece was begun of those that were handed over since."""
        with self._guard:
            return max([moment - began for began, taken in self._taken if taken >= moment], default=0.0)

    def stop(self) -> None:
        """End it at its next report, and begin nothing more."""
        self._stopped.set()


_current: HeadStart | None = None


def use(head_start: HeadStart | None) -> None:
    """Have the stages of this process look there first; what an earlier one has at work is stopped."""
    global _current  # noqa: PLW0603
    if _current is not None:
        _current.stop()
    _current = head_start


def begun(key: str) -> Begun[Any] | None:
    """Take over the work of that key."""
    return _current.take(key) if _current is not None else None


def waits(key: str) -> bool:
    """Whether work of that key was started and not taken over yet. Its record may be written already: work that
    a kill interrupts before the run asks for it is not lost."""
    return _current is not None and _current.waits(key)


def seconds_before(moment: float) -> float:
    """How much earlier than at `moment` the work of a run began, that has asked since then for what was begun; 0 when for nothing."""
    return _current.seconds_before(moment) if _current is not None else 0.0
