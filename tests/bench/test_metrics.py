"""The metrics against values worked out by hand, and against independent implementations."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest

from bench.metrics import (
    Activity,
    Spoken,
    backwards,
    diarization_errors,
    normalise,
    speaker_attributed_errors,
    texts_by_speaker,
    time_errors,
    without_speaker,
    without_time,
    word_errors,
)


def edit_distance(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Levenshtein's, row by row."""
    row = list(range(len(hypothesis) + 1))
    for i, one in enumerate(reference, start=1):
        before, row[0] = row[0], i
        for j, other in enumerate(hypothesis, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (one != other))
    return row[-1]


def frame_der(reference: Sequence[Activity], hypothesis: Sequence[Activity], duration: float) -> float:
    """DER counted in frames of 10 ms, under the best of all one-to-one mappings of speakers."""
    names = sorted({speaker for speaker, _, _ in reference})
    others = sorted({speaker for speaker, _, _ in hypothesis})
    others += [f"nobody {i}" for i in range(len(names))]
    frames = [(i + 0.5) / 100 for i in range(round(duration * 100))]
    spoken = [{speaker for speaker, start, end in reference if start <= at < end} for at in frames]
    heard = [{speaker for speaker, start, end in hypothesis if start <= at < end} for at in frames]
    best = float("inf")
    for chosen in itertools.permutations(others, len(names)):
        mapping = dict(zip(chosen, names, strict=True))
        errors = 0
        for true, found in zip(spoken, heard, strict=True):
            right = len(true & {mapping[name] for name in found if name in mapping})
            errors += max(len(true), len(found)) - right
        best = min(best, errors)
    return best / sum(map(len, spoken))


def scene(chance: random.Random, names: str) -> list[Activity]:
    """Eight turns at random; those of one speaker are joined where they overlap."""
    taken: set[tuple[str, int]] = set()
    for _ in range(8):
        speaker, start = chance.choice(names), chance.randint(0, 250)
        taken |= {(speaker, tenth) for tenth in range(start, start + chance.randint(1, 40))}
    return [(speaker, tenth / 10, (tenth + 1) / 10) for speaker, tenth in sorted(taken)]


def test_normaliser_folds_what_is_not_said_differently() -> None:
    assert normalise("Oh, I DIDN'T know—you're one of 3!") == ["oh", "i", "did", "not", "know", "you", "are", "1", "of", "3"]
    assert normalise("That’s Mr. O'Neil, OK?") == ["that", "is", "mister", "oneil", "okay"]
    assert normalise("Numéro d’agent : deux", "fr") == ["numero", "d", "agent", "2"]
    assert normalise("¡Contraseña número ocho!", "es") == ["contrasena", "numero", "8"]
    assert normalise("Ещё три", "ru") == ["еще", "3"]
    assert normalise("… — !") == []


def test_word_errors_are_counted_by_kind() -> None:
    found = word_errors("the cat sat on the mat", "oh the cat sit on mat")
    assert (found.substitutions, found.deletions, found.insertions) == (1, 1, 1)
    assert found.rate == pytest.approx(0.5)


def test_word_errors_against_silence() -> None:
    assert word_errors("", "").rate == 0
    assert word_errors("", "thank you").errors == 2
    assert word_errors("thank you", "").rate == 1


def test_word_errors_agree_with_levenshtein() -> None:
    chance = random.Random(1)
    for _ in range(50):
        reference = chance.choices("abcde", k=chance.randint(1, 20))
        hypothesis = chance.choices("abcde", k=chance.randint(1, 20))
        assert word_errors(" ".join(reference), " ".join(hypothesis)).errors == edit_distance(reference, hypothesis)


def test_diarization_errors_by_hand() -> None:
    reference = [("ann", 0.0, 10.0), ("bob", 10.0, 20.0)]
    hypothesis = [("1", 1.0, 12.0), ("2", 12.0, 21.0)]
    found = diarization_errors(reference, hypothesis, 30.0)
    # 0-1 missed, 10-12 said by bob and given to ann, 20-21 false alarm.
    assert (found.missed, found.confusion, found.false_alarm, found.total) == pytest.approx((1, 2, 1, 20))
    assert found.rate == pytest.approx(0.2)


def test_diarization_errors_count_overlap_for_each_speaker() -> None:
    found = diarization_errors([("ann", 0, 10), ("bob", 5, 10)], [("x", 0, 10)], 10)
    assert (found.missed, found.total) == pytest.approx((5, 15))


def test_diarization_without_any_turn_misses_everything() -> None:
    assert diarization_errors([("ann", 0, 4)], [], 10).rate == pytest.approx(1)
    assert diarization_errors([], [], 10).rate == 0


