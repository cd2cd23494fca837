"""`/health`: whether the process is there. `/health/ready`: whether a job that came now would be done; anybody may ask, so it says
little and asks rarely."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from infra.compute import get_store
from infra.settings import StenoSettings
from stenoflow.jobs import Health

FRESH = 2.0
"""Seconds for which a check is cached, so that requests cannot overload the other services."""
_PATIENCE = 5.0
_SEEN_WITHIN = timedelta(seconds=100)
"""Workers give a sign of life every 30 s."""

router = APIRouter(tags=["service"])


class Check(BaseModel):
    ok: bool
    detail: str = ""


class Readiness(BaseModel):
    """Whether all that jobs need is there."""

    status: Literal["ready", "unready"]
    checks: dict[str, Check] = Field(description="`prefect`, `deployment`, `worker` and `store`.")
    timestamp: datetime


@router.get("/health")
async def get_health() -> Health:
    """Whether the process is alive."""
    return Health(status="healthy", timestamp=datetime.now(UTC))


@router.get(
    "/health/ready", responses={503: {"model": Readiness, "description": "A component that jobs require is unavailable."}}
)
async def get_readiness(request: Request, response: Response) -> Readiness:
    """Whether Prefect answers, the deployment and a worker are there, and the store can be written."""
    state = request.app.state
    if not hasattr(state, "readiness"):
        state.readiness = _Checks(state.settings, state.jobs.runs)
    found = await state.readiness.answer()
    if found.status != "ready":
        response.status_code = 503
        response.headers["Retry-After"] = "5"
    assert isinstance(found, Readiness)
    return found


class _Checks:
    """The last answer, for as long as it is fresh."""

    def __init__(self, settings: StenoSettings, runs: Any) -> None:
        self._settings = settings
        self._runs = runs
        self._asking = asyncio.Lock()
        self._at = float("-inf")
        self._last: Readiness | None = None

    async def answer(self) -> Readiness:
        async with self._asking:
            if self._last is None or time.monotonic() - self._at > FRESH:
                self._last, self._at = await self._check_all(), time.monotonic()
            return self._last

    async def _check_all(self) -> Readiness:
        named: dict[str, Callable[[], Awaitable[str]]] = {
            "prefect": self._prefect,
            "deployment": self._deployment,
            "worker": self._worker,
            "store": self._store,
        }
        checks = dict(zip(named, await asyncio.gather(*map(_checked, named.values())), strict=True))
        status: Literal["ready", "unready"] = "ready" if all(check.ok for check in checks.values()) else "unready"
        return Readiness(status=status, checks=checks, timestamp=datetime.now(UTC))

    async def _prefect(self) -> str:
        if await self._runs.client.api_healthcheck() is not None:
            return "The orchestrator does not respond."
        return ""

    async def _deployment(self) -> str:
        await self._runs.deployment()
        return ""

    async def _worker(self) -> str:
        pool = self._settings.deploy.pool
        workers = await self._runs.client.read_workers_for_work_pool(pool)
        since = datetime.now(UTC) - _SEEN_WITHIN
        if any(worker.last_heartbeat_time is not None and worker.last_heartbeat_time > since for worker in workers):
            return ""
        return "No worker has sent a heartbeat in the last minutes; jobs are waiting."

    async def _store(self) -> str:
        await asyncio.to_thread(get_store(self._settings).write_record, f"ready/{platform.node() or 'api'}", b"ready")
        return ""


async def _checked(check: Callable[[], Awaitable[str]]) -> Check:
    """What is wrong in a sentence that names no address, path or account."""
    try:
        async with asyncio.timeout(_PATIENCE):
            detail = await check()
    except TimeoutError:
        detail = "It does not respond."
    except Exception as error:
        detail = f"It cannot be used ({type(error).__name__})."
    return Check(ok=not detail, detail=detail)
