"""Speech without words: where it is, how it is cut out, and how loud it is decoded."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from speech.asr import Transcribed, assembled
from speech.asr.cuts import cut_around
from speech.asr.levels import TARGET, levelled
from speech.asr.unworded import mostly_in, unworded
from speech.merge import merge
from speech.schema import SAMPLE_RATE, AsrParams, AsrSegment, AsrWord, Chunk, Region
from stenoflow.types import ModelInfo, Stretch

MODEL = ModelInfo(name="base", revision="1", origin="package")


def chunk(*regions: tuple[float, float], end: float = 20.0) -> Chunk:
    return Chunk(start=0.0, end=end, regions=tuple(Region(start=begin, end=finish) for begin, finish in regions))


def words(*times: tuple[float, float]) -> list[AsrWord]:
    return [AsrWord(word="word", start=start, end=end, score=0.9) for start, end in times]


def spans(found: list[Region]) -> list[tuple[float, float]]:
    return [(region.start, region.end) for region in found]


EVERY_HALF_SECOND = [(second / 2, second / 2 + 0.4) for second in range(1, 20)]


@pytest.mark.parametrize(
    ("regions", "times", "found"),
    [
        ([(0.3, 10.0)], EVERY_HALF_SECOND, []),
        ([(0.3, 10.0), (11.0, 19.0)], EVERY_HALF_SECOND, [(11.0, 19.0)]),
        ([(0.3, 19.0)], EVERY_HALF_SECOND, [(9.9, 19.0)]),
        ([(0.3, 10.0), (17.0, 18.9)], EVERY_HALF_SECOND, []),
        ([(0.3, 6.0)], [(0.3, 0.6), (0.6, 6.0)], [(1.6, 6.0)]),
        ([(0.3, 1.0), (5.0, 6.0), (9.0, 10.5)], [(0.3, 0.8)], [(5.0, 10.5)]),
        ([(0.3, 19.0)], [], [(0.3, 19.0)]),
        ([(0.3, 1.9)], [], []),
    ],
    ids=[
        "words all along",
        "none after a pause",
        "none after a word",
        "too short to matter",
        "a word stretched over speech",
        "several pieces of voice",
        "no word at all",
        "a cough",
    ],
)
def test_speech_without_words_is_found(
    regions: list[tuple[float, float]], times: list[tuple[float, float]], found: list[tuple[float, float]]
) -> None:
    assert spans(unworded(chunk(*regions), words(*times))) == found


@pytest.mark.parametrize("word", ["www.asterisk.org", "555-0123"])
def test_what_takes_long_to_say_is_no_hole(word: str) -> None:
    said = [AsrWord(word=word, start=0.3, end=3.2, score=0.9)]
    assert unworded(chunk((0.3, 3.4), end=4.0), said) == []


def test_a_chunk_is_cut_at_the_pauses_around_speech_without_words() -> None:
    whole = chunk((0.3, 5.0), (5.6, 6.0), (6.1, 12.0), (12.8, 19.7))
    lost = [Region(start=6.2, end=11.7)]
    pieces = cut_around(whole, lost)
    assert [mostly_in(piece, lost) for piece in pieces] == [False, True, False]
    assert [spans(list(piece.regions)) for piece in pieces] == [[(0.3, 5.0)], [(5.6, 6.0), (6.1, 12.0)], [(12.8, 19.7)]]
    assert all(before.end <= after.start for before, after in itertools.pairwise(pieces))


def test_a_chunk_without_any_words_is_not_cut() -> None:
    whole = chunk((0.3, 9.0), (9.5, 19.7))
    assert cut_around(whole, [Region(start=0.3, end=19.7)]) == [whole]


def test_a_quiet_voice_becomes_as_loud_as_a_near_one_and_a_loud_one_stays() -> None:
    voice = np.random.default_rng(0).normal(0.0, 0.1, 10 * SAMPLE_RATE).astype(np.float32)
    voice[5 * SAMPLE_RATE :] *= 10 ** (-32 / 20)
    out = levelled(voice)
    assert np.array_equal(out[: 3 * SAMPLE_RATE], voice[: 3 * SAMPLE_RATE])
    assert np.sqrt(np.mean(out[7 * SAMPLE_RATE :] ** 2)) == pytest.approx(TARGET, rel=0.1)
    assert out.shape == voice.shape


def test_nothing_is_made_of_silence() -> None:
    assert not levelled(np.zeros(SAMPLE_RATE, dtype=np.float32)).any()
    assert levelled(np.zeros(10, dtype=np.float32)).shape == (10,)


def test_what_stays_without_words_is_named_with_its_times() -> None:
    said = AsrSegment(start=0.0, end=3.0, text="word", words=tuple(words((0.5, 1.0))), regions=(), avg_logprob=-0.2)
    parts = [
        Transcribed(segments=(said,), language="en", multilingual=True, model=MODEL),
        Transcribed(
            segments=(), language="en", multilingual=True, model=MODEL, untranscribed=(Stretch(start=12.34, end=20.0),)
        ),
    ]
    asr = assembled(parts, AsrParams())
    transcript = merge(30.0, asr, None, None, {})
    (warning,) = transcript.warnings
    assert "12.3–20.0 s" in warning
    assert transcript.untranscribed == (Stretch(start=12.34, end=20.0),)
    assert "untranscribed" in transcript.model_dump()
    assert "untranscribed" not in transcript.model_copy(update={"untranscribed": ()}).model_dump(), "earlier versions read it"
