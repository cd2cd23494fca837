"""How a process that executes flows is set up, so that it outlives its worker, and a server that is away for a while."""

from __future__ import annotations

SERVER_AWAY = 7
"""Retries of one request to Prefect's API. They wait 2, 4, 8 … seconds: together four minutes (`prefect/client/base.py`)."""
HEARTBEAT = 30
"""Seconds between the heartbeats of a run; the shortest that Prefect allows."""


def flow_environment() -> dict[str, str]:
    """Variables for workers, and through them for the flow processes that they start."""
    return {
        "PREFECT_CLIENT_MAX_RETRIES": str(SERVER_AWAY),
        # 408, 429, 502, 503 and broken connections are retried anyway. A proxy whose server restarts answers 504.
        "PREFECT_CLIENT_RETRY_EXTRA_CODES": "504",
        # The one request whose failure ends a run, and which nothing needs: the worker has made it already.
        "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_CLASS": "stenoflow.console.ConsoleHandler",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
