"""A closed output pipe (`| head -1`): the command ends, with the exit code that shells expect."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any

CLOSED = 141
"""128 + SIGPIPE, as shells report a closed pipe."""


class Output:
    """A text stream that remembers that its reader is gone, and writes nowhere from then on."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._guard = threading.Lock()
        self.closed_by_reader = False
        self.at_closing: Callable[[], object] | None = None
        """What ends the command; where there is nothing, the writer gets BrokenPipeError."""

    def write(self, text: str) -> int:
        return self._tried(lambda: self._stream.write(text)) or 0

    def flush(self) -> None:
        self._tried(self._stream.flush)

    def _tried(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except BrokenPipeError:
            self._close()
            if self.at_closing is None:
                raise
            self.at_closing()
            return None

    def _close(self) -> None:
        """Python would complain again when it flushes at exit."""
        with self._guard:
            if not self.closed_by_reader:
                self.closed_by_reader = True
                with contextlib.suppress(OSError, ValueError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def watched() -> Iterator[Output]:
    """Standard output as an `Output` while the block lasts."""
    stream = sys.stdout
    output = Output(stream)
    sys.stdout = output
    try:
        yield output
    finally:
        sys.stdout = stream


@contextlib.contextmanager
def ending_with_reader(end: Callable[[], object]) -> Iterator[None]:
    """Call `end`, from the writing thread, when standard output is closed."""
    output = sys.stdout
    if not isinstance(output, Output):
        yield
        return
    output.at_closing = end
    try:
        yield
    finally:
        output.at_closing = None


def reader_left() -> bool:
    output = sys.stdout
    return isinstance(output, Output) and output.closed_by_reader
