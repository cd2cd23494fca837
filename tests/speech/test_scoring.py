"""Scores against values worked out by hand, and against independent implementations."""

from __future__ import annotations

import itertools
import random
import statistics
import sys
from collections.abc import Sequence

import jiwer
import pytest

from speech.scoring import (
    Activity,
    ScoringOptions,
    Spoken,
    WordErrors,
    diarization_errors,
    normalise,
    speaker_attributed_errors,
    texts_by_speaker,
    time_constrained_errors,
    time_errors,
    whisper_normalise,
    word_errors,
)
from speech.scoring.significance import Parts, change


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


@pytest.mark.parametrize(
    ("said", "digits"),
    [
        ("twenty-one", "21"),
        ("one hundred and five", "105"),
        ("a hundred", "100"),
        ("two thousand and five", "2005"),
        ("twelve thousand three hundred forty five", "12345"),
        ("two million three thousand", "2003000"),
        ("5 million", "5000000"),
        ("nineteen ninety nine", "1999"),
        ("twenty twenty-five", "2025"),
        ("nineteen hundred", "1900"),
        ("1,234,567", "1234567"),
        ("five five five", "5 5 5"),
        ("twenty thirty", "2030"),
        ("fifty sixty", "50 60"),
        ("one hundred one million", "101000000"),
        ("two thousand and one hundred", "2100"),
        ("one and two", "1 and 2"),
        ("a thousand", "1000"),
        ("a cat", "a cat"),
        ("hundred", "100"),
        ("the first of may", "the 1st of may"),
        ("$5 is 5%", "5 dollars is 5 percent"),
        ("zero", "0"),
        ("a hundred and five", "105"),
        ("the twenty-first of may", "the 21st of may"),
        ("three point five", "3.5"),
        ("eighteen twelve", "1812"),
        ("it is eight thirty", "it is 8 30"),
        ("sixty seconds", "60 seconds"),
    ],
)
def test_english_numbers_are_digits_however_they_are_written(said: str, digits: str) -> None:
    assert normalise(said) == normalise(digits) == digits.replace(".", " ").split()


@pytest.mark.parametrize(
    ("language", "said", "digits"),
    [
        ("fr", "vingt et un", "21"),
        ("fr", "quatre-vingt-dix-sept", "97"),
        ("fr", "soixante et onze", "71"),
        ("fr", "septante-deux", "72"),
        ("fr", "mille neuf cent quatre-vingt-dix-neuf", "1999"),
        ("fr", "deux cents euros", "200 euros"),
        ("fr", "zéro", "0"),
        ("fr", "zero", "0"),
        ("fr", "dix mille francs", "10.000 francs"),
        ("fr", "cinq millions", "5 millions"),
        ("fr", "le premier mai", "le 1er mai"),
        ("fr", "trois virgule cinq", "3,5"),
        ("fr", "d'accord", "d'accord"),
        ("es", "veintiuno", "21"),
        ("es", "veintidós", "22"),
        ("es", "treinta y cinco", "35"),
        ("es", "mil novecientos noventa y nueve", "1999"),
        ("es", "doscientos mil", "200.000"),
        ("es", "dos millones", "2 millones"),
        ("es", "dieciséis", "16"),
        ("es", "el primer nombre", "el 1.er nombre"),
        ("it", "ventuno", "21"),
        ("it", "ventitré", "23"),
        ("it", "millenovecentonovantanove", "1999"),
        ("it", "quarantottomila", "48.000"),
        ("de", "einundzwanzig", "21"),
        ("de", "fünf", "5"),
        ("de", "zwölf", "12"),
        ("de", "dreißig", "30"),
        ("de", "neunzehnhundertneunundneunzig", "1999"),
        ("de", "zwei Millionen", "2 Millionen"),
        ("de", "zehntausend", "10.000"),
        ("de", "am dritten Oktober", "am 3. Oktober"),
        ("pt", "vinte e um", "21"),
        ("pt", "três", "3"),
        ("pt", "dezesseis", "16"),
        ("pt", "mil novecentos e noventa e nove", "1999"),
        ("nl", "eenentwintig", "21"),
        ("nl", "tweeëntwintig", "22"),
        ("nl", "honderdvijf", "105"),
        ("da", "enogtyve", "21"),
        ("da", "halvtreds", "50"),
        ("da", "hundrede og fem", "105"),
        ("ru", "семь", "7"),
    ],
)
def test_numbers_in_other_languages_are_digits_however_they_are_written(language: str, said: str, digits: str) -> None:
    assert normalise(said, language) == normalise(digits, language)


@pytest.mark.parametrize(
    ("language", "text", "normal"),
    [  # from OpenAI's own tests of its normalisers, and from what Appendix C of the paper says of them
        ("en", "Let's", "let us"),
        ("en", "he's like", "he is like"),
        ("en", "she's been like", "she has been like"),
        ("en", "10km", "10 km"),
        ("en", "RC232", "rc 232"),
        ("en", "Mr. Park visited Assoc. Prof. Kim Jr.", "mister park visited associate professor kim junior"),
        ("en", "Um, the colour [noise] is, hmm, grey (laughs).", "the color is gray"),
        ("en", "twenty-one dollars", "$21"),
        ("fr", "L'été à 10 h, [bruit] c'est ça !", "l été à 10 h c est ça"),
        ("ja", "今日は。", "今 日 は"),
    ],
)
def test_whispers_normaliser_is_openais(language: str, text: str, normal: str) -> None:
    assert whisper_normalise(text, language) == normal.split()


