"""Progress of stages inside this process: whoever runs a stage publishes, whoever shows it subscribes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

StageState = Literal["started", "progress", "cached", "completed", "failed", "skipped"]


@dataclass(frozen=True)
class StageEvent:
    """What happened to one stage of one run."""

    run: str
    """The flow run's id."""
    stage: str
    """`fetch`, `segment`, `asr`, `align`, `embed`, `diarize`, `merge` or `export`."""
    state: StageState
    fraction: float = 0.0
    """Done, 0…1; counted in batches or bytes, never estimated from time."""
    seconds: float | None = None
    detail: str = ""
    """A short remark: backend, batch, attempt; never transcript text."""


Listener = Callable[[StageEvent], None]

_log: ContextVar[Callable[[str], None] | None] = ContextVar("steno_log", default=None)


def log_line(line: str) -> None:
    """Say something for the log of the stage that is at work in this context; nowhere when nobody keeps one."""
    sink = _log.get()
    if sink is not None:
        with contextlib.suppress(Exception):
            sink(line)


@contextlib.contextmanager
def logging_to(sink: Callable[[str], None]) -> Iterator[None]:
    """Have `sink` told every line that the block, and the tasks it starts, say."""
    token = _log.set(sink)
    try:
        yield
    finally:
        _log.reset(token)


_listeners: list[Listener] = []
_guard = threading.Lock()


def publish(event: StageEvent) -> None:
    """Tell every listener; called from any thread. A listener that raises does not disturb the stage."""
    with _guard:
        listeners = list(_listeners)
    for listener in listeners:
        with contextlib.suppress(Exception):
            listener(event)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have `listener` told of every event inside the block."""
    with _guard:
        _listeners.append(listener)
    try:
        yield
    finally:
        with _guard:
            _listeners.remove(listener)
