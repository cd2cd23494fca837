"""Word times from cross-attention, made good by voice activity."""

from __future__ import annotations

import itertools
import random

from speech.align.attention import MIN_WORD, OFFSETS, attention_words, in_order
from speech.schema import AsrSegment, AsrWord, Region
from stenoflow.types import Word


def chunk(words: list[tuple[str, float, float]], voice: list[tuple[float, float]]) -> AsrSegment:
    return AsrSegment(
        start=voice[0][0] - 0.2,
        end=voice[-1][1] + 0.2,
        text=" ".join(word for word, _, _ in words),
        words=tuple(AsrWord(word=word, start=start, end=end, score=0.9) for word, start, end in words),
        regions=tuple(Region(start=start, end=end) for start, end in voice),
        avg_logprob=-0.1,
        no_speech_prob=0.0,
    )


def spans(words: list[Word]) -> list[tuple[str, float, float]]:
    return [(word.word, round(word.start, 3), round(word.end, 3)) for word in words]


def word(start: float, end: float, text: str = "word") -> Word:
    return Word(word=text, start=start, end=end, score=0.5, timing="attention", speaker_source=None)


def test_word_after_a_pause_begins_where_the_voice_does() -> None:
    segment = chunk([("one", 0.9, 1.5), ("two", 2.75, 3.5)], [(1.0, 1.5), (3.0, 3.6)])
    assert spans(attention_words(segment, "unmeasured")) == [("one", 1.0, 1.5), ("two", 3.0, 3.5)]


def test_word_is_not_stretched_over_a_pause() -> None:
    segment = chunk([("one", 1.0, 1.4), ("two", 1.4, 3.0), ("three", 3.0, 3.5)], [(1.0, 1.9), (3.0, 3.6)])
    assert spans(attention_words(segment, "unmeasured"))[1] == ("two", 1.4, 1.9)


def test_voice_that_a_stretched_word_took_is_given_back_to_the_next() -> None:
    # Heard in a telephone call: the first "Hello." lasted over the second one, which was left with 80 ms.
    segment = chunk([("Hello.", 6.43, 8.25), ("Hello.", 8.25, 8.33)], [(6.69, 7.25), (7.5, 8.4)])
    assert spans(attention_words(segment, "unmeasured")) == [("Hello.", 6.69, 7.25), ("Hello.", 7.5, 8.33)]


def test_gap_of_a_plosive_is_no_pause() -> None:
    segment = chunk([("atta", 1.0, 1.3), ("boy", 1.3, 1.8)], [(1.0, 1.4), (1.48, 1.8)])
    assert spans(attention_words(segment, "unmeasured")) == [("atta", 1.0, 1.3), ("boy", 1.3, 1.8)]


def test_measured_models_are_shifted_by_their_offset() -> None:
    segment = chunk([("one", 1.0, 1.5), ("two", 1.5, 2.0), ("three", 2.0, 2.4)], [(1.0, 3.0)])
    assert round(attention_words(segment, "base")[1].start, 3) == round(1.5 - OFFSETS["base"], 3)
    assert round(attention_words(segment, "tiny.en")[1].start, 3) == round(1.5 - OFFSETS["tiny.en"], 3)


def test_words_outside_all_voice_keep_their_times() -> None:
    segment = chunk([("ghost", 5.0, 5.4)], [(1.0, 1.5)])
    assert spans(attention_words(segment, "unmeasured")) == [("ghost", 5.0, 5.4)]


def test_words_that_start_together_share_their_span_and_say_so() -> None:
    placed = in_order([word(1.0, 1.0, "a"), word(1.0, 1.6, "bcd"), word(2.0, 2.5, "e")], 0.0, 9.0)
    assert spans(placed) == [("a", 1.0, 1.15), ("bcd", 1.15, 1.6), ("e", 2.0, 2.5)]
    assert [item.timing for item in placed] == ["interpolated", "interpolated", "attention"]


def test_words_already_in_order_keep_their_times() -> None:
    chance = random.Random(3)
    for count in (1, 2, 7, 40):
        starts = itertools.accumulate(chance.uniform(0.3, 0.9) for _ in range(count))
        words = [word(round(start, 3), round(start + chance.uniform(MIN_WORD, 0.28), 3)) for start in starts]
        assert in_order(words, 0.0, 99.0) == words


def test_the_last_word_ends_at_the_ceiling_and_a_word_before_another_where_that_begins() -> None:
    placed = in_order([word(1.0, 9.0, "a"), word(2.0, 9.0, "b")], 0.0, 3.0)
    assert spans(placed) == [("a", 1.0, 2.0), ("b", 2.0, 3.0)]
    assert spans(in_order([word(1.0, 2.0, "a"), word(2.995, 3.5, "b")], 0.0, 3.0))[-1] == (
        "b",
        2.995,
        round(2.995 + MIN_WORD, 3),
    )


def test_order_holds_for_any_times() -> None:
    chance = random.Random(7)
    for _ in range(500):
        words = [word(start := chance.uniform(0, 30), start + chance.uniform(-1, 2)) for _ in range(chance.randint(0, 40))]
        floor = chance.uniform(0, 5)
        placed = in_order(words, floor, 30.0)
        assert len(placed) == len(words)
        assert all(item.start >= floor - 0.001 for item in placed)
        assert all(item.end - item.start >= MIN_WORD - 0.002 for item in placed)
        assert all(a.end <= b.start + 0.001 for a, b in itertools.pairwise(placed))


def test_a_number_said_with_pauses_lasts_from_its_first_part_to_its_last() -> None:
    said = [("is", 3.9, 4.2), ("555-0123-4444.", 4.2, 8.5), ("The", 8.5, 8.9)]
    voice = [(3.3, 5.3), (5.55, 6.85), (7.15, 8.3), (8.75, 13.0)]
    assert spans(attention_words(chunk(said, voice), "unmeasured"))[1:] == [("555-0123-4444.", 4.2, 8.3), ("The", 8.75, 8.9)]
    short = [("10:30", 1.0, 3.2), ("today", 3.2, 3.6)]
    assert spans(attention_words(chunk(short, [(1.0, 1.9), (3.0, 3.6)]), "unmeasured"))[0] == ("10:30", 1.0, 1.9)


def test_a_sound_long_before_a_chunks_first_word_is_not_that_word() -> None:
    said = [("The", 9.0, 12.8), ("number", 12.8, 13.1), ("you", 13.1, 13.3)]
    music = [(10.65, 11.1), (12.5, 17.2)]
    assert spans(attention_words(chunk(said, music), "unmeasured")) == [
        ("The", 12.5, 12.8),
        ("number", 12.8, 13.1),
        ("you", 13.1, 13.3),
    ]
    answer = [("Yes.", 9.0, 12.8), ("It", 12.8, 13.1)]
    assert spans(attention_words(chunk(answer, music), "unmeasured"))[0] == ("Yes.", 10.65, 11.1)
