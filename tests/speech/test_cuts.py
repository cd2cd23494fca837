"""Where a chunk with too much text is cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from speech.asr.cuts import halved
from speech.audio import Recording
from speech.schema import SAMPLE_RATE, Chunk, Region


def chunk(*regions: tuple[float, float]) -> Chunk:
    return Chunk(start=0.0, end=20.0, regions=tuple(Region(start=start, end=end) for start, end in regions))


@pytest.fixture
def hum(recorded: Callable[..., Path]) -> Recording:
    """20 s that are quieter for a moment at 11.5 s."""
    sound = 0.1 * np.sin(np.arange(20 * SAMPLE_RATE) * 0.1)
    sound[int(11.4 * SAMPLE_RATE) : int(11.6 * SAMPLE_RATE)] *= 0.1
    return Recording(recorded(sound.astype(np.float32)))


@pytest.mark.parametrize(
    ("regions", "cut"),
    [
        ([(0.3, 9.0), (10.0, 19.7)], 9.5),
        ([(0.3, 6.0), (6.1, 9.0), (10.0, 19.7)], 9.5),
        ([(0.3, 2.0), (3.2, 9.0), (9.5, 19.7)], 9.25),
        ([(0.3, 0.6), (1.1, 9.9), (10.0, 19.7)], 9.95),
    ],
    ids=["its only pause", "its longest pause", "a pause near its middle", "never into a crumb"],
)
def test_a_chunk_is_cut_at_a_pause(regions: list[tuple[float, float]], cut: float, hum: Recording) -> None:
    halves = halved(chunk(*regions), hum)
    assert halves is not None
    before, after = halves
    assert before.end <= cut <= after.start
    assert (before.start, after.end) == (0.0, 20.0)
    assert [(region.start, region.end) for part in halves for region in part.regions] == regions


def test_speech_without_a_pause_is_cut_where_it_is_quietest(hum: Recording) -> None:
    halves = halved(chunk((0.3, 19.7)), hum)
    assert halves is not None
    before, after = halves
    assert before.end == after.start == pytest.approx(11.5, abs=0.1)
    assert before.regions[-1].end == after.regions[0].start == before.end


def test_what_is_too_short_is_not_cut(hum: Recording) -> None:
    assert halved(chunk((10.0, 10.9), (11.0, 11.9)), hum) is None
