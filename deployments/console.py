"""What a run prints goes to its worker. This keeps the run alive when that has died and nobody reads any more."""

from __future__ import annotations

import logging

from prefect.logging.handlers import PrefectConsoleHandler

from infra.processes import write_nowhere


class ConsoleHandler(PrefectConsoleHandler):
    """Prefect's, which rich would have end the process at the first line that nobody reads (`Console.on_broken_pipe`)."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except SystemExit:
            write_nowhere()
