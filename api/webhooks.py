"""Telling callers that a job has ended. Refused for now, rather than accepted and never done."""

from __future__ import annotations

from fastapi import APIRouter

from api.auth import Caller
from api.errors import Unprocessable

router = APIRouter()


async def tags_for(url: str, caller: Caller) -> list[str]:
    """The tags that say whom to tell of the job's end. Raises Unprocessable: nobody delivers yet."""
    raise Unprocessable(
        "Webhooks are not delivered by this version; follow the job's events, or ask for it with `?wait=`.",
        code="webhook_unsupported",
    )
