"""Telling callers that a job has ended: dead letters and redelivery. The delivering itself is `flows.webhooks`."""

from __future__ import annotations

from fastapi import APIRouter

from api.auth import Caller

router = APIRouter()


async def tags_for(url: str, caller: Caller) -> list[str]:
    """The tags by which `flows.webhooks` knows whom to tell of the job's end; asked for before its run is made."""
    return []
