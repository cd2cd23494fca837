"""One declaration per option: what it says is what every door does, and a further option or format needs no other file."""

from __future__ import annotations

from typing import Any

import pytest

from api.schemas import JobOptions, RetryRequest
from flows.doors import OPERATORS, Door, options_of
from flows.options import MANIFEST_OPTIONS, NEUTRAL, RENDERED, TranscribeOptions, echoed
from flows.request import TranscribeRequest
from speech.formats import RenderOptions
from speech.schema import AsrParams, DiarizeParams, SegmentParams
from tasks.decoding import FetchCall, record_of
from tests.changed_tree import Change, changed_tree, seen_by

LOOK = """
import json
from api.app import create_app
from api.chunks import _OPTIONS
from deployments.form import parameter_form
from flows.batching.plan import COLUMNS
from flows.evaluate import ROW_OPTIONS
from flows.transcribe import transcribe
from infra.names import WRITTEN
from stenoflow.cli import batch, evaluate, retry, submit
from stenoflow.cli import transcribe as single
from tests import client_options
import click

schemas = create_app().openapi()["components"]["schemas"]
commands = (single, batch, evaluate, retry, submit)
client_options.PATH.write_text(client_options.written())
from stenoflow.client import options as client
print(json.dumps({
    "help": {one.__name__.rpartition(".")[2]: one.command.get_help(click.Context(one.command)) for one in commands},
    "form": parameter_form(transcribe)["definitions"]["TranscribeRequest"]["properties"],
    "manifest": [*COLUMNS], "rows": [*ROW_OPTIONS], "written": sorted(WRITTEN), "chunk": sorted(_OPTIONS),
    "API": schemas["JobRequest"]["properties"], "retry": schemas["RetryRequest"]["properties"],
    "OpenAI": schemas["TranscriptionForm"]["properties"],
    "client": {name: list(getattr(client, name).__annotations__) for name in ("Options", "ChunkOptions", "Changes")},
    "formats": [*client.FORMATS],
}))
"""
CHANGES = (
    Change(
        "flows/options.py",
        "    allow_truncated: bool = option(",
        """    tempo: int | None = option(
        None, "Beats per minute.", Option("Sound", "how fast", CHUNKS | {Door.OPENAI}, key=("asr",)), ge=20, le=300
    )
    pitch: bool = option(False, "Keep the pitch.", Option("Sound", "keep the pitch", OPERATORS))
""",
    ),
    Change("speech/formats/__init__.py", '    "lrc": Format(lrc),', '    "lyrics": Format(lrc),\n'),
)
"""An option for all and one for operators, and a format."""


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What every door offers once the declarations are there, and nothing else is."""
    return seen_by(changed_tree(tmp_path_factory.mktemp("changed"), CHANGES), LOOK)


def test_a_new_option_is_at_every_door_that_its_declaration_names(doors: Any) -> None:
    for name, text in doors["help"].items():
        assert "--tempo N" in text and "Beats per minute." in text, name
    assert (doors["form"]["tempo"]["title"], doors["form"]["tempo"]["minimum"]) == ("Sound: how fast", 20)
    assert "tempo" in doors["manifest"] and "tempo" in doors["rows"] and "tempo" in doors["chunk"]
    for door in ("API", "retry", "OpenAI"):
        field = doors[door]["tempo"]
        assert field["description"].startswith("Beats per minute.")
        assert field["anyOf"][0] == {"type": "integer", "minimum": 20, "maximum": 300}
    assert all("tempo" in names for names in doors["client"].values())


def test_a_new_option_is_at_no_other_door(doors: Any) -> None:
    assert "--pitch" in doors["help"]["transcribe"] and "--pitch" not in doors["help"]["submit"]
    assert "pitch" in doors["form"] and "pitch" in doors["manifest"] and "pitch" not in doors["chunk"]
    assert not [door for door in ("API", "retry", "OpenAI") if "pitch" in doors[door]]
    assert not any("pitch" in names for names in doors["client"].values())


def test_a_new_format_is_at_every_door(doors: Any) -> None:
    assert "lyrics" in doors["help"]["transcribe"] and "lyrics" in doors["help"]["submit"]
    assert "lyrics" in doors["form"]["formats"]["items"]["enum"]
    assert "lyrics" in doors["API"]["formats"]["items"]["enum"] and doors["API"]["formats"]["maxItems"] == len(doors["formats"])
    assert "lyrics" in doors["written"] and "lyrics" in doors["formats"]


def test_only_the_exceptions_have_another_default_at_the_api() -> None:
    fields = TranscribeRequest.model_fields
    differing = {
        name: known.at[Door.API].why
        for name, known in options_of(TranscribeRequest, Door.API).items()
        if JobOptions.model_fields[name].default != fields[name].default
    }
    assert set(differing) == {"diarize", "formats", "on_diarization_failure"} and all(differing.values())
    assert (JobOptions.model_fields["batch_size"].default, fields["batch_size"].default) == (None, None)


@pytest.mark.parametrize(
    ("door", "there"),
    [(Door.API, JobOptions.model_fields), (Door.RETRY, RetryRequest.model_fields), (Door.MANIFEST, MANIFEST_OPTIONS)],
)
def test_a_door_has_what_is_declared_for_it_and_nothing_else(door: Door, there: Any) -> None:
    own = {"from_"} if door is Door.RETRY else set()
    elsewhere = {"source", "name"} if door is Door.MANIFEST else set()
    assert set(there) - own == set(options_of(TranscribeRequest, door)) - elsewhere


def test_callers_may_neither_spend_money_nor_overwrite_files() -> None:
    known = options_of(TranscribeRequest)
    assert {name for name, option in known.items() if option.doors <= OPERATORS} == {
        *("source", "output_dir", "output_file", "overwrite", "compute", "redo_from", "retention_days", "together")
    }


def test_an_option_stands_in_the_keys_that_it_declares() -> None:
    declared = {name: set(option.key) for name, option in options_of(TranscribeOptions).items()}
    params = {"asr": AsrParams, "diarize": DiarizeParams, "segment": SegmentParams}
    for stage, model in params.items():
        model_option = "model" if stage == "asr" else "diarization_model"
        taken = {model_option if name == "model" else name for name in model.model_fields} & set(declared)
        assert {name for name, stages in declared.items() if stage in stages} == taken, stage
    plain = FetchCall(source="a.wav", label="a.wav")
    changed = {"track": "2", "allow_truncated": True, "max_duration": 1.0, "language": "fr"}
    in_record = {
        name
        for name, value in changed.items()
        if record_of("0", plain.model_copy(update={name: value})) != record_of("0", plain)
    }
    assert {name for name, stages in declared.items() if "fetch" in stages} == in_record


def test_transcripts_echo_what_they_echoed_from_the_first_version_on_and_more_only_when_it_is_given() -> None:
    always = {
        "language",
        "task",
        "align",
        "diarize",
        "num_speakers",
        "min_speakers",
        "max_speakers",
        "initial_prompt",
        "hotwords",
    }
    assert set(echoed(TranscribeOptions())) == always
    assert set(echoed(TranscribeOptions(align_model="attention", track="2"))) == always | {"align_model"}


def test_options_that_leave_a_finished_transcript_as_it_is() -> None:
    assert {"batch_size", "max_duration", "retention_days", "on_diarization_failure", "overwrite", "redo_from"} == NEUTRAL
    assert not [name for name in NEUTRAL if options_of(TranscribeOptions)[name].key]
    assert set(RENDERED) == {"formats", *RenderOptions.model_fields} - {"uri", "audio"}


@pytest.mark.parametrize(
    ("given", "meant"),
    [("French", "fr"), ("en,fr,es", "en,fr,es"), ("English; french, en", "en,fr"), ("haitian creole, fr", "ht,fr"), ("", None)],
)
def test_languages_are_one_or_several_by_code_or_name(given: str, meant: str | None) -> None:
    assert TranscribeOptions(language=given).language == meant


def test_each_language_of_a_list_is_known() -> None:
    with pytest.raises(ValueError, match="Unknown language 'klingon'"):
        TranscribeOptions(language="en,klingon")
