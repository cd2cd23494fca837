"""Transcripts in every format, rendered when they are asked for from the one artifact that the run left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from api.errors import Gone
from flows.options import LAYOUT
from flows.result import TranscribeResult
from infra.artifacts import ArtifactRef
from infra.compute import get_store
from infra.names import output_stem
from speech.stored import read_json
from stenoflow.errors import ArtifactMissing
from stenoflow.types import Transcript


async def rendered(result: TranscribeResult, format_: str, options: Mapping[str, Any]) -> str:
    """The transcript as the text of a file, laid out as the job's options say. Raises Gone when its artifact was collected."""
    layout = {name: options[name] for name in sorted(LAYOUT) if options.get(name) is not None}
    return await _from_store(_rendered, result, format_, json.dumps(layout))


async def transcript(result: TranscribeResult) -> Transcript:
    """The transcript itself. Raises Gone when its artifact was collected."""
    try:
        return await asyncio.to_thread(_read, result.transcript)
    except ArtifactMissing:
        raise _expired() from None


async def transcript_members(result: TranscribeResult) -> str:
    """`"language": …, "segments": […], "word_segments": […]` as the JSON file has them, to be put into an object. Raises Gone."""
    return await _from_store(_members, result)


def forget_rendered() -> None:
    """Keep no text of a job that was deleted."""
    _rendered.cache_clear()
    _members.cache_clear()


async def _from_store(function: Callable[..., str], result: TranscribeResult, *arguments: str) -> str:
    facts = result.model_dump_json(include={"transcript", "warnings", "source_name"})
    try:
        return await asyncio.to_thread(function, facts, *arguments)
    except ArtifactMissing:
        raise _expired() from None


def _expired() -> Gone:
    return Gone("The transcript has expired; submit the recording again.", code="result_expired")


def _read(reference: ArtifactRef) -> Transcript:
    with get_store().local(reference) as path:
        return read_json(Transcript, path)


@lru_cache(maxsize=8)
def _rendered(facts: str, format_: str, layout: str = "{}") -> str:
    """By the result's facts as JSON, so that callers who poll an ended job do not have it read and rendered every time."""
    from speech.formats import RenderOptions, render

    known = json.loads(facts)
    # Those of the recording are not in the artifact, which several recordings of the same samples share.
    found = _read(ArtifactRef.model_validate(known["transcript"])).model_copy(update={"warnings": tuple(known["warnings"])})
    return render(found, format_, RenderOptions(uri=output_stem(known["source_name"]), **json.loads(layout)))


@lru_cache(maxsize=32)
def _members(facts: str) -> str:
    whole = json.loads(_rendered(facts, "json"))
    return json.dumps({name: whole[name] for name in ("language", "segments", "word_segments")}, ensure_ascii=False)[1:-1]
