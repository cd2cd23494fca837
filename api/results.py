"""Transcripts in every format, rendered when they are asked for from the one artifact that the run left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any, TypeVar

from api.errors import Gone
from flows.options import LAYOUT
from flows.result import TranscribeResult
from infra.artifacts import ArtifactRef
from infra.compute import get_store
from infra.names import output_stem
from speech.stored import read_json
from stenoflow.errors import ArtifactMissing
from stenoflow.types import Transcript, VoiceMatch

Content = TypeVar("Content", str, bytes)


async def rendered(
    result: TranscribeResult, format_: str, options: Mapping[str, Any], corrected: Transcript | None = None
) -> bytes:
    """The transcript as a file, laid out as the job's options say; of a revision where it is `corrected`.

    Raises Gone when its artifact was collected.
    """
    layout = {name: options[name] for name in sorted(LAYOUT) if options.get(name) is not None}
    if corrected is not None:
        return await asyncio.to_thread(_of_revision, result, corrected, format_, layout)
    return await _from_store(_rendered, result, format_, json.dumps(layout))


def _of_revision(result: TranscribeResult, found: Transcript, format_: str, layout: Mapping[str, Any]) -> bytes:
    from speech.formats import RenderOptions, render

    found = found.model_copy(update={"warnings": result.warnings})
    return render(found, format_, RenderOptions(uri=output_stem(result.source_name), **layout))


async def transcript(result: TranscribeResult) -> Transcript:
    """The transcript itself, with the voices that were recognised. Raises Gone when its artifact was collected."""
    try:
        found = await asyncio.to_thread(read_transcript, result.transcript)
    except ArtifactMissing:
        raise expired() from None
    return found.model_copy(update={"speaker_matches": result.speaker_matches})


async def transcript_members(result: TranscribeResult) -> str:
    """`"language": …, "segments": […], "word_segments": […]` as the JSON file has them, to be put into an object. Raises Gone."""
    return await _from_store(_members, result)


def forget_rendered() -> None:
    """Keep no text of a job that was deleted."""
    _rendered.cache_clear()
    _members.cache_clear()


async def _from_store(function: Callable[..., Content], result: TranscribeResult, *arguments: str) -> Content:
    facts = result.model_dump_json(include={"transcript", "warnings", "source_name", "speaker_matches"})
    try:
        return await asyncio.to_thread(function, facts, *arguments)
    except ArtifactMissing:
        raise expired() from None


def expired() -> Gone:
    return Gone("The transcript has expired; submit the recording again.", code="result_expired")


def transcript_at(path: str) -> ArtifactRef:
    """A reference to the transcript of that path in the store."""
    return ArtifactRef(kind="transcript", path=path, sha256=PurePosixPath(path).name.partition(".")[0], bytes=0)


def read_transcript(reference: ArtifactRef) -> Transcript:
    """Raises ArtifactMissing."""
    with get_store().local(reference) as path:
        return read_json(Transcript, path)


@lru_cache(maxsize=8)
def _rendered(facts: str, format_: str, layout: str = "{}") -> bytes:
    """By the result's facts as JSON, so that callers who poll an ended job do not have it read and rendered every time."""
    from speech.formats import RenderOptions, render

    known = json.loads(facts)
    # The recording's warnings, and who was recognised, are not in the artifact, which several recordings of the same samples share.
    found = read_transcript(ArtifactRef.model_validate(known["transcript"]))
    matches = {label: VoiceMatch.model_validate(match) for label, match in known.get("speaker_matches", {}).items()}
    found = found.model_copy(update={"warnings": tuple(known["warnings"]), "speaker_matches": matches})
    return render(found, format_, RenderOptions(uri=output_stem(known["source_name"]), **json.loads(layout)))


@lru_cache(maxsize=32)
def _members(facts: str) -> str:
    whole = json.loads(_rendered(facts, "json"))
    return json.dumps({name: whole[name] for name in ("language", "segments", "word_segments")}, ensure_ascii=False)[1:-1]
