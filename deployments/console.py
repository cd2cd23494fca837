"""What a run prints goes to its worker. This keeps the run alive when that has died and nobody reads any more."""

from __future__ import annotations

import logging
import os

from prefect.logging.handlers import PrefectConsoleHandler


class ConsoleHandler(PrefectConsoleHandler):
    """Prefect's, which rich would have end the process at the first line that nobody reads (`Console.on_broken_pipe`)."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except SystemExit:
            _say_no_more()


def _say_no_more() -> None:
    """Send standard output and error nowhere: libraries that print would fail with BrokenPipeError."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
