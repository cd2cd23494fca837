"""Upgrade and rollback: a store that release 0.1 left is a cache today, and what today's version writes is what 0.1 reads."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from api import keys
from flows.batching import lease
from flows.batching.ended import Ended, keep_ended, read_ended
from flows.batching.lease import Lease
from flows.outcome import read_outcome
from flows.request import TranscribeRequest
from flows.transcribe import transcribe
from infra import usage, webhooks
from infra.collect import Limits, collect
from infra.compute import get_store
from infra.settings import StenoSettings, get_settings
from speech.stages import STAGES
from speech.stored import parsed
from stenoflow.types import Transcript
from tasks.calls import outcome_in
from tasks.decoding import FetchCall, known_audio
from tests.stage_double import ComputeDouble

RELEASED = Path(__file__).parents[1] / "infra" / "released"
SCHEMAS: dict[str, Any] = json.loads((RELEASED / "records-0.1.json").read_text())
"""Of the records that 0.1 reads, by folder. It refused fields that it did not know."""
THEN = {"asr": 3, "align": 2, "embed": 2, "cluster": 3}
"""The versions of stages that give something else today."""
pytestmark = pytest.mark.usefixtures("steno")


@pytest.fixture
def store(steno: StenoSettings) -> Path:
    """A store as 0.1 left it after one recording of two seconds."""
    return Path(shutil.copytree(RELEASED / "store-0.1", steno.store_url))


def records(store: Path, folder: str = "") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (store / "records" / folder).iterdir() if path.is_file()}


def request(store: Path, tmp_path: Path) -> TranscribeRequest:
    (audio,) = (store / "artifacts" / "audio").rglob("*.flac")
    source = Path(shutil.copy(audio, tmp_path / "talk.flac"))
    return TranscribeRequest(source=str(source), output_dir=str(tmp_path / "out"), model="tiny.en")


# -- forward --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def same_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if these stages still gave what they gave then: their versions are all that changed in their keys."""
    for stage, version in THEN.items():
        monkeypatch.setitem(STAGES, stage, STAGES[stage]._replace(version=version))


@pytest.mark.usefixtures("prefect_server")
async def test_only_what_a_stage_gives_otherwise_today_is_computed_again_and_what_follows_it(
    store: Path, tmp_path: Path, double: ComputeDouble
) -> None:
    """ASR left out speech then, without a warning, and voices were told apart by chunks alone."""
    await transcribe(request(store, tmp_path))
    assert sorted(double.ran) == ["align", "asr", "cluster", "embed", "merge"]
    assert double.ran[-1] == "merge"


@pytest.mark.usefixtures("prefect_server", "same_stages")
async def test_what_an_earlier_version_computed_is_not_computed_again(
    store: Path, tmp_path: Path, double: ComputeDouble
) -> None:
    (transcript,) = (store / "artifacts" / "transcript").rglob("*.json")
    result = await transcribe(request(store, tmp_path))
    assert double.ran == []
    assert result.transcript.sha256 == transcript.stem
    written = json.loads(Path(result.files["json"]).read_text())
    assert [word["word"] for word in written["word_segments"]] == [
        word.word for word in parsed(Transcript, transcript.read_bytes()).word_segments
    ]


@pytest.mark.usefixtures("prefect_server", "same_stages")
async def test_what_was_computed_before_there_were_several_engines_is_not_computed_again(
    steno: StenoSettings, tmp_path: Path, double: ComputeDouble
) -> None:
    """With options that are in the keys of asr, diarize and merge."""
    store = Path(shutil.copytree(RELEASED / "store-before-engines", steno.store_url))
    (transcript,) = (store / "artifacts" / "transcript").rglob("*.json")
    asked = request(store, tmp_path).model_copy(update={"language": "en", "num_speakers": 1, "initial_prompt": "Numbers."})
    result = await transcribe(asked)
    assert double.ran == []
    assert result.transcript.sha256 == transcript.stem


async def test_every_record_of_an_earlier_version_is_read(store: Path) -> None:
    stages = {name: content for name, content in records(store).items() if len(name) == 64}
    assert {outcome_in(content, name).artifact.kind for name, content in stages.items()} == {
        "segmentation",
        "asr",
        "alignment",
        "embeddings",
        "diarization",
        "transcript",
    }
    (decoded,) = (name for name in records(store) if name.startswith("decoded-"))
    audio = known_audio(decoded, FetchCall(source="talk.flac", label="talk.flac"))
    assert audio is not None
    with get_store().local(audio):
        pass
    (run,) = records(store, "runs")
    outcome = await read_outcome(run)
    assert outcome is not None
    assert outcome.state == "completed"
    use = usage.read_use(get_store(), run)
    assert use is not None
    assert (use.ended, len(use.artifacts)) == (True, 7)


