"""Names for the speakers of earlier runs, from what the store has of them: no stage is computed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, NamedTuple

from flows.outcome import read_outcome
from flows.pipeline import output_of
from flows.request import TranscribeRequest
from flows.result import TranscribeResult
from flows.voices import owner_in
from infra.artifacts import ArtifactRef
from infra.compute import get_store
from infra.names import output_stem
from infra.settings import get_settings
from infra.store import Store
from infra.usage import read_use
from infra.voices import keep_names, set_of
from infra.webhooks import SERVICE
from speech.schema import Diarization
from speech.stored import read_json
from stenoflow.errors import StenoError
from stenoflow.types import Transcript, VoiceMatch
from tasks.calls import outcome_in
from tasks.decoding import Recording
from tasks.rendering import KnownVoices, export_call, recognised, render_and_write

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

_PAGE = 200


class Named(NamedTuple):
    """A run whose speakers were compared."""

    run: str
    name: str
    speakers: dict[str, VoiceMatch]
    problem: str = ""
    """Why its files, or its speakers, are as before."""


async def apply(client: PrefectClient, owner: str = SERVICE) -> AsyncIterator[Named]:
    """Compare the speakers of all completed runs of the owner with the voices that are enrolled now, and write their files again.

    Names of voices that were forgotten since are taken out. A run whose artifacts were collected is left as it is.
    """
    offset = 0
    while page := await _runs(client, offset):
        offset += len(page)
        for run in page:
            outcome = await read_outcome(str(run.id)) if owner_in(run.tags) == owner else None
            if outcome is not None and outcome.result is not None and outcome.result.speakers:
                request = TranscribeRequest.model_validate(run.parameters["request"])
                yield await asyncio.to_thread(_named, str(run.id), request, outcome.result, set_of(owner))


async def _runs(client: PrefectClient, offset: int) -> list[FlowRun]:
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter
    from prefect.client.schemas.sorting import FlowRunSort

    return await client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=["transcribe"])),
        flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": ["COMPLETED"]}}}),
        sort=FlowRunSort.START_TIME_DESC,
        limit=_PAGE,
        offset=offset,
    )


def _named(run: str, request: TranscribeRequest, result: TranscribeResult, voices: str) -> Named:
    store = get_store()
    name = result.source_name
    try:
        diarization = _diarization(store, run, result)
        if diarization is None:
            return Named(run, name, {}, "its speaker embeddings are no longer in the store")
        known = KnownVoices(sets=(voices,), diarization=diarization)
        found = recognised(known, get_settings())
        keep_names(store, run, found.speakers)
        if result.files and result.audio is not None:
            recording = Recording(audio=result.audio, name=name, stem=output_stem(name), duration=result.duration, warnings=())
            output = output_of(request)
            render_and_write(export_call(result.transcript, output, recording, request.source, known), lambda _: None)
    except StenoError as error:
        return Named(run, name, {}, error.message)
    return Named(run, name, found.speakers, " ".join(found.warnings))


def _diarization(store: Store, run: str, result: TranscribeResult) -> ArtifactRef | None:
    """The one that the run's transcript was made with. Raises ArtifactMissing."""
    use = read_use(store, run)
    with store.local(result.transcript) as path:
        speakers = read_json(Transcript, path).speakers
    for key in use.keys if use is not None else ():
        content = store.read_record(key) if "/" not in key else None
        try:
            artifact = outcome_in(content, key).artifact if content else None
        except ValueError:
            continue
        if artifact is not None and artifact.kind == "diarization":
            with store.local(artifact) as path:
                if set(read_json(Diarization, path).speakers) >= set(speakers):
                    return artifact
    return None
