"""What happens to a job, as server-sent events (WHATWG HTML, 9.2), made from looking at it while somebody listens."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from api.auth import Caller
from api.errors import ApiError, JobNotFound, Unavailable
from api.jobs import Jobs
from api.schemas import Job
from api.states import ENDED
from api.views import job_of

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

_LOOK = 0.8
_ALIVE = 15.0
"""Seconds without an event after which a comment keeps proxies from closing the connection."""
_RECONNECT = 2000
"""Milliseconds; a client that was cut off comes back and is told how things stand."""


async def events_of(jobs: Jobs, run: FlowRun, caller: Caller) -> AsyncIterator[str]:
    """`status`, `stage` and `progress` as they change, then `completed`, `failed` or `canceled` (or `deleted`), and the end."""
    yield f"retry: {_RECONNECT}\n\n"
    told, said = _Told(), time.monotonic()
    while True:
        try:
            run = await jobs.find(str(run.id), caller)
            job = job_of(await jobs.seen(run))
        except JobNotFound:
            yield event("deleted", {"job_id": str(run.id)})
            return
        except Unavailable:
            job = None  # Prefect is away for a moment; listeners wait
        except ApiError as error:
            yield event("error", {"code": error.problem_code, "detail": error.detail})
            return
        for line in told.of(job) if job is not None else ():
            said = time.monotonic()
            yield line
        if job is not None and job.status in ENDED:
            return
        if time.monotonic() - said > _ALIVE:
            said = time.monotonic()
            yield ": waiting\n\n"
        await asyncio.sleep(_LOOK)


def event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


class _Told:
    """What a listener knows already."""

    def __init__(self) -> None:
        self.status = ""
        self.stages: dict[str, str] = {}
        self.progress: tuple[float, str] | None = None

    def of(self, job: Job) -> Iterator[str]:
        """What is new."""
        if job.status != self.status and job.status not in ENDED:
            yield event("status", {"job_id": job.job_id, "status": job.status, "message": job.message})
        self.status = job.status
        for stage in job.stages:
            if stage.state not in ("pending", self.stages.get(stage.stage)):
                self.stages[stage.stage] = stage.state
                yield event("stage", stage.model_dump(mode="json"))
        progress = (job.progress, job.message)
        if progress != self.progress and job.status not in ENDED and job.status != "queued":
            self.progress = progress
            yield event("progress", {"job_id": job.job_id, "progress": job.progress, "message": job.message})
        if job.status in ENDED:
            kept = {"job_id", "status", "progress", "message", "error", "error_code", "degraded", "warnings", "links"}
            yield event(job.status, job.model_dump(mode="json", include=kept, exclude_none=True))
