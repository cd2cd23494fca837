"""What a process that talks to Prefect's API sets about Prefect's client, which reads its settings once and logs to the console."""

from __future__ import annotations

import logging
import sys


def settings_changed() -> None:
    """Have Prefect, where it is imported already (to read a profile), read the environment once more."""
    if context := sys.modules.get("prefect.context"):
        context.refresh_global_settings_context()


def log_errors_only() -> None:
    """Show only errors of Prefect's log lines on this process's console, and leave what runs report to the API as it is."""
    import prefect.main  # noqa: F401  makes the handlers
    from prefect.logging.handlers import PrefectConsoleHandler

    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler):
            handler.setLevel(logging.ERROR)
