"""Cancelling a run from the outside: Prefect's UI or API, whoever executes it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def cancelled_from_outside() -> AsyncIterator[None]:
    """Cancel what runs inside this block within seconds of the flow run's being cancelled."""
    yield
