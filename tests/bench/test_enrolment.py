"""The table of who is named counts each speaker once, and strangers apart."""

from __future__ import annotations

import math

from bench.enrolment import Counts, Found, counted, equal_error, voice


def at(degrees: float) -> tuple[float, float]:
    return math.cos(math.radians(degrees)), math.sin(math.radians(degrees))


def test_a_name_is_right_wrong_or_not_given_and_a_stranger_has_none() -> None:
    voices = [voice("ann", at(0)), voice("bob", at(60)), voice("cy", at(120))]
    found = [Found("talk", "S0", "ann", at(5)), Found("talk", "S1", "bob", at(115)), Found("other", "S0", "cy", at(180))]
    assert counted(found, voices, math.cos(math.radians(20))) == Counts(
        right=1, wrong=1, unnamed=1, strangers_named=1, strangers=3
    )


def test_the_equal_error_is_where_misses_and_false_accepts_meet() -> None:
    assert equal_error([0.9, 0.8, 0.7], [0.3, 0.2, 0.1]) == (0.0, 0.7)
    rate, edge = equal_error([0.9, 0.8, 0.4, 0.7], [0.3, 0.5, 0.1, 0.2])
    assert (rate, edge) == (0.25, 0.5)
