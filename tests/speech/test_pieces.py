"""Pieces are one voice each, and tell people apart whom the segmentation takes for one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from speech.diarize import diarize
from speech.diarize.clustering import OF_PIECES, agglomerate, cluster
from speech.diarize.networks import WINDOW
from speech.diarize.pieces import LONGEST, NO_PIECES, SpeechPieces, cut, nearest_chunks
from speech.diarize.segmentation import STEP, Segmentation
from speech.schema import SAMPLE_RATE, ClusterParams

FRAMES, RATE = 500, 50


def heard(speakers: NDArray[np.bool_]) -> Segmentation:
    """The segmentation whose chunks all hear `speakers`, (frames, 3) of the recording."""
    step = STEP * RATE // SAMPLE_RATE
    chunks = (len(speakers) - FRAMES) // step + 1
    activity = np.stack([speakers[chunk * step : chunk * step + FRAMES] for chunk in range(chunks)])
    samples = ((chunks - 1) * STEP) + WINDOW
    return Segmentation(activity, np.ones(len(speakers), dtype=np.float32), 1 / RATE, 0.0, samples)


def talk(*stretches: tuple[float, tuple[int, ...]]) -> NDArray[np.bool_]:
    parts = []
    for seconds, who in stretches:
        part = np.zeros((round(seconds * RATE), 3), dtype=np.bool_)
        part[:, list(who)] = True
        parts.append(part)
    return np.concatenate(parts)


def test_a_piece_ends_at_pauses_and_changes_and_has_no_overlap() -> None:
    said = talk((1.0, ()), (1.5, (0,)), (0.5, ()), (1.2, (0,)), (1.4, (1,)), (0.6, (0, 1)), (1.8, (0,)), (7.0, ()))
    expected = [(1.0, 2.5), (3.0, 4.2), (4.2, 5.6), (6.2, 8.0)]
    assert cut(heard(said)) == pytest.approx(np.array(expected), abs=0.05)


def test_long_speech_is_cut_into_equal_pieces_each_within_its_chunk() -> None:
    segmentation = heard(talk((1.0, ()), (18.9, (0,)), (0.1, ())))
    spans = cut(segmentation)
    assert np.diff(spans, axis=1).max() <= LONGEST and len(spans) == 10
    starts = nearest_chunks(segmentation, spans) * STEP / SAMPLE_RATE
    assert (starts <= spans[:, 0]).all() and (spans[:, 1] <= starts + WINDOW / SAMPLE_RATE).all()


def test_silence_has_no_pieces() -> None:
    assert cut(heard(talk((20.0, ())))).shape == (0, 2)


def test_two_people_whom_every_chunk_takes_for_one_are_two() -> None:
    said = talk(*[(2.0, (0,)), (0.5, ())] * 16)
    segmentation = heard(said)
    spans = cut(segmentation)
    voices = np.eye(2, 16, dtype=np.float32)
    whose = np.arange(len(spans)) // 2 % 2
    # Chunks hear both, so that their embeddings lie between the two.
    vectors = np.full((len(segmentation.activity), 3, 16), np.nan, dtype=np.float32)
    vectors[:, 0] = voices.sum(axis=0)
    params = ClusterParams()
    assert len(diarize(segmentation, vectors, params, None, NO_PIECES).speakers) == 1
    found = diarize(segmentation, vectors, params, None, SpeechPieces(spans, voices[whose]))
    assert [turn.speaker for turn in found.turns] == [f"SPEAKER_{who:02d}" for who in whose]
    assert (
        len(diarize(segmentation, vectors, ClusterParams(num_speakers=1), None, SpeechPieces(spans, voices[whose])).speakers)
        == 1
    )


def test_a_piece_between_two_voices_leaves_the_chunks_label() -> None:
    segmentation = heard(talk((1.0, ()), (9.0, (0,)), (1.0, ()), (9.0, (0,))))
    spans = cut(segmentation)
    vectors = np.eye(2, 16, dtype=np.float32)[(spans[:, 0] > 10).astype(int)]
    vectors[2] = vectors[[0, -1]].sum(axis=0)
    own = np.full((len(segmentation.activity), 3, 16), np.nan, dtype=np.float32)
    own[:, 0] = np.eye(2, 16)[0]
    votes = cluster(segmentation.activity, own, ClusterParams(), None, SpeechPieces(spans, vectors)).votes
    assert votes is not None and votes.weights[2] == 0 and (np.delete(votes.weights, 2) > 0).all()


def scattered(sizes: list[int], apart: float, scatter: float, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors about centres that are so far apart, each off its centre by `scatter`."""
    generator = np.random.default_rng(seed)
    centres = np.zeros((len(sizes), 192))
    centres[:, 0], centres[np.arange(len(sizes)), 1 + np.arange(len(sizes))] = 1.0, apart / np.sqrt(2)
    rows = [centre + scatter * generator.normal(size=(n, 192)) / np.sqrt(192) for n, centre in zip(sizes, centres, strict=True)]
    vectors = np.concatenate(rows)
    units: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return units


def test_one_odd_piece_is_nobody() -> None:
    assert agglomerate(scattered([11, 1], 1.4, 0.6), ClusterParams(), OF_PIECES).max() == 0


def test_one_voice_in_two_moods_is_one_and_two_voices_are_two() -> None:
    """Both are two clusters to the linkage; the scatter of few pieces makes the moods' means look farther apart than they are."""
    moods, voices = scattered([20, 3], 0.45, 0.75), scattered([20, 20], 1.2, 0.75)
    cut_only = OF_PIECES._replace(threshold=0.85, same_voice=0.0)
    joined = cut_only._replace(same_voice=OF_PIECES.same_voice)
    assert agglomerate(moods, ClusterParams(), cut_only).max() > 0
    assert agglomerate(moods, ClusterParams(), joined).max() == 0
    assert agglomerate(moods, ClusterParams(num_speakers=2), joined).max() == 1
    assert agglomerate(voices, ClusterParams(), joined).max() == 1
