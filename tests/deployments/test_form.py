"""What Prefect's form is given to show: of every flow that can be run from it."""

from __future__ import annotations

import json
import re
from itertools import groupby
from typing import Any

import pytest

from deployments.catalog import catalog
from deployments.form import parameter_form
from flows.options import FORMATS
from flows.request import TranscribeRequest
from infra.settings import StenoSettings

SPECS = {f"{spec.entrypoint}/{spec.name}": spec for spec in catalog(StenoSettings())}


def fields(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{model}.{name}": spec for model, body in schema["definitions"].items() for name, spec in body["properties"].items()
    }


@pytest.mark.parametrize("name", SPECS)
def test_every_field_has_a_title_a_description_and_a_place(name: str) -> None:
    schema = parameter_form(SPECS[name].flow)
    for path, spec in fields(schema).items():
        assert spec["title"] and "_" not in spec["title"], path
        assert spec.get("description"), path
    for body in schema["definitions"].values():
        positions = [spec["position"] for spec in body["properties"].values()]
        assert positions == list(range(len(positions)))


def test_what_most_runs_fill_in_comes_first() -> None:
    properties = parameter_form(SPECS["flows.transcribe.transcribe/one-recording"].flow)["definitions"]["TranscribeRequest"][
        "properties"
    ]
    assert list(properties)[:3] == ["source", "name", "language"]
    assert properties["source"]["title"] == "Recording"


def test_optional_numbers_are_numbers_with_bounds_and_choices_are_choices() -> None:
    properties = parameter_form(SPECS["flows.transcribe.transcribe/one-recording"].flow)["definitions"]["TranscribeRequest"][
        "properties"
    ]
    speakers = properties["max_speakers"]
    assert (speakers["type"], speakers["minimum"], speakers["maximum"]) == ("integer", 1, 100)
    assert "anyOf" not in speakers and "default" not in speakers
    assert properties["task"]["enum"] == ["transcribe", "translate"]
    assert properties["redo_from"]["enum"][0] == "fetch"
    one, several = properties["language"]["anyOf"]
    assert {"english", "en", "french"} <= set(one["enum"])
    assert re.fullmatch(several["pattern"], "en, french")
    assert not re.fullmatch(several["pattern"], "en")
    assert (one["title"], several["title"]) == ("One", "Several")
    assert properties["batch_size"]["maximum"] == 256 and "default" not in properties["batch_size"]


@pytest.mark.parametrize("name", SPECS)
def test_fields_of_a_kind_stand_together_under_one_heading(name: str) -> None:
    for body in parameter_form(SPECS[name].flow)["definitions"].values():
        headings = [spec["title"].partition(":")[0] for spec in body["properties"].values() if ":" in spec["title"]]
        assert list(dict.fromkeys(headings)) == [heading for heading, _ in groupby(headings)]
        plain = [":" not in spec["title"] for spec in body["properties"].values()]
        assert plain == sorted(plain, reverse=True), "what most runs fill in comes before the groups"


@pytest.mark.parametrize("name", SPECS)
def test_the_sentences_are_for_whoever_fills_in_the_form(name: str) -> None:
    text = json.dumps(parameter_form(SPECS[name].flow)) + SPECS[name].description
    for jargon in ("fsspec", "hub id", "settings'", "the settings", "repo id"):
        assert jargon not in text


@pytest.mark.parametrize(
    ("given", "meant"),
    [("all", FORMATS), (["all"], FORMATS), (["srt", "all"], FORMATS), ("srt, VTT", ("srt", "vtt")), (["srt", "srt"], ("srt",))],
)
def test_formats_are_taken_as_at_the_command_line(given: Any, meant: tuple[str, ...]) -> None:
    form = parameter_form(SPECS["flows.transcribe.transcribe/one-recording"].flow)
    formats = form["definitions"]["TranscribeRequest"]["properties"]["formats"]
    assert "all" in formats["items"]["enum"]
    assert TranscribeRequest.model_validate({"source": "a.wav", "formats": given}).formats == meant
