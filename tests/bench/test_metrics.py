"""What only the benchmark counts."""

from __future__ import annotations

from bench.metrics import backwards, without_speaker, without_time
from speech.scoring import Spoken


def test_words_that_run_backwards_are_counted() -> None:
    words = [Spoken("a", 1, 2), Spoken("b"), Spoken("c", 0.5, 0.7), Spoken("d", 0.5, 0.6), Spoken("e", 3, 2.5)]
    assert backwards(words) == 2
    assert backwards(words[:2]) == 0


def test_words_without_time_or_speaker_are_counted() -> None:
    words = [Spoken("a", 1, 2, "ann"), Spoken("b", 1, None, "ann"), Spoken("c")]
    assert (without_time(words), without_speaker(words)) == (2, 1)
