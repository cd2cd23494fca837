"""How far a run is, as a Prefect artifact that moves while its stages are at work."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def progress_shown() -> AsyncIterator[None]:
    """Keep the run's progress artifact up to date inside this block."""
    yield
