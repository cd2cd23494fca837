"""What ASR decodes at once: every bit of speech, once, in pieces that fit Whisper's window."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from speech.chunks import plan
from speech.diarize.segmentation import Segmentation
from speech.schema import Chunk

STEP, DURATION = 0.016875, 0.0619375
RATE = 16_000


def heard(speech: np.ndarray, samples: int | None = None) -> Segmentation:
    """A segmentation with these probabilities of speech, a frame each."""
    seconds = (len(speech) - 1) * STEP + DURATION
    return Segmentation(
        np.zeros((1, 1, 3), dtype=bool), speech.astype(np.float32), STEP, DURATION, samples or int(seconds * RATE)
    )


def conversation(seed: int, seconds: float, talkative: float) -> Segmentation:
    """Stretches of speech and silence of all lengths, with doubtful frames within both."""
    generator = np.random.default_rng(seed)
    frames = int(seconds / STEP)
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < frames:
        speech = generator.random() < talkative
        length = int(generator.exponential(6.0 if speech else 2.0) / STEP) + 1
        base = generator.uniform(0.4, 0.99) if speech else generator.uniform(0.0, 0.35)
        parts.append(np.clip(base + generator.normal(0, 0.1, length), 0, 1))
    return heard(np.concatenate(parts)[:frames])


def inside(chunks: list[Chunk], time: float) -> bool:
    return any(chunk.start <= time <= chunk.end for chunk in chunks)


@pytest.mark.parametrize("talkative", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("seed", range(10))
def test_plans_hold_their_promises(seed: int, talkative: float) -> None:
    segmentation = conversation(seed, seconds=200.0, talkative=talkative)
    chunks = plan(segmentation)
    for chunk in chunks:
        assert 0 <= chunk.start < chunk.end
        assert round(chunk.end * RATE) <= segmentation.samples
        assert chunk.end - chunk.start <= 28.0 + 1e-6
        assert chunk.regions
        assert chunk.start <= chunk.regions[0].start
        assert chunk.regions[-1].end <= chunk.end
        for earlier, later in itertools.pairwise(chunk.regions):
            assert earlier.start < earlier.end <= later.start < later.end
    for before, after in itertools.pairwise(chunks):
        assert before.end <= after.start
    loud = segmentation.speech > 0.5
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loud.astype(np.int8), [0]])))
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        if (last - first) * STEP > 0.2:
            for frame in range(first, last):
                assert inside(chunks, segmentation.frame_time(frame)) or segmentation.frame_time(frame) > segmentation.duration


@pytest.mark.parametrize("seconds", [28.3, 40.0, 95.0])
def test_speech_without_a_pause_is_cut_where_it_is_least_likely(seconds: float) -> None:
    frames = int(seconds / STEP)
    speech = np.full(frames, 0.95)
    dip = int(20.0 / STEP)
    speech[dip] = 0.6
    chunks = plan(heard(speech))
    assert chunks[0].end == pytest.approx(20.0, abs=0.1)
    assert chunks[1].start == chunks[0].end
    assert chunks[-1].end == pytest.approx(seconds, abs=0.1)
    assert min(chunk.end - chunk.start for chunk in chunks) > 0.5


@pytest.mark.parametrize("seconds", [27.7, 28.05, 28.2, 55.3, 56.1])
def test_no_cut_leaves_a_crumb(seconds: float) -> None:
    """A last piece of a few hundredths is nothing that Whisper could read, only something it could invent."""
    speech = np.linspace(0.99, 0.9, int(seconds / STEP))
    assert min(chunk.end - chunk.start for chunk in plan(heard(speech))) > 0.5


def test_long_silences_end_a_chunk_and_short_ones_do_not() -> None:
    def talk(pause: float) -> np.ndarray:
        return np.concatenate([np.full(int(s / STEP), p) for s, p in ((3.0, 0.9), (pause, 0.05), (3.0, 0.9))])

    assert len(plan(heard(talk(1.5)))) == 1
    assert len(plan(heard(talk(1.5)))[0].regions) == 2
    assert len(plan(heard(talk(8.0)))) == 2


def test_silence_and_clicks_are_nothing_to_decode() -> None:
    quiet = np.full(2000, 0.02)
    assert plan(heard(quiet)) == []
    quiet[500:503] = 0.99
    assert plan(heard(quiet)) == []
    quiet[700:900] = 0.45
    assert plan(heard(quiet)) == [], "never above the threshold at which speech begins"


def test_padding_is_not_shared_between_neighbours() -> None:
    speech = np.full(int(60 / STEP), 0.02)
    for start in range(0, 56, 7):
        speech[int(start / STEP) : int((start + 6.8) / STEP)] = 0.95
    chunks = plan(heard(speech))
    assert len(chunks) > 1
    assert all(before.end <= after.start for before, after in itertools.pairwise(chunks))


def test_speech_that_is_never_likely_again_still_has_its_place() -> None:
    """A moment of certain speech, then a minute of doubt: every chunk says where its speech may be."""
    speech = np.full(int(60 / STEP), 0.45)
    speech[0] = 0.9
    chunks = plan(heard(speech))
    assert len(chunks) > 1
    assert all(chunk.regions for chunk in chunks)
