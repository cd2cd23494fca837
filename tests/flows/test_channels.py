"""Channels through a run: each goes through the stages as a recording of its own, and one transcript comes of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.progress import RunProgress
from flows.request import TranscribeRequest
from flows.result import TranscribeResult
from flows.transcribe import transcribe
from infra.compute import get_store
from infra.progress import StageEvent, listening
from infra.settings import get_settings
from stenoflow.errors import StenoError
from tests.media import wav
from tests.speech.test_apart import ONE, call
from tests.stage_double import ComputeDouble

pytestmark = [pytest.mark.usefixtures("prefect_server", "steno"), pytest.mark.slow]


async def run(source: Path, **options: Any) -> TranscribeResult:
    return await transcribe(TranscribeRequest(source=str(source), output_dir=str(source.parent / "out"), **options))


def transcript(result: TranscribeResult) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(result.files["json"]).read_text())
    return found


@pytest.fixture
def two(tmp_path: Path) -> Path:
    return wav(tmp_path / "call.wav", call())


async def test_each_channel_is_computed_as_the_recording_that_it_would_be(
    tmp_path: Path, two: Path, double: ComputeDouble
) -> None:
    result = await run(two)
    assert Counter(double.ran) == {"segment": 2, "asr": 2, "align": 2, "join": 1}
    assert [stage.stage for stage in result.stages if stage.state == "skipped"] == ["embed", "diarize"]
    assert "separately" in result.warnings[0]
    found = transcript(result)
    assert found["speakers"] == ["SPEAKER_00", "SPEAKER_01"]
    assert found["options"]["channels"] == "separate"
    double.forget()
    for number, channel in enumerate(call(), 1):
        await run(wav(tmp_path / f"{number}.wav", channel), diarize=False)
    assert double.ran == ["merge", "merge"]


async def test_one_channel_or_the_same_twice_is_what_it_is_with_channels_mixed(tmp_path: Path, double: ComputeDouble) -> None:
    for name, sound in (("mono", ONE), ("dual", [ONE, ONE])):
        source = wav(tmp_path / f"{name}.wav", np.asarray(sound))
        mixed = await run(source, channels="mix")
        before = (tmp_path / "out" / f"{name}.json").read_bytes()
        double.forget()
        auto = await run(source)
        assert double.ran == []
        assert auto.transcript == mixed.transcript
        assert (tmp_path / "out" / f"{name}.json").read_bytes() == before


async def test_channels_are_mixed_where_speakers_are_not_asked_for(two: Path, double: ComputeDouble) -> None:
    assert "channels" not in transcript(await run(two, diarize=False))["options"]
    assert "join" not in double.ran


async def test_a_recording_that_was_mixed_is_separated_when_that_is_asked_for(two: Path, double: ComputeDouble) -> None:
    mixed = await run(two, channels="mix")
    separate = await run(two, channels="separate")
    assert mixed.audio is not None and separate.audio is not None
    assert mixed.audio.sha256 == separate.audio.sha256
    double.forget()
    assert (await run(two, channels="mix")).transcript == mixed.transcript
    assert (await run(two)).transcript == separate.transcript
    assert double.ran == []


async def test_more_speakers_than_channels_are_told_apart_on_each(two: Path, double: ComputeDouble) -> None:
    await run(two, max_speakers=2)
    assert "cluster" not in double.ran
    await run(two, max_speakers=4)
    assert [job.params["max_speakers"] for job in double.jobs if job.stage == "cluster"] == [3, 3]


async def test_a_retry_computes_what_failed_on_one_channel_alone(two: Path, double: ComputeDouble) -> None:
    from stenoflow.errors import InvalidOption

    runs = 0

    async def fails_on_the_second() -> None:
        nonlocal runs
        runs += 1
        if runs == 2:
            raise InvalidOption("no")

    double.before["asr"] = fails_on_the_second
    with pytest.raises(StenoError):
        await run(two)
    double.forget()
    result = await run(two)
    assert Counter(double.ran) == {"asr": 1, "align": 1, "join": 1}
    assert {stage.stage: stage.state for stage in result.stages}["asr"] == "computed"


async def test_a_channel_that_was_removed_from_the_store_is_decoded_again(two: Path, double: ComputeDouble) -> None:
    result = await run(two)
    store = get_store(get_settings())
    assert result.audio is not None
    for channel in result.audio.meta["channels"]:
        store.delete(channel["path"])
    double.forget()
    again = await run(two)
    assert again.transcript == result.transcript
    assert double.ran == []


async def test_a_stage_ends_for_those_who_watch_when_it_has_on_every_channel(two: Path, double: ComputeDouble) -> None:
    events: list[StageEvent] = []
    with listening(events.append):
        await run(two)
    of_asr = [event for event in events if event.stage == "asr"]
    assert [event.state for event in of_asr].count("started") == 1
    assert [event.state for event in of_asr].count("completed") == 1
    assert of_asr[-1].state == "completed"
    fractions = [event.fraction for event in of_asr]
    assert fractions == sorted(fractions) and 0.25 in fractions
    shown = RunProgress(events[0].run)
    for event in events:
        shown(event)
    assert shown.now().percent == 99.9


# -- tracks of one session ------------------------------------------------------------------------------------------------


async def test_tracks_of_a_session_become_one_transcript_with_the_names_of_the_files(
    tmp_path: Path, double: ComputeDouble
) -> None:
    left, right = call()
    alice, bob = wav(tmp_path / "alice.wav", left), wav(tmp_path / "bob.wav", right[: len(right) // 2])
    result = await run(alice, together=(str(bob),))
    assert Counter(double.ran) == {"segment": 2, "asr": 2, "align": 2, "join": 1}
    assert Path(result.files["json"]).name == "alice+bob.json"
    found = transcript(result)
    assert found["speaker_names"] == {"SPEAKER_00": "alice", "SPEAKER_01": "bob"}
    assert found["duration"] == len(left) / 16000
    assert [stage.stage for stage in result.stages].count("fetch") == 1
    double.forget()
    again = await run(alice, together=(str(bob),))
    assert double.ran == []
    assert again.transcript == result.transcript
    assert {stage.state for stage in again.stages if stage.stage not in ("export", "embed", "diarize")} == {"cached"}


async def test_a_track_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StenoError, match="bob"):
        await run(wav(tmp_path / "alice.wav", ONE), together=(str(tmp_path / "bob.wav"),))


async def test_tracks_of_the_same_name_are_numbered(tmp_path: Path, double: ComputeDouble) -> None:
    (tmp_path / "b").mkdir()
    result = await run(wav(tmp_path / "track.wav", call()[0]), together=(str(wav(tmp_path / "b" / "track.wav", call()[1])),))
    assert list(transcript(result)["speaker_names"].values()) == ["track (1)", "track (2)"]
