"""The routes under `/v1`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from fastapi import APIRouter, Request, Response

from api.auth import Caller
from api.bodies import media_type
from api.dependencies import CurrentCaller, TheJobs
from api.errors import WrongMediaType
from api.jobs import Jobs
from api.limits import CountedStream
from api.openai import calls, forms, models
from api.openai.documents import TRANSCRIPTION, TRANSLATION, answers, errors
from api.openai.schemas import MOST_KNOWN, AudioForm, Model, ModelList
from api.routes.submit import IdempotencyKey
from api.uploads import Understand, received

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

router = APIRouter(prefix="/v1", tags=["OpenAI-compatible"])

F = TypeVar("F", bound=AudioForm)
_REFERENCE_BYTES = 4 << 20
"""Of a known speaker's sample in base64: ten seconds of 48 kHz stereo are 2.6 MB."""
_ERRORS = errors(400, 404, 408, 409, 413, 504, 507)


@router.post(
    "/audio/transcriptions",
    response_model=None,
    openapi_extra=TRANSCRIPTION,
    responses={**answers("Transcription", "VerboseTranscription", "DiarizedTranscription", stream=True), **_ERRORS},
)
async def create_transcription(
    request: Request, caller: CurrentCaller, jobs: TheJobs, idempotency_key: IdempotencyKey = None
) -> Response:
    """Transcribe a recording. `X-Steno-Job-Id` is the ID of its job."""
    form, run = await _submitted(request, caller, jobs, forms.transcription, idempotency_key)
    if not form.stream:
        return await calls.answered(request, jobs, run, form)
    headers = {calls.JOB_ID: str(run.id), "X-Accel-Buffering": "no"}
    return CountedStream(jobs.limits.wait(caller.owned_by), calls.streamed(jobs, run, form), headers)


@router.post(
    "/audio/translations",
    response_model=None,
    openapi_extra=TRANSLATION,
    responses={**answers("Translation", "VerboseTranscription"), **_ERRORS},
)
async def create_translation(
    request: Request, caller: CurrentCaller, jobs: TheJobs, idempotency_key: IdempotencyKey = None
) -> Response:
    """Translate a recording to English. `X-Steno-Job-Id` is the ID of its job."""
    form, run = await _submitted(request, caller, jobs, forms.translation, idempotency_key)
    return await calls.answered(request, jobs, run, form)


@router.get("/models", responses=errors())
async def list_models(caller: CurrentCaller, jobs: TheJobs) -> ModelList:
    """List the available models."""
    return ModelList(data=await asyncio.to_thread(models.listed, jobs.settings))


@router.get("/models/{model:path}", responses=errors(404))
async def get_model(model: str, caller: CurrentCaller, jobs: TheJobs) -> Model:
    """Get a model."""
    return await asyncio.to_thread(models.found, model, jobs.settings)


async def _submitted(
    request: Request, caller: Caller, jobs: Jobs, understand: Understand[F], idempotency_key: str | None
) -> tuple[F, FlowRun]:
    """What the form asks for, and its job. Raises what `api.uploads.received` and `calls.submitted` do, WrongMediaType and TooMany."""
    if media_type(request) != "multipart/form-data":
        raise WrongMediaType("Send the recording as multipart/form-data.")
    await jobs.may_submit(caller)
    with jobs.limits.wait(caller.owned_by):  # before anything is received: whether there is room to wait for the transcript
        pass
    async with jobs.stored.room(caller, request) as room:
        form, upload = await received(
            request, jobs.settings.api, room.limit, understand, field_bytes=MOST_KNOWN * _REFERENCE_BYTES
        )
        assert upload is not None, "forms without a recording are rejected"
        room.kept = upload.bytes
        return form, await calls.submitted(jobs, form, upload, caller, idempotency_key)
