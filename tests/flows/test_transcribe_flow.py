"""One recording through the flow: what is reported while it runs, and what is there afterwards."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.states import State

from flows.request import TranscribeRequest
from flows.transcribe import transcribe
from infra.progress import StageEvent, listening
from tests.media import make_case
from tests.stage_double import TEXT, ComputeDouble, recording

STAGES = ["fetch", "segment", "asr", "align", "embed", "diarize", "merge", "export"]


def request(source: Path, **options: Any) -> TranscribeRequest:
    return TranscribeRequest(source=str(recording(source)), output_dir=str(source.parent / "out"), **options)


@pytest.mark.usefixtures("prefect_server", "steno")
async def test_every_format_is_written_under_the_recordings_name(tmp_path: Path, double: ComputeDouble) -> None:
    result = await transcribe(
        request(tmp_path / "Monday call.wav", formats=("json", "srt", "vtt", "txt", "tsv", "rttm", "aud"))
    )
    assert {format_: Path(path).name for format_, path in result.files.items()} == {
        format_: f"Monday call.{format_}" for format_ in ("json", "srt", "vtt", "txt", "tsv", "rttm", "aud")
    }
    assert all(Path(path).stat().st_size for path in result.files.values())
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [
        ".aud",
        ".json",
        ".rttm",
        ".srt",
        ".tsv",
        ".txt",
        ".vtt",
    ]
    words = json.loads(Path(result.files["json"]).read_text())["word_segments"]
    assert [(word["word"], word["speaker"]) for word in words] == [(word, "SPEAKER_00") for word in TEXT.split()]


@pytest.mark.usefixtures("prefect_server", "steno")
async def test_one_named_file_is_written(tmp_path: Path, double: ComputeDouble) -> None:
    result = await transcribe(request(tmp_path / "a.wav", output_file="minutes.srt"))
    assert result.files == {"srt": str(tmp_path / "out" / "minutes.srt")}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["minutes.srt"]


@pytest.mark.usefixtures("prefect_server", "steno")
async def test_result_tells_what_was_found(tmp_path: Path, double: ComputeDouble) -> None:
    result = await transcribe(request(tmp_path / "a.wav"))
    assert (result.source_name, result.language, result.words, result.speakers) == ("a.wav", "en", 3, 1)
    assert result.duration == 4.0
    assert [stage.stage for stage in result.stages] == STAGES
    assert all(stage.attempts == 1 for stage in result.stages)


@pytest.mark.usefixtures("prefect_server", "steno")
async def test_what_was_noticed_about_the_recording_is_in_its_transcript(tmp_path: Path, double: ComputeDouble) -> None:
    source = make_case("clipped", tmp_path)
    result = await transcribe(TranscribeRequest(source=str(source), output_dir=str(tmp_path / "out")))
    warnings = json.loads(Path(result.files["json"]).read_text())["warnings"]
    assert any("clipped" in warning for warning in warnings)
    assert set(warnings) <= set(result.warnings)


@pytest.mark.usefixtures("prefect_server", "steno")
async def test_stages_that_were_not_asked_for_are_skipped(tmp_path: Path, double: ComputeDouble) -> None:
    result = await transcribe(request(tmp_path / "a.wav", align=False, diarize=False))
    skipped = [stage.stage for stage in result.stages if stage.state == "skipped"]
    assert skipped == ["align", "embed", "diarize"]
    assert sorted(double.ran) == ["asr", "merge", "segment"]


@pytest.mark.usefixtures("prefect_server", "steno")
async def test_events_tell_every_stage_from_start_to_end(tmp_path: Path, double: ComputeDouble) -> None:
    seen: list[StageEvent] = []
    with listening(seen.append):
        await transcribe(request(tmp_path / "a.wav"))
    assert len({event.run for event in seen}) == 1
    for stage in STAGES:
        states = [event.state for event in seen if event.stage == stage]
        assert (states[0], states[-1]) == ("started", "completed"), stage
    fractions = [event.fraction for event in seen if event.stage == "asr" and event.state == "progress"]
    assert fractions == [0.5]


@pytest.mark.usefixtures("prefect_server", "steno")
async def test_reused_stages_are_never_said_to_start(tmp_path: Path, double: ComputeDouble) -> None:
    await transcribe(request(tmp_path / "a.wav"))
    seen: list[StageEvent] = []
    with listening(seen.append):
        await transcribe(request(tmp_path / "a.wav"))
    for stage in ("segment", "asr", "align", "embed", "diarize", "merge"):
        assert [event.state for event in seen if event.stage == stage] == ["cached"]


@pytest.mark.usefixtures("prefect_server", "steno")
async def test_prefect_shows_the_recordings_name(tmp_path: Path, double: ComputeDouble) -> None:
    state: State[Any] = await transcribe(request(tmp_path / "call.wav"), return_state=True)
    run = state.state_details.flow_run_id
    assert run is not None
    async with get_client() as client:
        assert (await client.read_flow_run(run)).name == "call.wav"


def test_importing_the_flow_loads_no_engine_and_switches_telemetry_off(tmp_path: Path) -> None:
    code = (
        "import sys, os, flows.transcribe;"
        "print(sorted({'torch', 'whisperx', 'pyannote', 'ctranslate2', 'soundfile', 'av', 's3fs'} & set(sys.modules)));"
        "from prefect.settings import get_current_settings as s; print(s().server.analytics_enabled);"
        "print(os.environ['DO_NOT_TRACK'], os.environ['PYANNOTE_METRICS_ENABLED'])"
    )
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PYANNOTE_", "DO_NOT"))
    }
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"PREFECT_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.splitlines() == ["[]", "False", "1 0"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("prefect_server", "steno")
async def test_real_models_transcribe_a_real_conversation_and_are_not_run_twice(tmp_path: Path) -> None:
    """pyannote's own sample: a phone call of 30 s between two people."""
    sample = Path(str(importlib.metadata.distribution("pyannote.audio").locate_file("pyannote/audio/sample/sample.wav")))
    asked = TranscribeRequest(source=str(sample), model="tiny.en", output_dir=str(tmp_path / "out"))
    result = await transcribe(asked)
    assert (result.speakers, result.language) == (2, "en")
    words = json.loads(Path(result.files["json"]).read_text())["word_segments"]
    assert len(words) > 50
    assert all(word["speaker"] for word in words)
    assert [word["start"] for word in words] == sorted(word["start"] for word in words)
    again = await transcribe(asked.model_copy(update={"max_speakers": 1}))
    assert [stage.stage for stage in again.stages if stage.state == "computed"] == ["diarize", "merge", "export"]
    assert again.speakers == 1
