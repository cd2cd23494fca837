"""Whether the process is there. Whether it can do its work says `/health/ready`."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter

from stenoflow.jobs import Health

router = APIRouter(tags=["service"])


@router.get("/health")
async def get_health() -> Health:
    """Whether the process is alive."""
    return Health(status="healthy", timestamp=datetime.now(UTC))
