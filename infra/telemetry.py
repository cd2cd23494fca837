"""Nothing phones home unless the user asks for it: Prefect's, pyannote's and the hub's telemetry default to off.

These libraries read the environment when they are first imported, so `hush` runs before any of them is.
"""

from __future__ import annotations

import os

_DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PYANNOTE_METRICS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # The first start of the temporary Prefect server migrates a database; Prefect's 20 s are short on a busy machine.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}


def hush() -> None:
    """Set each default that the environment does not already decide."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
