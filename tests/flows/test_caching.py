"""What is computed again, and what is not: counted where stages are executed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.request import TranscribeRequest
from flows.result import TranscribeResult
from flows.transcribe import transcribe
from infra.compute import get_store
from infra.settings import StenoSettings, get_settings
from tests.stage_double import ComputeDouble, recording

pytestmark = [pytest.mark.usefixtures("prefect_server", "steno"), pytest.mark.slow]

ALL = ["segment", "asr", "embed", "align", "cluster", "merge"]


async def run(source: Path, **options: Any) -> TranscribeResult:
    request = TranscribeRequest(source=str(source), output_dir=str(source.parent / "out"), **options)
    return await transcribe(request)


def states(result: TranscribeResult) -> dict[str, str]:
    return {stage.stage: stage.state for stage in result.stages}


async def test_first_run_computes_every_stage_once(tmp_path: Path, double: ComputeDouble) -> None:
    result = await run(recording(tmp_path / "a.wav"))
    assert sorted(double.ran) == sorted(ALL)
    assert set(states(result).values()) == {"computed"}


async def test_second_run_computes_nothing_and_says_so(tmp_path: Path, double: ComputeDouble) -> None:
    first = await run(recording(tmp_path / "a.wav"))
    double.forget()
    second = await run(tmp_path / "a.wav")
    assert double.ran == []
    assert states(second) == {name: "computed" if name == "export" else "cached" for name in states(first)}
    assert second.transcript.sha256 == first.transcript.sha256


@pytest.mark.parametrize(
    ("change", "executed"),
    [
        ({"max_speakers": 3}, ["cluster", "merge"]),
        ({"formats": ("srt", "txt")}, []),
        ({"output_file": "named.vtt"}, []),
        ({"batch_size": 2}, []),
        ({"max_line_width": 30, "highlight_words": True}, []),
        ({"hotwords": "Stenoflow"}, ["asr", "align", "merge"]),
        ({"initial_prompt": "Minutes of a meeting."}, ["asr", "align", "merge"]),
        ({"task": "translate"}, ["asr", "align", "merge"]),
        ({"diarize": False}, ["merge"]),
        ({"align": False}, ["merge"]),
    ],
)
async def test_a_changed_option_computes_what_it_changes(
    tmp_path: Path, double: ComputeDouble, change: dict[str, Any], executed: list[str]
) -> None:
    await run(recording(tmp_path / "a.wav"))
    double.forget()
    await run(tmp_path / "a.wav", **change)
    # Another text may align to the words of before: what counts is that nothing else was executed.
    assert [stage for stage in double.ran if stage not in executed] == []
    assert set(executed) - set(double.ran) <= {"align"}


async def test_second_name_for_the_same_bytes_computes_nothing(tmp_path: Path, double: ComputeDouble) -> None:
    await run(recording(tmp_path / "a.wav"))
    shutil.copy(tmp_path / "a.wav", tmp_path / "renamed.wav")
    double.forget()
    result = await run(tmp_path / "renamed.wav")
    assert double.ran == []
    assert states(result)["fetch"] == "cached"
    assert Path(result.files["json"]).name == "renamed.json"


async def test_same_samples_in_another_container_compute_nothing(tmp_path: Path, double: ComputeDouble) -> None:
    await run(recording(tmp_path / "a.wav", seed=1))
    double.forget()
    result = await run(recording(tmp_path / "b.flac", seed=1))
    assert double.ran == []
    assert states(result)["fetch"] == "computed"


async def test_another_recording_computes_everything(tmp_path: Path, double: ComputeDouble) -> None:
    await run(recording(tmp_path / "a.wav", seed=1))
    double.forget()
    await run(recording(tmp_path / "b.wav", seed=2))
    assert sorted(double.ran) == sorted(ALL)


@pytest.mark.parametrize(("kind", "executed"), [("embeddings", ["embed"]), ("transcript", ["merge"]), ("asr", ["asr"])])
async def test_an_artifact_that_was_collected_is_computed_again(
    tmp_path: Path, double: ComputeDouble, steno: StenoSettings, kind: str, executed: list[str]
) -> None:
    await run(recording(tmp_path / "a.wav"))
    shutil.rmtree(Path(steno.store_url) / "artifacts" / kind)
    double.forget()
    result = await run(tmp_path / "a.wav")
    assert double.ran == executed
    assert Path(result.files["json"]).is_file()


async def test_lost_audio_is_decoded_again(tmp_path: Path, double: ComputeDouble, steno: StenoSettings) -> None:
    await run(recording(tmp_path / "a.wav"))
    shutil.rmtree(Path(steno.store_url) / "artifacts" / "audio")
    double.forget()
    result = await run(tmp_path / "a.wav")
    assert states(result)["fetch"] == "computed"
    assert double.ran == []


async def test_a_damaged_record_is_computed_again(tmp_path: Path, double: ComputeDouble, steno: StenoSettings) -> None:
    first = await run(recording(tmp_path / "a.wav"))
    key = next(stage.key for stage in first.stages if stage.stage == "asr")
    get_store().write_record(key, b'{"metadata": tru')
    double.forget()
    await run(tmp_path / "a.wav")
    assert double.ran == ["asr"]


async def test_records_are_found_by_another_machine_on_the_same_store(
    tmp_path: Path, double: ComputeDouble, steno: StenoSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run(recording(tmp_path / "a.wav"))
    monkeypatch.setenv("STENO_STORE", steno.store_url)
    monkeypatch.setenv("STENO_HOME", str(tmp_path / "elsewhere"))
    get_settings.cache_clear()
    double.forget()
    await run(tmp_path / "a.wav")
    assert double.ran == []
