"""Jobs: one, many, their files, their events, retrying and removing them."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import AfterValidator, BeforeValidator

from api.bodies import json_body
from api.cursor import utc
from api.dependencies import CurrentCaller, TheJobs
from api.documents import RETRY, problems
from api.editing import corrected_at, in_thread
from api.errors import JobNotFound
from api.events import events_of, is_over
from api.limits import CountedStream
from api.listing import Filters, listed
from api.results import rendered
from api.routes.submit import ACCEPTED, Wait, accepted
from api.schemas import RetryRequest
from speech.formats import FORMATS
from stenoflow.jobs import Job, JobList, JobRemoved, JobStatus

router = APIRouter(tags=["jobs"])

RetryKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="Repeating a request with the same key and body creates no second job.",
    ),
]

FormatName = Annotated[str, Path(description=f"One of {', '.join(FORMATS)}.")]


def _written_out(value: Any) -> Any:
    """Pydantic takes a number for seconds since 1970, which the document does not promise."""
    if isinstance(value, str) and not re.match(r"\d{4}-\d{2}-\d{2}", value):
        raise ValueError("must be a time such as 2026-01-31T12:00:00Z")
    return value


def _in_utc(moment: datetime) -> datetime:
    try:
        return utc(moment)
    except OverflowError:
        raise ValueError("must be in the years 1 to 9999") from None


Moment = Annotated[datetime, BeforeValidator(_written_out), AfterValidator(_in_utc)]

_FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The transcript.",
        "content": {
            kind: {
                "schema": {"$ref": "#/components/schemas/TranscriptFile"} if kind == "application/json" else {"type": "string"}
            }
            for kind in dict.fromkeys(known.media_type for known in FORMATS.values())
        },
    }
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events. The schema describes one event; its `data` is JSON.",
        "content": {
            "text/event-stream": {
                "schema": {
                    "type": "object",
                    "properties": {"event": {"type": "string"}, "id": {"type": "string"}, "data": {"type": "string"}},
                    "required": ["event", "id", "data"],
                }
            }
        },
    },
    204: {"description": "The job has ended and `Last-Event-ID` is its last event: there are no more events."},
}


@router.get(
    "/transcribes",
    response_model=None,
    responses={200: {"model": JobList | Job, "description": "A page of jobs; with `job_id`, that job."}, **problems(404, 422)},
)
async def list_jobs(
    caller: CurrentCaller,
    jobs: TheJobs,
    job_id: Annotated[str | None, Query(max_length=64, description="Same as `/transcribes/{job_id}`.")] = None,
    status: Annotated[list[JobStatus] | None, Query(description="Jobs in any of these states.")] = None,
    tag: Annotated[list[str] | None, Query(max_length=16, description="Jobs with all of these tags.")] = None,
    metadata: Annotated[
        list[str] | None, Query(max_length=16, description="Jobs with all of these metadata, as `key=value`.")
    ] = None,
    created_after: Annotated[Moment | None, Query(description="Jobs submitted at or after this time.")] = None,
    created_before: Annotated[Moment | None, Query(description="Jobs submitted at or before this time.")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Jobs per page.")] = 20,
    cursor: Annotated[str | None, Query(max_length=4000, description="`next_cursor` of the previous page.")] = None,
    wait: Wait = 0,
) -> Response:
    """List your jobs, newest first."""
    if job_id is not None:
        return await get_job(job_id, caller, jobs, wait)
    filters = Filters(
        statuses=tuple(status or ()),
        tags=tuple(tag or ()),
        metadata=tuple(metadata or ()),
        created_after=created_after,
        created_before=created_before,
    )
    page = await listed(jobs, caller, filters, limit=limit, cursor=cursor)
    return JSONResponse(page.model_dump(mode="json"))


@router.get(
    "/transcribes/{job_id}/events",
    response_model=None,
    responses={**_STREAM, **problems(404, 422)},
    response_class=StreamingResponse,
)
async def stream_job_events(
    job_id: str,
    caller: CurrentCaller,
    jobs: TheJobs,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", max_length=4000, description="Resume after this event.")
    ] = None,
) -> Response:
    """Stream the events of a job: `status`, `stage`, `progress`, and finally `completed`, `failed` or `canceled`."""
    run = await jobs.find(job_id, caller)
    if is_over(run, last_event_id):
        return Response(status_code=204)  # by which an EventSource stops coming back
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return CountedStream(jobs.limits.stream(caller.owned_by), events_of(jobs, run, caller, last_event_id), headers)


@router.get(
    "/transcribes/{job_id}.{format}",
    response_model=None,
    response_class=Response,
    responses={**_FILE, **problems(404, 409, 410, 422)},
)
async def get_transcript(
    job_id: str,
    format: FormatName,
    caller: CurrentCaller,
    jobs: TheJobs,
    revision: Annotated[
        int | None, Query(ge=0, description="0 is the transcript as computed; the latest revision by default.")
    ] = None,
) -> Response:
    """Get the transcript as a file, in any format, with the corrections of a revision."""
    if format not in FORMATS:
        raise JobNotFound(f"There is no such format; use one of {', '.join(FORMATS)}.", code="unknown_format")
    run = await jobs.find(job_id, caller)
    result = await jobs.result(run)
    corrected = await in_thread(corrected_at, str(run.id), result, revision)
    content = await rendered(result, format, run.parameters.get("request") or {}, corrected)
    known = FORMATS[format]
    headers = {"Content-Disposition": f'{"attachment" if known.opens_elsewhere else "inline"}; filename="{run.id}.{format}"'}
    return Response(content, headers=headers, media_type=known.media_type)


@router.get("/transcribes/{job_id}", response_model=None, responses={200: {"model": Job}, **problems(404, 422)})
async def get_job(job_id: str, caller: CurrentCaller, jobs: TheJobs, wait: Wait = 0) -> Response:
    """Get a job: its state and progress and, once it has completed, its transcript."""
    run = await jobs.wait(await jobs.find(job_id, caller), wait)
    return Response(await jobs.as_json(run), media_type="application/json")


@router.get(
    "/result/{job_id}",
    operation_id="get_job_result",
    response_model=None,
    deprecated=True,
    responses={200: {"model": Job}, **problems(404)},
)
@router.get(
    "/transcribe-results/{job_id}",
    operation_id="get_transcribe_results",
    response_model=None,
    deprecated=True,
    responses={200: {"model": Job}, **problems(404)},
)
async def legacy_result(job_id: str, caller: CurrentCaller, jobs: TheJobs) -> Response:
    """Same as `/transcribes/{job_id}`, for older clients."""
    answer = await get_job(job_id, caller, jobs, 0)
    answer.headers["Deprecation"] = "true"
    answer.headers["Link"] = f'</transcribes/{job_id}>; rel="successor-version"'
    return answer


@router.post(
    "/transcribes/{job_id}/retry",
    response_model=None,
    status_code=202,
    openapi_extra=RETRY,
    responses={
        200: {"model": Job, "description": "With `wait`: the ended job."},
        202: ACCEPTED,
        **problems(400, 404, 408, 409, 413, 415, 422),
    },
)
async def retry_job(
    request: Request,
    job_id: str,
    caller: CurrentCaller,
    jobs: TheJobs,
    idempotency_key: RetryKey = None,
    wait: Wait = 0,
) -> Response:
    """Retry the failed stages of a job. With changed options, or from a finished stage, create a new job that reuses the rest.

    The answer names the job to look at: the same one, or the new one.
    """
    run = await jobs.find(job_id, caller)
    if request.headers.get("content-length") == "0" or not ({"content-length", "transfer-encoding"} & set(request.headers)):
        body = RetryRequest()
    else:
        body = await json_body(request, RetryRequest, jobs.settings.api.max_body_bytes)
    await jobs.may_submit(caller)
    again = await jobs.retry(run, body, idempotency_key=idempotency_key)
    return await accepted(jobs, again, wait)


@router.delete("/transcribes", responses=problems(404, 422))
async def delete_named_job(
    caller: CurrentCaller,
    jobs: TheJobs,
    job_id: Annotated[str, Query(max_length=64, description="Same as `/transcribes/{job_id}`.")],
) -> JobRemoved:
    """Same as `DELETE /transcribes/{job_id}`, for older clients."""
    return await delete_job(job_id, caller, jobs)


@router.delete("/transcribes/{job_id}", responses=problems(404))
async def delete_job(job_id: str, caller: CurrentCaller, jobs: TheJobs) -> JobRemoved:
    """Cancel a job if it is running, and delete its data. From then on it returns 404 with the code `job_deleted`."""
    run = await jobs.find(job_id, caller)
    under_way = await jobs.delete(run)
    message = "The job is being canceled and removed." if under_way else "The job was removed."
    return JobRemoved(message=message, job_id=str(run.id))
