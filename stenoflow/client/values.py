"""What callers give and get, beside the answers in `stenoflow.jobs` and the transcript in `stenoflow.types`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol, TypedDict, runtime_checkable

from pydantic import ValidationError

from stenoflow.client.options import Options
from stenoflow.jobs import Job, JobStatus, StageReport

ENDED: frozenset[str] = frozenset({"completed", "failed", "canceled"})


class JobFields(Options, total=False):
    """All that a submission may say; `api.schemas.JobRequest` describes each."""

    metadata: Mapping[str, str]
    tags: Sequence[str]
    webhook_url: str | None


class Filters(TypedDict, total=False):
    """Filters for lists of jobs."""

    status: JobStatus | Sequence[JobStatus]
    """Any of these."""
    tag: str | Sequence[str]
    """All of these."""
    metadata: Mapping[str, str]
    """All of these."""
    created_after: datetime
    created_before: datetime


@runtime_checkable
class HasJobId(Protocol):
    """What the service said of a job: `Job`, `JobAccepted`, `JobSummary`."""

    job_id: str


JobRef = str | HasJobId
"""A job, or its id."""


def job_id_of(job: JobRef) -> str:
    return job if isinstance(job, str) else job.job_id


@dataclass(frozen=True)
class Event:
    """One server-sent event of a job."""

    name: str
    """`status`, `stage`, `progress`, and last `completed`, `failed`, `canceled` or `deleted`."""
    data: dict[str, Any]

    @property
    def last(self) -> bool:
        return self.name in ENDED or self.name in ("deleted", "error")


@dataclass(frozen=True)
class Progress:
    """Progress of a job."""

    job_id: str
    status: JobStatus = "queued"
    percent: float = 0.0
    """0 to 100."""
    message: str = ""
    stages: Mapping[str, StageReport] = field(default_factory=dict)
    """Stages that have started, by name."""

    def after(self, event: Event) -> Progress:
        """The same once this has happened."""
        data = event.data
        if event.name == "stage":
            try:
                stage = StageReport.model_validate(data)
            except ValidationError:
                return self
            return replace(self, stages={**self.stages, stage.stage: stage})
        if event.name == "progress":
            return replace(self, percent=float(data.get("progress", 0.0)), message=str(data.get("message", "")))
        if event.name == "status":
            return replace(self, status=data.get("status", self.status), message=str(data.get("message", "")))
        return self

    @classmethod
    def of(cls, job: Job) -> Progress:
        begun = {stage.stage: stage for stage in job.stages if stage.state != "pending"}
        return cls(job.job_id, job.status, job.progress, job.message, begun)


class EventLines:
    """Lines of an event stream put together (WHATWG HTML, 9.2.6)."""

    def __init__(self) -> None:
        self._name = ""
        self._data: list[str] = []

    def after(self, line: str) -> Event | None:
        """The event that this line ends."""
        if line:
            field_, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field_ == "event":
                self._name = value
            elif field_ == "data":
                self._data.append(value)
            return None
        name, text = self._name or "message", "\n".join(self._data)
        self._name, self._data = "", []
        if not text:
            return None
        try:
            data = json.loads(text)
        except ValueError:
            return None
        return Event(name, data) if isinstance(data, dict) else None