def test_marks_that_make_another_letter_are_kept() -> None:
    assert normalise("हिन्दी भाषा", "hi") == ["हिन्दी", "भाषा"]
    assert normalise("한국어 문장", "ko") == ["한국어", "문장"]
    assert normalise("สวัสดี", "th") == list("สวัสดี")
    assert normalise("がか、東京。", "ja") == ["が", "か", "東", "京"]
    assert normalise("كِتَاب", "ar") == normalise("كتاب", "ar")


def test_word_errors_are_counted_by_kind() -> None:
    found = word_errors("the cat sat on the mat", "oh the cat sit on mat")
    assert (found.substitutions, found.deletions, found.insertions) == (1, 1, 1)
    assert found.rate == pytest.approx(0.5)


def test_word_errors_against_silence() -> None:
    assert word_errors("", "").rate == 0
    assert word_errors("", "thank you").errors == 2
    assert word_errors("thank you", "").rate == 1


def test_word_errors_agree_with_levenshtein_and_jiwer() -> None:
    chance = random.Random(1)
    for _ in range(50):
        reference = chance.choices("bcdef", k=chance.randint(1, 20))
        hypothesis = chance.choices("bcdef", k=chance.randint(1, 20))
        found = word_errors(" ".join(reference), " ".join(hypothesis))
        assert found.errors == edit_distance(reference, hypothesis)
        assert found.rate == pytest.approx(jiwer.wer(" ".join(reference), " ".join(hypothesis)))


def test_languages_without_spaces_are_compared_by_character() -> None:
    found = word_errors("今日は、いい天気です。", "今日はいい元気です", "ja")
    assert (found.substitutions, found.errors, found.reference_words) == (1, 1, 9)


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


def test_a_collar_is_as_wide_on_each_side_of_a_boundary_as_it_says() -> None:
    reference, hypothesis = [("ann", 1.0, 3.0)], [("x", 1.2, 3.4)]
    strict = diarization_errors(reference, hypothesis, 5)
    assert (strict.missed, strict.false_alarm) == pytest.approx((0.2, 0.4))
    forgiving = diarization_errors(reference, hypothesis, 5, options=ScoringOptions(collar=0.25))
    # Scored: before 0.75, 1.25 to 2.75, and after 3.25, where 0.15 s of the false alarm are left.
    assert (forgiving.missed, forgiving.false_alarm, forgiving.total) == pytest.approx((0, 0.15, 1.5))


def test_overlap_can_be_left_out_and_so_can_what_is_not_scored() -> None:
    reference, hypothesis = [("ann", 0, 10), ("bob", 5, 10)], [("x", 0, 10)]
    assert diarization_errors(reference, hypothesis, 10, options=ScoringOptions(skip_overlap=True)).errors == 0
    found = diarization_errors(reference, hypothesis, 10, scored=[(0.0, 4.0), (6.0, 7.0)])
    assert (found.missed, found.total) == pytest.approx((1, 6))


def test_diarization_errors_are_those_of_pyannote_metrics() -> None:
    from pyannote.core import Annotation, Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate

    def annotated(turns: Sequence[Activity]) -> Annotation:
        annotation = Annotation()
        for place, (speaker, start, end) in enumerate(turns):
            annotation[Segment(start, end), place] = speaker
        return annotation

    chance = random.Random(4)
    regions = Timeline([Segment(0, 7), Segment(8.5, 21), Segment(20, 26)])
    for collar in (0.0, 0.1, 0.4):
        for skip_overlap in (False, True):
            reference, hypothesis = scene(chance, "abc"), scene(chance, "1234"[: chance.randint(1, 4)])
            options = ScoringOptions(collar=collar, skip_overlap=skip_overlap)
            scored = [(region.start, region.end) for region in regions]
            ours = diarization_errors(reference, hypothesis, 30, scored=scored, options=options)
            metric = DiarizationErrorRate(collar=2 * collar, skip_overlap=skip_overlap)
            theirs = metric(
                annotated(reference).support(), annotated(hypothesis).support(), uem=regions.support(), detailed=True
            )
            parts = (theirs["missed detection"], theirs["false alarm"], theirs["confusion"], theirs["total"])
            assert (ours.missed, ours.false_alarm, ours.confusion, ours.total) == pytest.approx(parts, abs=1e-5)


def test_diarization_without_any_turn_misses_everything() -> None:
    assert diarization_errors([("ann", 0, 4)], [], 10).rate == pytest.approx(1)
    assert diarization_errors([], [], 10).rate == 0
    assert diarization_errors([], [("x", 0, 1)], 10).rate == 1


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
    assert found.within_200ms == 3


