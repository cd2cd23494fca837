"""The client of the REST API: `StenoClient`, and `AsyncStenoClient` for event loops.

    from stenoflow import StenoClient

    with StenoClient("http://127.0.0.1:8765") as steno:
        job = steno.submit("meeting.m4a", diarize=True)
        steno.wait(job, on_progress=lambda now: print(f"{now.percent:.0f} % {now.message}"))
        steno.save(job, "transcripts", ["json", "srt"], name="meeting")

Importing it loads nothing but httpx and pydantic.
"""

from stenoflow.client.asynchronous import AsyncChunkSession, AsyncStenoClient
from stenoflow.client.blocking import ChunkSession, StenoClient
from stenoflow.client.errors import (
    ClientError,
    JobCanceled,
    JobConflict,
    JobDeleted,
    JobFailed,
    JobNotFound,
    KeyRefused,
    LimitReached,
    RequestRefused,
    ResultExpired,
    ServiceBroken,
    ServiceUnavailable,
    WaitTimeout,
)
from stenoflow.client.values import Event, Progress
from stenoflow.jobs import ChunkResult, Job, JobAccepted, JobList, JobRemoved, JobSummary, StageReport
from stenoflow.types import Transcript

__all__ = [
    "AsyncChunkSession",
    "AsyncStenoClient",
    "ChunkResult",
    "ChunkSession",
    "ClientError",
    "Event",
    "Job",
    "JobAccepted",
    "JobCanceled",
    "JobConflict",
    "JobDeleted",
    "JobFailed",
    "JobList",
    "JobNotFound",
    "JobRemoved",
    "JobSummary",
    "KeyRefused",
    "LimitReached",
    "Progress",
    "RequestRefused",
    "ResultExpired",
    "ServiceBroken",
    "ServiceUnavailable",
    "StageReport",
    "StenoClient",
    "Transcript",
    "WaitTimeout",
]
