"""`POST /transcribes`: a URL, an upload, or a chunk that is answered at once."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse

from api import npy, older, states
from api.auth import Caller
from api.bodies import checked, json_value, media_type
from api.dependencies import CurrentCaller, TheJobs
from api.documents import SUBMISSION, problems
from api.errors import BadRequest, TooMany
from api.jobs import Jobs
from api.schemas import JobRequest
from api.uploads import Submission, receive
from infra.api_settings import ApiSettings
from stenoflow.jobs import ChunkResult, Job, JobAccepted

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

router = APIRouter(tags=["jobs"])

ACCEPTED = {
    "model": JobAccepted,
    "description": "The job is queued.",
    "headers": {"Location": {"description": "URL of the job.", "schema": {"type": "string"}}},
}
Wait = Annotated[float, Query(ge=0, le=3600, description="Seconds to wait for the job to end before responding.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="Repeating a request with the same key and payload returns the same job; another payload is rejected (422).",
    ),
]


@router.post(
    "/transcribes",
    response_model=None,
    status_code=202,
    openapi_extra=SUBMISSION,
    responses={
        200: {"model": ChunkResult | Job, "description": "The text of the chunk; or, with `wait`, the ended job."},
        202: ACCEPTED,
        **problems(400, 408, 413, 415, 422, 507),
    },
)
async def submit_job(
    request: Request, caller: CurrentCaller, jobs: TheJobs, idempotency_key: IdempotencyKey = None, wait: Wait = 0
) -> Response:
    """Submit a recording, by `audio_url` or as the `file` of a form. `Location` is the URL of the job.

    With `audio_chunk` (base64 of a `.npy` file: float32, mono, 16 kHz) the text comes at once, without a job; chunks with the
    same `session_id` continue one another.
    """
    if media_type(request) == "multipart/form-data":
        await jobs.may_submit(caller)
        async with jobs.stored.room(caller, request) as room:
            given = await receive(request, jobs.settings.api, room.limit)
            room.kept = given.upload.bytes if given.upload else 0
            run = await jobs.submit(given.body, caller, upload=given.upload, idempotency_key=idempotency_key)
    else:
        largest, ordinary = _largest(jobs.settings.api), jobs.settings.api.max_body_bytes
        async with jobs.limits.body(request, ordinary):
            value, ignored = older.understood(await json_value(request, largest, ordinary))
            given = Submission(checked(value, JobRequest), None, ignored)
            if given.body.audio_chunk is not None:
                return await _chunk(given, caller, jobs)
        _check(given.body)
        await jobs.may_submit(caller)
        run = await jobs.submit(given.body, caller, idempotency_key=idempotency_key)
    answer = await accepted(jobs, run, wait)
    answer.headers.update(older.warning(given.ignored))
    return answer


async def accepted(jobs: Jobs, run: FlowRun, wait: float) -> Response:
    """The answer to a submission or a retry: the job itself once it has ended, if that is waited for."""
    with contextlib.suppress(TooMany):  # too many calls wait already: this one is answered at once
        run = await jobs.wait(run, wait)
    headers = {"Location": f"/transcribes/{run.id}"}
    status = states.status_of(run)
    if wait and status in states.ENDED:
        return Response(await jobs.as_json(run), headers=headers, media_type="application/json")
    message = "The job is queued." if status == "queued" else f"The job is {status}."
    body = JobAccepted(job_id=str(run.id), status=status, message=message)
    return JSONResponse(body.model_dump(), status_code=202, headers=headers)


def _largest(settings: ApiSettings) -> int:
    """Bytes of a JSON body, which may hold a chunk: samples in base64, with room for JSON and the array's header."""
    return settings.max_body_bytes + int(settings.max_chunk_seconds * npy.SAMPLE_RATE * npy.WIDEST * 4 / 3) + 4096


def _check(body: JobRequest) -> None:
    if body.audio_url is None:
        raise BadRequest(
            "Give `audio_url` (creates a job) or `audio_chunk` (answered immediately), or send the recording as a form."
        )
    for name in ("session_id", "final"):
        if getattr(body, name) is not None:
            raise BadRequest(f"`{name}` applies to audio chunks only; leave it out.")


async def _chunk(given: Submission, caller: Caller, jobs: Jobs) -> Response:
    if given.body.audio_url is not None:
        raise BadRequest("Give `audio_url` or `audio_chunk`, not both.")
    result = await jobs.chunks.transcribe(given.body, caller)
    return Response(result.model_dump_json(), media_type="application/json", headers=older.warning(given.ignored))
