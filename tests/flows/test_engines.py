"""The seams, end to end: a second ASR engine and a diarizer that takes the audio alone, through the flow, its cache and its files."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.request import TranscribeRequest
from flows.transcribe import transcribe
from infra.settings import StenoSettings
from speech.audio import Recording
from speech.registry import ENGINES, MODELS, Engine, Model
from speech.schema import SAMPLE_RATE, ClusterParams
from speech.stages import Progress
from tests import media, nemo

pytestmark = pytest.mark.usefixtures("prefect_server", "models_dir", "steno")


def request(source: Path, **options: Any) -> TranscribeRequest:
    return TranscribeRequest(source=str(source), output_dir=str(source.parent / "out"), **options)


def written(source: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((source.parent / "out" / f"{source.stem}.json").read_text())
    return document


async def test_parakeet_from_sound_to_speakers_and_from_the_cache(tmp_path: Path, steno: StenoSettings) -> None:
    """On weights of the true layout that take the voice's pitches for pieces of words: its text means nothing, all else is real."""
    source, weights = media.wav(tmp_path / "call.wav", media.speech()), nemo.transducer(tmp_path / "stand-in")
    first = await transcribe(request(source, model=str(weights), language="en", formats=("json", "srt", "rttm")))
    document = written(source)
    words = document["word_segments"]
    assert len(words) > 10
    assert {word["timing"] for word in words} <= {"tokens", "interpolated"}
    assert {word["speaker"] for word in words} == {"SPEAKER_00", "SPEAKER_01"}
    starts = [word["start"] for word in words]
    assert starts == sorted(starts)
    assert all(word["start"] < word["end"] <= document["duration"] for word in words)
    assert "".join("".join(word["word"] for word in words).split()) == "".join(
        "".join(segment["text"].split()) for segment in document["segments"]
    )
    assert document["models"]["asr"]["name"] == "stand-in"
    assert document["options"]["align_model"] == "tokens:stand-in"
    assert document["versions"]["onnx-asr"]
    assert (first.language, first.words) == ("en", len(words))
    again = await transcribe(request(source, model=str(weights), language="en", formats=("json",)))
    assert {stage.stage for stage in again.stages if stage.state == "cached"} >= {
        "segment",
        "asr",
        "align",
        "embed",
        "diarize",
        "merge",
    }
    assert again.transcript == first.transcript
    other = await transcribe(request(source, model="tiny.en", language="en", diarize=False))
    assert {stage.stage for stage in other.stages if stage.state == "cached"} == {"fetch", "segment"}, (
        "another engine is another key"
    )


class Pitches:
    """A diarizer of two voices, by whether most of the energy lies below 500 Hz: a second at a time, from the audio alone."""

    device = "cpu"

    def turns(self, recording: Recording, params: ClusterParams, progress: Progress) -> list[tuple[float, float, int]]:
        turns: list[tuple[float, float, int]] = []
        for first in range(0, recording.samples, SAMPLE_RATE):
            sound = recording.read(first, min(first + SAMPLE_RATE, recording.samples))
            progress((first + len(sound)) / recording.samples)
            if np.abs(sound).max() < 0.05:
                continue
            power = np.abs(np.fft.rfft(sound)) ** 2
            low = power[: 500 * len(sound) // SAMPLE_RATE].sum() > power.sum() / 2
            start, end, voice = first / SAMPLE_RATE, (first + len(sound)) / SAMPLE_RATE, int(low)
            if turns and turns[-1][1:] == (start, voice):
                turns[-1] = (turns[-1][0], end, voice)
            else:
                turns.append((start, end, voice))
        return turns


@pytest.fixture
def pitches(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """One module and one entry: all that another diarizer is. How often it was loaded."""
    module, loads = types.ModuleType("speech.diarize.pitches"), []

    def load(model: Any, runtime: Any) -> Pitches:
        loads.append(model.name)
        return Pitches()

    module.load = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(ENGINES, "pitches", Engine(seam="diarize", module=module.__name__, end_to_end=True, runs_on=("numpy",)))
    monkeypatch.setitem(MODELS, "pitches", Model("pitches", "MIT", 0, packages=("numpy",)))
    yield loads


async def test_a_diarizer_that_takes_the_audio_alone(tmp_path: Path, pitches: list[str]) -> None:
    source = media.wav(tmp_path / "call.wav", media.speech()[: 12 * SAMPLE_RATE])
    first = await transcribe(request(source, model="tiny.en", diarization_model="pitches"))
    document = written(source)
    assert document["models"]["diarization"]["name"] == document["options"]["diarization_model"] == "pitches"
    assert document["turns"] and set(document["speakers"]) <= {"SPEAKER_00", "SPEAKER_01"}
    assert all(word["speaker"] for word in document["word_segments"])
    stages = {stage.stage: stage for stage in first.stages}
    assert stages["embed"].state == "skipped"
    assert stages["diarize"].state == "computed"
    again = await transcribe(request(source, model="tiny.en", diarization_model="pitches"))
    assert again.transcript == first.transcript
    assert pitches == ["pitches"], "the second run computed nothing"
    await transcribe(request(source, model="tiny.en", diarization_model="pitches", num_speakers=2))
    assert pitches == ["pitches"] * 2
    await transcribe(request(source, model="tiny.en", language="en"))
    assert written(source)["models"]["diarization"]["name"] == "segmentation-3.0+campplus"
