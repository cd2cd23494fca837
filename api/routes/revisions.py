"""What a page needs to play and to correct a transcript: audio, waveform, segments, corrections, their history."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response

from api import editing
from api.bodies import json_body
from api.dependencies import CurrentCaller, TheJobs
from api.documents import EDITS, problems
from api.editing import in_thread
from api.ranges import ranged
from stenoflow.edits import EditResult, Edits, Peaks, Revisions, SegmentPage

router = APIRouter(tags=["corrections"])

RevisionNumber = Annotated[
    int | None, Query(ge=0, description="0 is the transcript as computed; the latest revision by default.")
]
_AUDIO: dict[int | str, dict[str, Any]] = {
    status: {"description": said, "content": {"audio/flac": {"schema": {"type": "string", "format": "binary"}}}}
    for status, said in ((200, "The recording."), (206, "The range that was asked for."))
}


@router.get(
    "/transcribes/{job_id}/audio",
    response_model=None,
    response_class=Response,
    responses={**_AUDIO, **problems(404, 409, 410, 416)},
)
async def get_audio(
    job_id: str,
    caller: CurrentCaller,
    jobs: TheJobs,
    range_: Annotated[str | None, Header(alias="Range", max_length=200, description="One range of bytes.")] = None,
) -> Response:
    """Get the recording as it was transcribed: FLAC, 16 kHz, one channel, on the timeline of the words."""
    result = await jobs.result(await jobs.find(job_id, caller))
    return await ranged(editing.audio_of(result), range_, "audio/flac")


@router.get("/transcribes/{job_id}/peaks", responses=problems(404, 409, 410))
async def get_peaks(job_id: str, caller: CurrentCaller, jobs: TheJobs) -> Peaks:
    """Get the waveform of the recording; it is computed once."""
    result = await jobs.result(await jobs.find(job_id, caller))
    return await in_thread(editing.peaks, editing.audio_of(result))


@router.get("/transcribes/{job_id}/segments", responses=problems(404, 409, 410, 422))
async def list_segments(
    job_id: str,
    caller: CurrentCaller,
    jobs: TheJobs,
    revision: RevisionNumber = None,
    first: Annotated[int, Query(ge=0, description="Number of the first segment, from 0.")] = 0,
    limit: Annotated[int, Query(ge=1, le=2000, description="Segments per page.")] = 500,
) -> SegmentPage:
    """List segments and words of a revision, with the ids that corrections name them by."""
    run = await jobs.find(job_id, caller)
    return await in_thread(editing.segments, str(run.id), await jobs.result(run), revision, first, limit)


@router.patch(
    "/transcribes/{job_id}/edits",
    openapi_extra=EDITS,
    responses=problems(400, 404, 408, 409, 410, 413, 415, 422, 507),
)
async def edit_transcript(request: Request, job_id: str, caller: CurrentCaller, jobs: TheJobs) -> EditResult:
    """Correct a transcript: all operations become one new revision, or none does. The computed transcript is never changed.

    Corrections of an earlier revision are merged where they do not overlap with what was changed since; else the answer is 409
    with the revisions `since`.
    """
    run = await jobs.find(job_id, caller)
    edits = await json_body(request, Edits, jobs.settings.api.max_body_bytes)
    return await in_thread(editing.edit, str(run.id), await jobs.result(run), edits, caller.name)


@router.get("/transcribes/{job_id}/revisions", responses=problems(404, 409, 410))
async def list_revisions(job_id: str, caller: CurrentCaller, jobs: TheJobs) -> Revisions:
    """List the revisions of a transcript with their operations, oldest first."""
    run = await jobs.find(job_id, caller)
    return await in_thread(editing.revisions, str(run.id), await jobs.result(run))


@router.get("/transcribes/{job_id}/revisions/{revision}", responses=problems(404, 409, 410, 422))
async def compare_revisions(
    job_id: str,
    revision: Annotated[int, Path(ge=0)],
    caller: CurrentCaller,
    jobs: TheJobs,
    since: Annotated[int, Query(ge=0, description="The revision to compare it with; the original by default.")] = 0,
) -> EditResult:
    """Get what differs between two revisions: the segments that are new or changed, and those that are gone."""
    run = await jobs.find(job_id, caller)
    return await in_thread(editing.difference, str(run.id), await jobs.result(run), revision, since)
