"""A call is a job: submitted, awaited, and read from the store. The job continues if the client disconnects."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

from fastapi import Request, Response
from fastapi.responses import PlainTextResponse

import stenoflow.errors  # noqa: F401  the codes of all errors are those of all classes
from api import states, tags
from api.auth import Caller
from api.errors import ApiError
from api.jobs import Jobs
from api.openai import envelope, shapes
from api.openai.envelope import Refusal
from api.openai.forms import diarized, job_of, known_of
from api.openai.schemas import AudioForm, TextDelta, TranscriptionForm
from api.problems import status_of
from api.results import transcript
from api.submissions import Uploaded
from stenoflow.errors import MediaError, Retry, StenoError
from stenoflow.types import Transcript

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

JOB_ID = "X-Steno-Job-Id"
"""Header with the id of the job, at `/transcribes/{job_id}`."""
_LOOK = 1.0
"""Seconds between two looks for new text."""
_BEAT = 5.0
"""Seconds between two comments in a stream: clients and proxies give up on silence."""


async def submitted(jobs: Jobs, form: AudioForm, upload: Uploaded, caller: Caller, idempotency_key: str | None) -> FlowRun:
    """The call's job.

    OpenAI's clients repeat a call whose answer did not come in time; without a key of its own it then finds the job of the
    same recording and options that is under way. Raises what `Jobs.submit` does.
    """
    body, known = job_of(form), known_of(form)
    if idempotency_key is None and (run := await jobs.pending_with(body, caller, upload, known)) is not None:
        return run
    return await jobs.submit(body, caller, upload=upload, idempotency_key=idempotency_key, known=known)


async def answered(request: Request, jobs: Jobs, run: FlowRun, form: AudioForm) -> Response:
    """The transcript in the form that was asked for, or why there is none."""
    headers = {JOB_ID: str(run.id)}
    with jobs.limits.wait(tags.owner_of(run)):
        run = await jobs.watch(run, jobs.settings.api.openai_wait, left=request.is_disconnected)
    found = await _transcript(jobs, run)
    if isinstance(found, Refusal):
        return envelope.refused(found, headers)
    shape = shapes.rendered(found, form)
    if isinstance(shape, str):
        return PlainTextResponse(shape, headers=headers)
    return Response(shape.model_dump_json(exclude_none=True), headers=headers, media_type="application/json")


async def streamed(jobs: Jobs, run: FlowRun, form: TranscriptionForm) -> AsyncIterator[str]:
    """The text as it is found, with comments between, and `[DONE]`; or an event with an error.

    Who speaks is known at the end only, and with it the text of `diarized_json`.
    """
    end, said, beat = time.monotonic() + jobs.settings.api.openai_stream_wait, "", -_BEAT
    early = not diarized(form)
    yield f": job {run.id}\n\n"
    while states.status_of(run) not in states.ENDED and (rest := end - time.monotonic()) > 0:
        run = await jobs.watch(run, min(_LOOK if early else _BEAT, rest))
        text = shapes.text_of_draft(await jobs.draft(run)) if early else ""
        if len(text) > len(said):
            yield f"data: {TextDelta(delta=text[len(said) :]).model_dump_json(exclude_none=True)}\n\n"
            said = text
        if time.monotonic() - beat >= _BEAT:
            beat = time.monotonic()
            yield f": {states.status_of(run)}\n\n"
    try:
        found = await _transcript(jobs, run)
    except ApiError as error:
        found = Refusal(error.status, error.problem_code, error.detail)
    for event in _events(found, form, said):
        yield f"data: {event}\n\n"


def _events(found: Transcript | Refusal, form: TranscriptionForm, said: str) -> Iterator[str]:
    if isinstance(found, Refusal):
        yield json.dumps(envelope.as_event(found))
        return
    for event in shapes.events(found, form, said):
        yield event.model_dump_json(exclude_none=True)
    yield "[DONE]"


async def _transcript(jobs: Jobs, run: FlowRun) -> Transcript | Refusal:
    """The job's. Raises Gone and Unavailable."""
    status = states.status_of(run)
    if status == "completed":
        return await transcript(await jobs.result(run))
    if status == "canceled":
        return Refusal(409, "job_canceled", "The job was canceled.")
    if status != "failed":
        return Refusal(
            504,
            "still_under_way",
            f"The recording is still being transcribed. The job continues; its transcript will be at /transcribes/{run.id}. "
            "Calls with `stream=true` may take longer.",
        )
    seen = await jobs.seen(run, stages=False)
    code, message = states.error_of(seen, status) or ("unexpected", "The job failed.")
    kind = _kinds().get(code, StenoError)
    return Refusal(
        status_of(kind),
        code,
        message,
        param="file" if issubclass(kind, MediaError) else None,
        again=kind.retry is Retry.LATER,
    )


def _kinds(root: type[StenoError] = StenoError) -> dict[str, type[StenoError]]:
    """The classes of errors, by their codes."""
    found = {root.code: root}
    for kind in root.__subclasses__():
        found |= _kinds(kind)
    return found
