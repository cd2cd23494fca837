"""A recording that keeps killing its process is set aside after a few times, so that it cannot stop everything else."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def attempt_counted() -> AsyncIterator[None]:
    """Count this execution of the flow run while it lasts. Raises Quarantined when too many before it never ended."""
    yield
