"""Runs that name speakers by their enrolled voices: what is written, and that nothing is computed again for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client

from flows.naming import Named, apply
from flows.request import TranscribeRequest
from flows.stored import from_store
from flows.transcribe import transcribe
from flows.voices import voice_sets
from infra.compute import get_store
from infra.settings import StenoSettings
from infra.voices import consent_of, enrol, forget, names_of, set_of
from infra.webhooks import SERVICE
from speech.enrolled import Voiceprint, model_of
from speech.schema import Diarization
from speech.stored import parsed
from stenoflow.types import VoiceMatch
from tests.flows.test_released import store as released
from tests.flows.test_stored import request, store
from tests.stage_double import ComputeDouble, recording

__all__ = ["released", "store"]


@pytest.fixture
def anna(store: Path, steno: StenoSettings) -> str:
    """She is enrolled, and speaks in the recording."""
    (path,) = (store / "artifacts" / "diarization").rglob("*.json")
    diarization = parsed(Diarization, path.read_bytes())
    ((label, embedding),) = diarization.speaker_embeddings.items()
    print_ = Voiceprint(model=model_of(diarization.models["diarization"]), embedding=embedding, seconds=2.0)
    enrol(get_store(steno), set_of(SERVICE), "Anna Berg", [print_], consent_of("asked", "me"))
    return label


async def test_the_speaker_is_named_and_no_stage_is_computed(
    store: Path, tmp_path: Path, steno: StenoSettings, anna: str
) -> None:
    asked = request(store, tmp_path).model_copy(update={"formats": ("json", "txt", "rttm"), "voices": True})
    result = await from_store(asked, steno)
    assert result is not None, "a stage would have to be computed"
    assert result.speaker_matches[anna].name == "Anna Berg"
    written = json.loads(Path(result.files["json"]).read_text())
    assert written["speaker_names"] == {anna: "Anna Berg"}
    assert written["speaker_matches"] == {anna: {"name": "Anna Berg", "score": 1.0}}
    assert {segment["speaker"] for segment in written["segments"]} == {anna}
    assert Path(result.files["txt"]).read_text().startswith("Anna Berg")
    assert anna in Path(result.files["rttm"]).read_text()
    assert b"Anna" not in b"".join(path.read_bytes() for path in (store / "artifacts").rglob("*.json"))


async def test_nobody_is_named_unless_it_is_asked_for(store: Path, tmp_path: Path, steno: StenoSettings, anna: str) -> None:
    result = await from_store(request(store, tmp_path), steno)
    assert result is not None and result.speaker_matches == {}
    written = json.loads(Path(result.files["json"]).read_text())
    assert "speaker_names" not in written and "speaker_matches" not in written


async def test_a_name_that_the_request_gives_comes_first(store: Path, tmp_path: Path, steno: StenoSettings, anna: str) -> None:
    asked = request(store, tmp_path).model_copy(update={"voices": True, "speaker_names": "Chair"})
    result = await from_store(asked, steno)
    assert result is not None
    assert json.loads(Path(result.files["json"]).read_text())["speaker_names"] == {anna: "Chair"}


async def test_a_forgotten_voice_names_nobody(store: Path, tmp_path: Path, steno: StenoSettings, anna: str) -> None:
    forget(get_store(steno), set_of(SERVICE), "Anna Berg")
    result = await from_store(request(store, tmp_path).model_copy(update={"voices": True}), steno)
    assert result is not None and result.speaker_matches == {} and not result.warnings


def test_a_job_is_compared_with_its_owners_voices_alone(store: Path, tmp_path: Path) -> None:
    asked = request(store, tmp_path)
    wanted = asked.model_copy(update={"voices": True})
    assert voice_sets(asked, ["owner:ben", "tag:x"]) == ()
    assert voice_sets(wanted, ["owner:ben", "tag:x"]) == (set_of("ben"),)
    assert voice_sets(wanted, []) == (set_of(SERVICE),)
    assert voice_sets(asked, ["owner:ben", "voices:call-1", "tag:voices:call-2", "voices:x"]) == ("call-1",)


# -- runs of the past -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("prefect_server")
async def test_earlier_runs_are_named_and_names_taken_out_again_without_computing(
    tmp_path: Path, steno: StenoSettings, double: ComputeDouble
) -> None:
    source = recording(tmp_path / "talk.wav")
    asked = TranscribeRequest(source=str(source), output_dir=str(tmp_path / "out"), formats=("txt", "json"))
    result = await transcribe(asked)
    text = Path(result.files["txt"])
    assert text.read_text().startswith("Speaker 1")
    double.forget()
    own = set_of(SERVICE)
    print_ = Voiceprint(model="double@1", embedding=(1.0, 0.0), seconds=2.0)
    enrol(get_store(steno), own, "Anna Berg", [print_], consent_of("asked", "me"))
    (named,) = await applied(text.name)
    assert named.speakers == {"SPEAKER_00": VoiceMatch(name="Anna Berg", score=1.0)} and not named.problem
    assert text.read_text().startswith("Anna Berg")
    assert names_of(get_store(steno), named.run) == named.speakers
    forget(get_store(steno), own, "Anna Berg")
    (named,) = await applied(text.name)
    assert named.speakers == {} and text.read_text().startswith("Speaker 1")
    assert double.ran == []


@pytest.mark.usefixtures("prefect_server")
async def test_a_file_that_was_changed_since_is_left_as_it_is(
    tmp_path: Path, steno: StenoSettings, double: ComputeDouble
) -> None:
    source = recording(tmp_path / "changed.wav")
    result = await transcribe(TranscribeRequest(source=str(source), output_dir=str(tmp_path / "out"), formats=("txt",)))
    text = Path(result.files["txt"])
    text.write_text("mine")
    (named,) = await applied(text.name)
    assert "was changed since" in named.problem and text.read_text() == "mine"


async def applied(file: str) -> list[Named]:
    """What came of the runs of that name; the server has those of other tests."""
    async with get_client() as client:
        return [
            named
            async for named in apply(client)
            if Path(named.name).stem == Path(file).stem and not named.problem.startswith("its")
        ]
