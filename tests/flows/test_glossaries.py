"""Runs with a glossary: what it changes, and what is not computed again for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.request import TranscribeRequest
from flows.transcribe import transcribe
from infra.compute import get_store
from infra.glossaries import all_of, find, keep, remove
from infra.settings import StenoSettings
from infra.webhooks import SERVICE
from stenoflow.errors import InvalidOption, UnknownGlossary
from tests.stage_double import ComputeDouble, recording


@pytest.mark.usefixtures("prefect_server")
async def test_another_glossary_diarizes_nothing_and_replacements_alone_decode_nothing(
    tmp_path: Path, steno: StenoSettings, double: ComputeDouble
) -> None:
    store = get_store(steno)
    keep(store, SERVICE, "terms", "Stenoflow\nPrefect\n")
    keep(store, SERVICE, "spelling", "good morning => Good evening\n")
    keep(store, SERVICE, "both", "Stenoflow\nPrefect\neveryone => Everybody\n")
    plain = TranscribeRequest(source=str(recording(tmp_path / "talk.wav")), output_dir=str(tmp_path / "out"), formats=("json",))

    async def computed(glossary: str) -> list[str]:
        double.forget()
        await transcribe(plain.model_copy(update={"glossary": glossary}))
        return double.ran

    await transcribe(plain)
    assert await computed("spelling") == ["merge"]
    written = json.loads((tmp_path / "out" / "talk.json").read_text())
    assert [word["word"] for word in written["word_segments"]] == ["Good", "evening", "everyone"]
    assert written["segments"][0]["text"] == "Good evening everyone"
    assert written["options"]["glossary"] == "spelling"
    assert [word["start"] for word in written["word_segments"]] == [0.5, 1.5, 2.5]
    # The double hears the same text, so that its words need no other times.
    assert await computed("terms") == ["asr", "merge"]
    assert double.jobs[0].params["hotwords"] == "Stenoflow Prefect"
    assert await computed("both") == ["merge"]
    with pytest.raises(UnknownGlossary, match="'nothing'"):
        await computed("nothing")
    assert double.ran == []


def test_a_glossary_is_its_owners(steno: StenoSettings) -> None:
    store = get_store(steno)
    keep(store, "anna", "acme", "Acme\n")
    keep(store, "anna", "acme", "Acme\nACME\n")
    assert find(store, "anna", "acme").hotwords == ("Acme", "ACME")
    with pytest.raises(UnknownGlossary):
        find(store, "ben", "acme")
    remove(store, "anna", "acme")
    assert all_of(store, "anna") == []


@pytest.mark.parametrize("name", ["", "../x", "a/b", "x" * 65])
def test_a_name_names_no_place(steno: StenoSettings, name: str) -> None:
    with pytest.raises(InvalidOption):
        keep(get_store(steno), "anna", name, "Acme\n")
