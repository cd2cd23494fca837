"""Progress of stages inside this process: whoever runs a stage publishes, whoever shows it subscribes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

E = TypeVar("E")

StageState = Literal["started", "progress", "cached", "completed", "failed", "skipped"]


@dataclass(frozen=True)
class StageEvent:
    """What happened to one stage of one run."""

    run: str
    """The flow run's id."""
    stage: str
    """One of `speech.stages.STEPS`."""
    state: StageState
    fraction: float = 0.0
    """Done, 0…1; counted in batches or bytes, never estimated from time."""
    seconds: float | None = None
    detail: str = ""
    """A short remark: backend, batch, attempt; never transcript text."""


_log: ContextVar[Callable[[str], None] | None] = ContextVar("steno_log", default=None)


def log_line(line: str) -> None:
    """Log a line for the current stage; discarded when there is no log."""
    sink = _log.get()
    if sink is not None:
        with contextlib.suppress(Exception):
            sink(line)


@contextlib.contextmanager
def logging_to(sink: Callable[[str], None]) -> Iterator[None]:
    """Send every log line of the block and the tasks it starts to `sink`."""
    token = _log.set(sink)
    try:
        yield
    finally:
        _log.reset(token)


class Subscribers(Generic[E]):
    """Listeners of events that happen anywhere in this process."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[E], None]] = []
        self._guard = threading.Lock()

    def publish(self, event: E) -> None:
        """Tell every listener; called from any thread. A listener that raises disturbs nobody."""
        with self._guard:
            listeners = list(self._listeners)
        for listener in listeners:
            with contextlib.suppress(Exception):
                listener(event)

    @contextlib.contextmanager
    def listening(self, listener: Callable[[E], None]) -> Iterator[None]:
        """Notify `listener` of every event inside the block."""
        with self._guard:
            self._listeners.append(listener)
        try:
            yield
        finally:
            with self._guard:
                self._listeners.remove(listener)


_stages: Subscribers[StageEvent] = Subscribers()
publish = _stages.publish
listening = _stages.listening
