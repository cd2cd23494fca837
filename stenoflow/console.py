"""A run's output goes to its worker. This keeps the run alive if the worker dies.

Named in the environment of runs, hence loaded by every process of Prefect's that has it, whose path may lead to other packages
by our rooms' names first: it stands in this package, and imports no room until it needs one.
"""

from __future__ import annotations

import logging

from prefect.logging.handlers import PrefectConsoleHandler

from stenoflow.isolated import take_precedence


class ConsoleHandler(PrefectConsoleHandler):
    """Prefect's, which rich would have end the process at the first line after the pipe is closed (`Console.on_broken_pipe`)."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except SystemExit:
            take_precedence()
            from infra.processes import write_nowhere

            write_nowhere()
