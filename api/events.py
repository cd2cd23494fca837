"""What happens to a job, as server-sent events (WHATWG HTML, 9.2), made by polling it while a client listens.

An event's id is what its listener knows by then, so that any process can go on where another broke off.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from api.auth import Caller
from api.errors import ApiError, JobNotFound, Unavailable
from api.jobs import Jobs
from api.states import ENDED
from api.views import job_of
from infra.drafts import Draft
from stenoflow.jobs import Job

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

_LOOK = 0.8
_ALIVE = 15.0
"""Seconds without an event after which a comment keeps proxies from closing the connection."""
_RECONNECT = 2000
"""Milliseconds until a disconnected client reconnects; it then gets the current state."""


def is_over(run: FlowRun, last_id: str | None) -> bool:
    """Whether the client with this id already has the job's last event, so there is nothing more to send."""
    return last_id is not None and last_id == _end_id(run)


async def events_of(jobs: Jobs, run: FlowRun, caller: Caller, last_id: str | None = None) -> AsyncIterator[str]:
    """`status`, `stage`, `progress` and `text` as they change, then `completed`, `failed` or `canceled` (or `deleted`), and the end.

    With the id of an event, what has changed since it.
    """
    yield f"retry: {_RECONNECT}\n\n"
    told, said = _Sent.by(last_id or ""), time.monotonic()
    while True:
        try:
            run = await jobs.find(str(run.id), caller)
            job = job_of(await jobs.seen(run))
            draft = await jobs.draft(run) if job.status == "processing" else Draft()
        except JobNotFound:
            yield event("deleted", {"job_id": str(run.id)}, "deleted")
            return
        except Unavailable:
            job, draft = None, Draft()  # Prefect is away for a moment; listeners wait
        except ApiError as error:
            yield event("error", {"code": error.problem_code, "detail": error.detail}, _end_id(run))
            return
        for line in told.of(job, draft, _end_id(run)) if job is not None else ():
            said = time.monotonic()
            yield line
        if job is not None and job.status in ENDED:
            return
        if time.monotonic() - said > _ALIVE:
            said = time.monotonic()
            yield ": waiting\n\n"
        await asyncio.sleep(_LOOK)


def event(name: str, data: dict[str, Any], id_: str) -> str:
    return f"event: {name}\nid: {id_}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


def _end_id(run: FlowRun) -> str:
    """The id of the last event of the run as it stands; another one once it was retried."""
    return f"end.{run.state.id if run.state is not None else run.id}"


class _Sent:
    """What a listener knows already."""

    def __init__(self) -> None:
        self.status = ""
        self.stages: dict[str, str] = {}
        self.progress: tuple[float, str] | None = None
        self.segments = 0
        """Of the text so far."""

    @classmethod
    def by(cls, last_id: str) -> _Sent:
        """What the client with this id has received; nothing, if the id is not ours."""
        told = cls()
        try:
            status, stages, progress, segments = json.loads(base64.urlsafe_b64decode(last_id))
            told.segments = int(segments)
            told.status, told.stages, told.progress = str(status), dict(stages), progress and (progress[0], progress[1])
        except (ValueError, TypeError, IndexError, KeyError, RecursionError, binascii.Error):
            return cls()
        return told

    def __str__(self) -> str:
        """As the id of an event."""
        known = json.dumps([self.status, self.stages, self.progress, self.segments], separators=(",", ":"))
        return base64.urlsafe_b64encode(known.encode()).decode()

    def of(self, job: Job, draft: Draft, end_id: str) -> Iterator[str]:
        """What is new."""
        changed, self.status = job.status != self.status, job.status
        if changed and job.status not in ENDED:
            yield event("status", {"job_id": job.job_id, "status": job.status, "message": job.message}, str(self))
        for stage in job.stages:
            if stage.state not in ("pending", self.stages.get(stage.stage)):
                self.stages[stage.stage] = stage.state
                yield event("stage", stage.model_dump(mode="json"), str(self))
        progress = (job.progress, job.message)
        if progress != self.progress and job.status not in ENDED and job.status != "queued":
            self.progress = progress
            yield event("progress", {"job_id": job.job_id, "progress": job.progress, "message": job.message}, str(self))
        if draft.segments[self.segments :]:
            new, self.segments = draft.segments[self.segments :], len(draft.segments)
            yield event("text", {"job_id": job.job_id, "segments": [each.model_dump() for each in new]}, str(self))
        if job.status in ENDED:
            kept = {"job_id", "status", "progress", "message", "error", "error_code", "degraded", "warnings", "links"}
            yield event(job.status, job.model_dump(mode="json", include=kept, exclude_none=True), end_id)
