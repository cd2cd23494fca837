"""A job's transcript in every format, and the answer once it has expired."""

from __future__ import annotations

import json

import httpx
import pytest
from fastapi import FastAPI

from api import problems, results
from api.errors import Gone
from flows.result import TranscribeResult
from infra.artifacts import ArtifactRef
from infra.compute import get_store
from infra.settings import StenoSettings
from infra.store import Store
from stenoflow.types import Segment, Transcript, Word

WORDS = ("good", "morning")


@pytest.fixture
def store(steno: StenoSettings) -> Store:
    results.forget_rendered()
    return get_store(steno)


def kept(store: Store) -> TranscribeResult:
    """The result of a job whose transcript is in the store."""
    words = tuple(
        Word(word=word, start=place, end=place + 0.5, score=0.9, timing="attention") for place, word in enumerate(WORDS)
    )
    segment = Segment(start=0.0, end=1.5, text=" ".join(WORDS), words=words)
    transcript = Transcript(language="en", duration=3.0, segments=(segment,), word_segments=words, warnings=("of the first",))
    path = store.scratch / "transcript.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(transcript.model_dump_json())
    return result_of(store.put(path, "transcript"))


def result_of(transcript: ArtifactRef) -> TranscribeResult:
    return TranscribeResult(
        source_name="monday.wav",
        transcript=transcript,
        files={},
        language="en",
        duration=3.0,
        words=len(WORDS),
        speakers=0,
        stages=(),
        warnings=("of this recording",),
        total_seconds=1.0,
    )


def lose(store: Store, result: TranscribeResult) -> None:
    (file,) = [file for file in store.files("artifacts") if result.transcript.sha256 in file.path]
    store.storage.delete(file.path)


async def test_a_transcript_is_rendered_with_the_warnings_of_its_own_recording(store: Store) -> None:
    result = kept(store)
    assert (await results.transcript(result)).word_segments[1].word == "morning"
    assert json.loads(await results.rendered(result, "json", {}))["warnings"] == ["of this recording"]
    assert b"good morning" in await results.rendered(result, "txt", {})
    members = json.loads("{" + await results.transcript_members(result) + "}")
    assert members["language"] == "en" and [word["word"] for word in members["word_segments"]] == list(WORDS)
    assert set(members) == {"language", "segments", "word_segments"}


async def test_the_layout_that_a_job_asked_for_is_its_own(store: Store) -> None:
    result = kept(store)
    plain = await results.rendered(result, "srt", {})
    narrow = await results.rendered(result, "srt", {"max_line_width": 10})
    assert b"good morning" in plain and b"good\nmorning" in narrow
    assert await results.rendered(result, "srt", {"language": "en", "max_line_width": None}) == plain


async def test_what_was_collected_is_gone_and_the_caller_is_told_what_to_do(store: Store) -> None:
    """Through every way to it, as the answer that a caller of the service gets."""
    result = kept(store)
    lose(store, result)
    app = FastAPI()
    problems.install(app)

    async def transcript() -> object:
        return await results.transcript(result)

    async def rendered() -> object:
        return await results.rendered(result, "srt", {})

    async def members() -> object:
        return await results.transcript_members(result)

    ways = {"/transcript": transcript, "/rendered": rendered, "/members": members}
    for path, read in ways.items():
        with pytest.raises(Gone):
            await read()
        app.get(path)(read)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        for path in ways:
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (410, "result_expired")
            assert answer.json()["detail"].endswith("submit the recording again.")


async def test_what_was_deleted_is_not_given_from_memory(store: Store) -> None:
    result = kept(store)
    assert b"good" in await results.rendered(result, "txt", {}) and "good" in await results.transcript_members(result)
    lose(store, result)
    results.forget_rendered()
    with pytest.raises(Gone):
        await results.rendered(result, "txt", {})
    with pytest.raises(Gone):
        await results.transcript_members(result)