def test_a_word_is_close_when_both_its_ends_are() -> None:
    found = time_errors([Spoken("one", 1, 2), Spoken("more", 3, 4)], [Spoken("one", 1, 2.3), Spoken("more", 3.2, 4)])
    assert found is not None
    assert (found.matched, found.within_200ms) == (2, 1)


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


# -- whether a change is more than chance -------------------------------------------------------------------------------


def test_a_change_that_every_recording_shares_is_clear() -> None:
    before = [Parts(10 + i % 3, 100) for i in range(20)]
    after = [Parts(part.errors - 4, 100) for part in before]
    found = change(before, after)
    assert found.difference == pytest.approx(-0.04)
    assert found.low == pytest.approx(-0.04) and found.high == pytest.approx(-0.04)


def test_a_change_that_one_recording_makes_is_not() -> None:
    before = [Parts(10, 100) for _ in range(10)]
    after = [Parts(40, 100), *(Parts(9, 100) for _ in range(9))]
    found = change(before, after)
    assert found.difference == pytest.approx(0.021)
    assert found.low is not None and found.high is not None
    assert found.low < 0 < found.high


def test_an_interval_is_that_of_the_normal_approximation() -> None:
    """Equal lengths: the pooled rate is a mean, whose standard error is known."""
    chance = random.Random(5)
    before = [Parts(chance.randint(5, 15), 100) for _ in range(200)]
    after = [Parts(chance.randint(5, 15), 100) for _ in range(200)]
    differences = [(two.errors - one.errors) / 100 for one, two in zip(before, after, strict=True)]
    error = statistics.stdev(differences) / 200**0.5
    found = change(before, after)
    assert found.low == pytest.approx(statistics.fmean(differences) - 1.96 * error, abs=error / 10)
    assert found.high == pytest.approx(statistics.fmean(differences) + 1.96 * error, abs=error / 10)
    assert change(before, after) == found


def test_of_few_recordings_no_interval_is_told() -> None:
    assert change([Parts(1, 10)] * 4, [Parts(2, 10)] * 4) == (pytest.approx(0.1), None, None)


# -- tcpWER, where meeteval is there: `make bench` has it compiled ---------------------------------------------------------

SAID = (
    Spoken("Good morning, everybody.", 1.0, 3.0, "ann"),
    Spoken("Hello there!", 3.0, 5.0, "bob"),
    Spoken("We are 21.", 6.0, 7.0, "ann"),
)
HEARD = (
    Spoken("Good", 1.1, 1.4, "A"),
    Spoken("morning", 1.5, 2.0, "A"),
    Spoken("Hello", 3.0, 3.5, "B"),
    Spoken("there", 3.5, 4.0, "B"),
    Spoken("We", 6.0, 6.1, "A"),
    Spoken("are", 6.2, 6.3, "A"),
    Spoken("twenty", 6.4, 6.6, "A"),
    Spoken("one", 6.7, 6.9, "A"),
    Spoken("okay", 7.0, 7.2, None),
)


def counts(errors: WordErrors | None) -> tuple[int, int, int, int]:
    assert errors is not None
    return errors.substitutions, errors.deletions, errors.insertions, errors.reference_words


def test_words_pair_in_tcpwer_only_near_their_time() -> None:
    pytest.importorskip("meeteval")
    # "everybody" is missing, and "okay" has no speaker.
    assert counts(time_constrained_errors(SAID, HEARD)) == (0, 1, 1, 8)
    for later, found in ((4.0, (0, 1, 1, 8)), (20.0, (0, 8, 8, 8))):
        moved = [Spoken(word.word, word.start + later, word.end + later, word.speaker) for word in HEARD]  # type: ignore[operator]
        assert counts(time_constrained_errors(SAID, moved)) == found
    assert counts(time_constrained_errors((), HEARD)) == (0, 0, 8, 0)
    assert counts(time_constrained_errors(SAID, ())) == (0, 8, 0, 8)


def test_tcpwer_needs_the_utterances_times_and_speakers() -> None:
    pytest.importorskip("meeteval")
    assert time_constrained_errors([*SAID, Spoken("Bye.", None, None, "ann")], HEARD) is None
    assert time_constrained_errors([*SAID, Spoken("Bye.", 8.0, 9.0)], HEARD) is None


def test_without_meeteval_there_is_no_tcpwer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "meeteval.wer", None)
    monkeypatch.setitem(sys.modules, "meeteval", None)
    assert time_constrained_errors(SAID, HEARD) is None


def test_cpwer_is_meetevals() -> None:
    wer = pytest.importorskip("meeteval.wer")
    chance = random.Random(6)
    for _ in range(50):
        said = {name: " ".join(chance.choices("bcdef", k=chance.randint(1, 9))) for name in "xyz"[: chance.randint(1, 3)]}
        heard: dict[str | None, str] = {
            name: " ".join(chance.choices("bcdef", k=chance.randint(1, 9))) for name in "123"[: chance.randint(1, 3)]
        }
        theirs = wer.cp_word_error_rate(said, heard)
        ours = speaker_attributed_errors(said, heard)
        assert (ours.errors, ours.reference_words) == (theirs.errors, theirs.length)
