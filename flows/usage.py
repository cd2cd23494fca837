"""What a run uses, written down while it runs, so that collecting garbage leaves it alone."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def artifacts_in_use(retention_days: float | None) -> AsyncIterator[None]:
    """Protect the artifacts and records that stages inside this block read or write, and for `retention_days` after it."""
    yield
