"""Glossaries of the caller's owner, which jobs choose by name."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from api.bodies import json_body
from api.dependencies import CurrentCaller, TheJobs
from api.documents import GLOSSARY, problems
from api.errors import JobNotFound
from api.schemas import GlossaryForm
from infra import glossaries
from infra.compute import get_store
from speech.glossary import Glossary
from stenoflow.errors import InvalidOption, UnknownGlossary
from stenoflow.jobs import GlossaryInfo, GlossaryList

router = APIRouter(tags=["glossaries"])
Name = Annotated[str, Path(max_length=64, description="Up to 64 letters, digits, dots, hyphens and underscores.")]


@router.put("/glossaries/{name}", openapi_extra=GLOSSARY, responses=problems(400, 408, 413, 415, 422, 507))
async def create_glossary(name: Name, request: Request, caller: CurrentCaller, jobs: TheJobs) -> GlossaryInfo:
    """Keep a glossary under a name, in place of the one that has it: hot words and replacements, one a line."""
    form = await json_body(request, GlossaryForm, jobs.settings.api.max_body_bytes)
    store = await asyncio.to_thread(get_store)
    return _shown(await asyncio.to_thread(glossaries.keep, store, caller.owned_by, name, form.text))


@router.get("/glossaries", responses=problems())
async def list_glossaries(caller: CurrentCaller) -> GlossaryList:
    """List the glossaries, by name."""
    store = await asyncio.to_thread(get_store)
    found = await asyncio.to_thread(glossaries.all_of, store, caller.owned_by)
    return GlossaryList(glossaries=[_shown(one) for one in found])


@router.delete("/glossaries/{name}", status_code=204, responses=problems(404))
async def delete_glossary(name: Name, caller: CurrentCaller) -> Response:
    """Remove a glossary. Transcripts that were made with it stay."""
    store = await asyncio.to_thread(get_store)
    try:
        await asyncio.to_thread(glossaries.remove, store, caller.owned_by, name)
    except (UnknownGlossary, InvalidOption):
        raise JobNotFound("There is no glossary with that name.", code="unknown_glossary") from None
    return Response(status_code=204)


def _shown(glossary: Glossary) -> GlossaryInfo:
    return GlossaryInfo(
        name=glossary.name, text=glossary.text, hotwords=len(glossary.hotwords), replacements=len(glossary.replacements)
    )