# -- back -----------------------------------------------------------------------------------------------------------------


async def test_what_is_written_today_is_read_by_the_earlier_version(
    store: Path, tmp_path: Path, double: ComputeDouble, prefect_server: None
) -> None:
    shutil.rmtree(store / "records")
    await transcribe(request(store, tmp_path))
    for name, content in records(store).items():
        if name.startswith("decoded-"):
            jsonschema.validate(json.loads(content), SCHEMAS["decoded"])
        elif len(name) == 64:
            jsonschema.validate(json.loads(json.loads(content)["result"]), SCHEMAS["stage"])
    used = [content for name, content in records(store, "uses").items() if not name.startswith("claim-")]
    assert used
    for content in used:
        jsonschema.validate(json.loads(content), SCHEMAS["uses"])


def test_records_of_batches_and_webhooks_are_read_by_the_earlier_version(store: Path) -> None:
    keep_ended("k", Ended(name="talk", state="done", files=("a.json",)))
    lease._write("k", Lease(campaign="c", run="r", process="p", until=1.0))
    webhooks.subscribe(get_store(), "owner", "https://example.com/hook")
    for folder in ("done", "batches", "webhooks"):
        (content,) = records(store, folder).values()
        jsonschema.validate(json.loads(content), SCHEMAS[folder])


# -- records of a later version -------------------------------------------------------------------------------------------


def with_later_fields(content: bytes) -> bytes:
    """Every object of it has a field that this version does not know."""

    def grown(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: grown(inner) for name, inner in value.items()} | {"later": {"of": "a later version"}}
        return [grown(inner) for inner in value] if isinstance(value, list) else value

    return json.dumps(grown(json.loads(content))).encode()


def test_a_field_of_a_later_version_changes_nothing_in_what_is_read(store: Path) -> None:
    (run,) = records(store, "uses")
    kept = get_store()
    before = usage.read_use(kept, run)
    (store / "records" / "uses" / run).write_bytes(with_later_fields(records(store, "uses")[run]))
    assert usage.read_use(kept, run) == before
    keep_ended("k", Ended(name="talk", state="failed", detail="why"))
    kept.write_record("done/k", with_later_fields(kept.read_record("done/k") or b""))
    assert read_ended("k") == Ended(name="talk", state="failed", detail="why")
    held = Lease(campaign="c", run="r", process="p", until=time.time() + 60)
    kept.write_record("batches/k", with_later_fields(held.model_dump_json().encode()))
    assert lease._read("k") == held


@pytest.mark.parametrize("change", ["a field more", "other fields", "damaged"])
def test_the_collector_leaves_what_a_use_names_that_it_does_not_understand(
    store: Path, steno: StenoSettings, change: str
) -> None:
    (run,) = records(store, "uses")
    use = usage.read_use(get_store(), run)
    assert use is not None
    held = use.model_copy(update={"ended": False, "beat": time.time(), "retention": None})
    content = held.model_dump_json().encode()
    if change == "a field more":
        content = with_later_fields(content)
    elif change == "other fields":
        content = json.dumps({"runs": [run], "paths": list(held.artifacts), "until": "2030-01-01"}).encode()
    else:
        content = content.replace(b'"ended"', b'"\xff\xfe\xfd"')
    (store / "records" / "uses" / run).write_bytes(content)
    collected = collect(get_store(), steno, Limits(older_than=0.0))
    assert (collected.artifacts, collected.kept) == (0, 7)


def test_a_recording_that_a_later_version_has_done_is_done(store: Path) -> None:
    get_store().write_record("done/k", b'{"name": "talk", "state": "archived", "where": "s3://tape"}')
    row = read_ended("k")
    assert row is not None
    assert row.state == "done"
    get_store().write_record("done/k", b'{"name": "talk", "sta')
    assert read_ended("k") is None, "a damaged row costs doing it once more"


def test_a_lease_that_cannot_be_read_is_held_until_it_would_run_out(store: Path) -> None:
    get_store().write_record("batches/k", b'{"holder": "somebody"}')
    found = lease._read("k")
    assert found is not None
    assert not lease._free(found, "another run")
    assert found.until == pytest.approx(time.time() + get_settings().batch.lease_seconds, abs=30)


def test_a_damaged_key_opens_nothing(store: Path) -> None:
    get_store().write_record("api-keys/k", b'{"id": "k", "sha256": ')
    found = keys.read(get_store(), "k")
    assert found is not None
    assert found.revoked is not None
