"""Voices that have names, of the caller's owner: enrolled, listed, forgotten. Jobs with `voices` recognise them."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Request

from api.allowed import check_diarizer
from api.bodies import checked, media_type
from api.dependencies import CurrentCaller, TheJobs
from api.documents import ENROLMENT, problems
from api.errors import JobNotFound, Unprocessable, WrongMediaType
from api.limits import max_upload_bytes
from api.schemas import VoiceForm
from api.uploads import FILE, Fields, borrowed
from api.voices import shown, voiceprints
from infra import voices
from infra.compute import get_store
from stenoflow.errors import InvalidOption, UnknownVoice
from stenoflow.jobs import Voice, VoiceList

router = APIRouter(tags=["voices"])
_MOST_BYTES = 256 << 20
"""Of a recording to enrol from: ten minutes of 24 bit stereo at 48 kHz fit."""


@router.post("/voices", status_code=201, openapi_extra=ENROLMENT, responses=problems(400, 408, 413, 415, 422, 507))
async def create_voice(request: Request, caller: CurrentCaller, jobs: TheJobs) -> Voice:
    """Enrol a voice from a recording of one person alone, with a note on how this person consented.

    Enrolling a name again adds a recording to it. The recording is not kept; the speaker embedding that is computed from it is, until
    the voice is deleted. Ten seconds of speech are enough.
    """
    if media_type(request) != "multipart/form-data":
        raise WrongMediaType("Send the recording as multipart/form-data.")
    await jobs.may_submit(caller)
    settings = jobs.settings
    limit = min(_MOST_BYTES, max_upload_bytes(caller))
    async with borrowed(request, settings.api, limit, _understood) as (form, path, name):
        check_diarizer(form.diarization_model, settings)
        prints = await voiceprints([path], [name], settings, form.diarization_model)
    consent = voices.consent_of(form.consent, caller.name)
    store = await asyncio.to_thread(get_store)
    return shown(await asyncio.to_thread(voices.enrol, store, voices.set_of(caller.owned_by), form.name, prints, consent))


@router.get("/voices", responses=problems())
async def list_voices(caller: CurrentCaller) -> VoiceList:
    """List the enrolled voices, by name."""
    store = await asyncio.to_thread(get_store)
    found = await asyncio.to_thread(voices.voices_in, store, [voices.set_of(caller.owned_by)])
    return VoiceList(voices=[shown(voice) for voice in found])


@router.delete("/voices/{voice_id}", responses=problems(404))
async def delete_voice(voice_id: Annotated[str, Path(max_length=100)], caller: CurrentCaller) -> Voice:
    """Delete all that is stored of a voice. Transcripts that have the name keep it."""
    store = await asyncio.to_thread(get_store)
    try:
        return shown(await asyncio.to_thread(voices.forget, store, voices.set_of(caller.owned_by), voice_id))
    except (UnknownVoice, InvalidOption):
        raise JobNotFound("There is no voice with that id.", code="unknown_voice") from None


def _understood(fields: Fields, *, has_file: bool) -> VoiceForm:
    if not has_file:
        raise Unprocessable(
            f"Send the recording as the part `{FILE}`.", errors=[{"field": FILE, "message": "missing", "code": "missing"}]
        )
    several = next((name for name, given in fields.items() if len(given) > 1), None)
    if several is not None:
        raise Unprocessable(f"{several}: given more than once; give it once.")
    form = checked({name: given[0] for name, given in fields.items()}, VoiceForm)
    try:
        voices.checked_name(form.name)
        voices.consent_of(form.consent, "")
    except InvalidOption as error:
        raise Unprocessable(error.message) from None
    return form
