"""The table of who speaks counts true words by true times."""

from __future__ import annotations

import pytest

from bench.recordings import Truth, Turn
from bench.speakers import words_of, wrong_words
from speech.schema import Diarization
from stenoflow.types import Turn as Spoken

ANN = Turn("ann", 1.0, 4.0, "one two three four", ((1.0, 2.0), (3.0, 4.0)))
BOB = Turn("bob", 5.0, 6.0, "five", ((5.0, 6.0),))
TRUTH = Truth("talk", "en", 7.0, (ANN, BOB), (("ann", 1.0, 2.0), ("ann", 3.0, 4.0), ("bob", 5.0, 6.0)))


def test_words_lie_where_their_turn_has_sound() -> None:
    times = [time for word in words_of(ANN).words for time in (word.start, word.end)]
    assert times == pytest.approx([1.0, 1.5, 1.5, 2.0, 3.0, 3.5, 3.5, 4.0])


@pytest.mark.parametrize(("second", "third", "wrong"), [("X", "Y", 0), ("X", "X", 1), ("Y", "X", 2)])
def test_words_of_another_speaker_are_wrong_whatever_the_names(second: str, third: str, wrong: int) -> None:
    turns = (
        Spoken(start=1.0, end=2.0, speaker="X"),
        Spoken(start=3.0, end=4.0, speaker=second),
        Spoken(start=5.0, end=6.0, speaker=third),
    )
    names = tuple(dict.fromkeys(turn.speaker for turn in turns))
    found = Diarization(turns=turns, exclusive_turns=turns, speakers=names)
    assert wrong_words(TRUTH, found) == (wrong, 5)
