"""Glossaries: how they are read, and what they write in place of what was recognised."""

from __future__ import annotations

import pytest

from speech.glossary import Replacement, parsed_glossary, replaced
from speech.merge import TEXT_CHANGED, merge
from speech.schema import AlignResult, AsrResult, AsrSegment, AsrWord, Diarization, MergeParams, Region
from stenoflow.errors import InvalidOption
from stenoflow.types import ModelInfo, Segment, Turn, Word

MODEL = ModelInfo(name="m", revision="1", origin="folder")


def spoken(text: str, joined: str | None = None) -> Segment:
    """A word a second."""
    words = tuple(
        Word(word=word, start=float(at), end=at + 0.8, score=1 - at / 10, timing="wav2vec2")
        for at, word in enumerate(text.split())
    )
    return Segment(start=0.0, end=words[-1].end, text=joined if joined is not None else text, words=words)


def written(text: str, *pairs: tuple[str, str], language: str = "en", joined: str | None = None) -> Segment:
    (segment,) = replaced(
        [spoken(text, joined)], [Replacement(heard=heard, written=out) for heard, out in pairs], lambda _: language
    )
    return segment


@pytest.mark.parametrize(
    ("text", "pair", "expected"),
    [
        ("We use kubernetes here.", ("kubernetes", "Kubernetes"), "We use Kubernetes here."),
        ("We use KUBERNETES, here.", ("Kubernetes", "Kubernetes"), "We use Kubernetes, here."),
        ('Ask "steno flow".', ("steno flow", "Stenoflow"), 'Ask "Stenoflow".'),
        ("Steno. Flow on.", ("steno flow", "Stenoflow"), "Steno. Flow on."),
        ("The cat scattered.", ("cat", "dog"), "The dog scattered."),
        ("They use GNU.", ("gnu", "GNU is not Unix"), "They use GNU is not Unix."),
        ("a b a b", ("a b", "b a"), "b a b a"),
    ],
)
def test_whole_words_are_written_as_given_whatever_their_case(text: str, pair: tuple[str, str], expected: str) -> None:
    segment = written(text, pair)
    assert segment.text == expected
    assert " ".join(word.word for word in segment.words) == expected


def test_the_longest_of_several_is_taken_and_none_sees_the_words_of_another() -> None:
    assert written("new york city", ("new york", "NY"), ("new york city", "NYC"), ("nyc", "wrong")).text == "NYC"


def test_words_keep_their_times_and_the_time_of_several_is_that_of_one() -> None:
    one = written("to steno flow now", ("steno flow", "Stenoflow")).words
    assert [(word.word, word.start, word.end, word.timing) for word in one[1:]] == [
        ("Stenoflow", 1.0, 2.8, "wav2vec2"),
        ("now", 3.0, 3.8, "wav2vec2"),
    ]
    assert one[1].score == pytest.approx(0.8)
    same = written("to steno flow", ("steno flow", "Stenno Floh")).words
    assert [(word.word, word.start, word.end) for word in same[1:]] == [("Stenno", 1.0, 1.8), ("Floh", 2.0, 2.8)]
    more = written("to gnu", ("gnu", "GNU Unix")).words
    assert [(word.word, word.timing) for word in more[1:]] == [("GNU", "interpolated"), ("Unix", "interpolated")]
    assert (more[1].start, more[2].end) == (1.0, 1.8) and more[1].end == more[2].start == pytest.approx(1.343)


def test_where_there_are_no_spaces_a_word_is_found_across_its_parts() -> None:
    segment = written("東 京 都 は", ("東京", "Tōkyō"), language="ja", joined="東京都は")
    assert segment.text == "Tōkyō都は"
    assert [word.word for word in segment.words] == ["Tōkyō", "都", "は"]


def test_a_segment_without_a_match_is_left_as_it_is() -> None:
    segment = spoken("nothing here", "nothing  here")
    assert replaced([segment], [Replacement(heard="x", written="y")], lambda _: "en") == [segment]


def test_a_replacement_is_no_change_of_the_text_that_a_transcript_warns_of() -> None:
    words = tuple(AsrWord(word=word, start=at, end=at + 0.8, score=1.0) for at, word in enumerate(["steno", "flow", "works."]))
    chunk = AsrSegment(
        start=0.0, end=3.0, text="steno flow works.", words=words, regions=(Region(start=0, end=3),), avg_logprob=-0.1
    )
    asr = AsrResult(language="en", segments=(chunk,), model=MODEL)
    aligned = AlignResult(segments=(spoken("steno flow works."),), model=MODEL, method="wav2vec2")
    turn = Turn(start=0.0, end=3.0, speaker="SPEAKER_00")
    found = merge(
        3.0,
        asr,
        aligned,
        Diarization(turns=(turn,), exclusive_turns=(turn,), speakers=("SPEAKER_00",)),
        {},
        [Replacement(heard="steno flow", written="Stenoflow")],
    )
    assert [(word.word, word.speaker) for word in found.word_segments] == [
        ("Stenoflow", "SPEAKER_00"),
        ("works.", "SPEAKER_00"),
    ]
    assert [segment.text for segment in found.segments] == ["Stenoflow works."]
    assert TEXT_CHANGED not in found.warnings


def test_the_key_of_a_merge_without_a_glossary_is_that_of_before() -> None:
    assert MergeParams(options={"a": 1}).model_dump(mode="json") == {"options": {"a": 1}}


def test_a_glossary_is_read_line_by_line_and_shown_as_it_can_be_read_again() -> None:
    text = "Stenoflow\n\n  Anna Berg # chair\nsteno flow => Stenoflow\nSteno  Flow => StenoFlow\n"
    glossary = parsed_glossary("acme", text)
    assert glossary.hotwords == ("Stenoflow", "Anna Berg")
    assert [(one.heard, one.written) for one in glossary.replacements] == [("Steno Flow", "StenoFlow")]
    assert parsed_glossary("acme", glossary.text) == glossary


@pytest.mark.parametrize("line", ["=> a", "a =>", "a => b => c", "... => b", f"{'x' * 201} => b"])
def test_a_line_that_says_nothing_is_named(line: str) -> None:
    with pytest.raises(InvalidOption, match="Line 2"):
        parsed_glossary("acme", f"fine\n{line}\n")


def test_more_hot_words_than_a_prompt_holds_are_refused() -> None:
    with pytest.raises(InvalidOption, match="2000 characters"):
        parsed_glossary("acme", "\n".join(["word" * 10] * 60))