def test_diarization_errors_agree_with_a_frame_count() -> None:
    chance = random.Random(2)
    for _ in range(10):
        reference, hypothesis = scene(chance, "abc"), scene(chance, "123"[: chance.randint(1, 3)])
        expected = frame_der(reference, hypothesis, 30)
        assert diarization_errors(reference, hypothesis, 30).rate == pytest.approx(expected, abs=1e-6)


def test_word_times_compare_matching_words_only() -> None:
    reference = [Spoken("Hello,", 1.0, 1.4), Spoken("I'm", 2.0, 2.2), Spoken("fine", 2.3, 2.6), Spoken("thanks", 3.0, 3.5)]
    hypothesis = [Spoken("hello", 1.1, 1.4), Spoken("I'm", 1.8, 2.3), Spoken("mine", 9.0, 9.9), Spoken("thanks.", 3.0, 3.3)]
    found = time_errors(reference, hypothesis)
    assert found is not None
    assert found.matched == 3
    assert found.start_mae == pytest.approx((0.1 + 0.2 + 0.0) / 3)
    assert found.start_median == pytest.approx(0.1)
    assert found.start_bias == pytest.approx(-0.1 / 3)
    assert found.end_mae == pytest.approx((0.0 + 0.1 + 0.2) / 3)


def test_word_times_pair_repeated_words_in_order() -> None:
    reference = [Spoken("no", 1, 2), Spoken("no", 3, 4), Spoken("no", 5, 6)]
    found = time_errors(reference, reference)
    assert found is not None
    assert (found.matched, found.start_mae) == (3, 0)


def test_word_times_leave_out_words_without_time() -> None:
    assert time_errors([Spoken("one", 1, 2)], [Spoken("one")]) is None
    assert time_errors([Spoken("one")], [Spoken("one", 1, 2)]) is None
    assert time_errors([], [Spoken("one", 1, 2)]) is None


def test_a_contraction_heard_in_two_words_has_no_time_to_compare() -> None:
    assert time_errors([Spoken("I'm", 1, 2)], [Spoken("I", 1, 1.2), Spoken("am", 1.3, 2)]) is None


def test_words_that_run_backwards_are_counted() -> None:
    words = [Spoken("a", 1, 2), Spoken("b"), Spoken("c", 0.5, 0.7), Spoken("d", 0.5, 0.6), Spoken("e", 3, 2.5)]
    assert backwards(words) == 2
    assert backwards(words[:2]) == 0


def test_words_without_time_or_speaker_are_counted() -> None:
    words = [Spoken("a", 1, 2, "ann"), Spoken("b", 1, None, "ann"), Spoken("c")]
    assert (without_time(words), without_speaker(words)) == (2, 1)


def test_speaker_attributed_errors_find_the_best_pairing() -> None:
    reference = {"ann": "good morning all", "bob": "hello there"}
    right = speaker_attributed_errors(reference, {"1": "hello there", "0": "good morning all"})
    assert right.errors == 0
    one_speaker = speaker_attributed_errors(reference, {"0": "good morning all hello there"})
    # Two words too many for ann, two that bob lacks.
    assert (one_speaker.insertions, one_speaker.deletions, one_speaker.reference_words) == (2, 2, 5)


def test_words_of_nobody_are_wrong() -> None:
    found = speaker_attributed_errors({"ann": "good morning"}, {"0": "good", None: "morning"})
    assert (found.deletions, found.insertions) == (1, 1)


def test_speaker_attributed_errors_agree_with_all_permutations() -> None:
    chance = random.Random(3)
    for _ in range(20):
        reference = {name: " ".join(chance.choices("abc", k=chance.randint(1, 8))) for name in "xyz"}
        hypothesis: dict[str | None, str] = {
            str(i): " ".join(chance.choices("abc", k=chance.randint(1, 8))) for i in range(chance.randint(1, 4))
        }
        size = max(len(reference), len(hypothesis))
        spoken = [text.split() for text in reference.values()] + [[]] * (size - len(reference))
        heard = [text.split() for text in hypothesis.values()] + [[]] * (size - len(hypothesis))
        best = min(
            sum(edit_distance(one, other) for one, other in zip(spoken, chosen, strict=True))
            for chosen in itertools.permutations(heard)
        )
        assert speaker_attributed_errors(reference, hypothesis).errors == best


def test_texts_are_gathered_by_speaker_in_order() -> None:
    words = [Spoken("a", speaker="x"), Spoken("b", speaker="y"), Spoken("c", speaker="x"), Spoken("d")]
    assert texts_by_speaker(words) == {"x": "a c", "y": "b", None: "d"}
