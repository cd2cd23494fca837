"""Corrections: words stay in order, none is lost, and what is undone leaves the original."""

from __future__ import annotations

import itertools
import random

import pytest

from speech.editing import CannotApply, Document, add, in_effect, replayed
from speech.formats import render
from stenoflow.edits import (
    Assign,
    Delete,
    Insert,
    Merge,
    MergeSpeakers,
    NameSpeaker,
    Operation,
    ReplaceWords,
    SetText,
    Split,
    Undo,
)
from stenoflow.types import Segment, Transcript, Turn, Word

TEXTS = [
    "Hello there , this is Anna .",
    "Hi Anna .",
    "How are the numbers this week ?",
    "Better than the last ones .",
    "Good .",
]


def transcript(*, aligned: bool = True, language: str = "en") -> Transcript:
    """Two speakers in turns, a word every half second."""
    segments, clock = [], 0.0
    for index, text in enumerate(TEXTS):
        speaker, words = f"SPEAKER_0{index % 2}", []
        for word in text.split():
            words.append(Word(word=word, start=clock, end=clock + 0.4, score=0.9, timing="attention", speaker=speaker))
            clock += 0.5
        timed = tuple(words) if aligned else ()
        segments.append(Segment(start=words[0].start, end=words[-1].end, text=f" {text}", speaker=speaker, words=timed))
    return Transcript(
        language=language,
        duration=clock,
        segments=tuple(segments),
        word_segments=tuple(word for segment in segments for word in segment.words),
        turns=tuple(Turn(start=one.start, end=one.end, speaker=str(one.speaker)) for one in segments),
        speakers=("SPEAKER_00", "SPEAKER_01"),
    )


def corrected(*revisions: list[Operation], base: Transcript | None = None) -> Document:
    """Each revision resolved on the one before, as the service keeps them."""
    start = Document(base or transcript())
    kept: list[list[Operation]] = []
    for operations in revisions:
        kept.append(replayed(start, kept).resolved(operations))
    return replayed(start, kept)


def text_of(document: Document) -> list[str]:
    return [piece.text for piece in document]


def test_unchanged_words_keep_their_times_and_replaced_ones_share_the_span() -> None:
    before = transcript().segments[2].words
    after = corrected([SetText(segment="s2", text="How were those final numbers this week ?")]).pieces["s2"].tokens
    words = {token.word.word: token.word for token in after}
    assert words["How"] == before[0]
    assert [words[name] for name in ("numbers", "this", "week")] == list(before[3:6])
    new = [words[name] for name in ("were", "those", "final")]
    assert new[0].start == before[1].start
    assert new[-1].end == before[2].end
    assert all(left.end == right.start for left, right in itertools.pairwise(new))
    assert {word.timing for word in new} == {"edited"}
    assert new[2].end - new[2].start == pytest.approx((before[2].end - before[1].start) * 5 / 14)


def test_inserted_words_have_a_place_between_their_neighbours() -> None:
    document = corrected([SetText(segment="s1", text="Oh hi , Hi dear Anna . yes")])
    assert text_of(document)[1] == "Oh hi , Hi dear Anna . yes"
    times = [time for token in document.pieces["s1"].tokens for time in (token.word.start, token.word.end)]
    assert times == sorted(times)
    assert times[0] >= document.pieces["s1"].start
    assert times[-1] <= document.pieces["s1"].end


def test_segments_are_split_merged_inserted_and_deleted() -> None:
    split = corrected([Split(before="w3")])
    assert text_of(split)[:2] == ["Hello there ,", "this is Anna ."]
    assert split.pieces[split.order[1]].start == transcript().segments[0].words[3].start
    merged = corrected([Split(before="w3")], [Merge(segment="s0", next="r1.0")])
    assert text_of(merged)[0] == TEXTS[0]
    inserted = corrected([Insert(after="s1", start=5.0, end=5.2, text="And you ?", speaker="SPEAKER_02")])
    assert text_of(inserted)[2] == "And you ?"
    assert inserted.transcript().speakers == ("SPEAKER_00", "SPEAKER_01", "SPEAKER_02")
    assert text_of(corrected([Delete(segments=("s0", "s3"))])) == [TEXTS[1], TEXTS[2], TEXTS[4]]
    with pytest.raises(CannotApply, match="neighbours"):
        corrected([Insert(after="s0", start=30.0, end=31.0, text="late")])
    with pytest.raises(CannotApply, match="do not follow"):
        corrected([Merge(segment="s0", next="s2")])


def test_speakers_are_named_merged_and_assigned() -> None:
    edited = corrected(
        [NameSpeaker(speaker="SPEAKER_00", name="Anna"), NameSpeaker(speaker="SPEAKER_01", name="Ben")],
        [Assign(segments=("s4",), speaker="SPEAKER_02")],
        [MergeSpeakers(speaker="SPEAKER_01", into="SPEAKER_00")],
    ).transcript()
    assert [segment.speaker for segment in edited.segments] == ["SPEAKER_00"] * 4 + ["SPEAKER_02"]
    assert {word.speaker for word in edited.segments[1].words} == {"SPEAKER_00"}
    assert edited.speakers == ("SPEAKER_00", "SPEAKER_02")
    assert edited.speaker_names == {"SPEAKER_00": "Anna"}
    assert [turn.speaker for turn in edited.turns] == ["SPEAKER_00"] * 4 + ["SPEAKER_02"]
    with pytest.raises(CannotApply, match="no speaker"):
        corrected([NameSpeaker(speaker="SPEAKER_09", name="Nobody")])


def test_an_undo_is_an_operation_and_can_be_undone() -> None:
    revisions: list[list[Operation]] = [[Delete(segments=("s0",))], [Delete(segments=("s1",))], [Undo(revision=1)]]
    start = Document(transcript())
    assert text_of(replayed(start, revisions)) == [TEXTS[0], *TEXTS[2:]]
    assert in_effect(revisions) == [False, True, True]
    assert text_of(replayed(start, [*revisions, [Undo(revision=3)]])) == TEXTS[2:]
    split: list[list[Operation]] = [[Split(before="w3")], [Delete(segments=("r1.0",))], [Undo(revision=1)]]
    with pytest.raises(CannotApply):  # what was made on it would hang in the air
        replayed(start, split)


def test_a_transcript_without_word_times_can_be_corrected() -> None:
    document = corrected([SetText(segment="s1", text="Hi Anne .")], base=transcript(aligned=False))
    assert document.transcript().segments[1].text == "Hi Anne ."
    assert document.transcript().word_segments == ()


def test_in_a_script_without_spaces_characters_are_replaced() -> None:
    words = tuple(
        Word(word=char, start=i / 2, end=i / 2 + 0.5, score=0.8, timing="attention") for i, char in enumerate("我们看电影")
    )
    base = Transcript(
        language="zh",
        duration=3.0,
        segments=(Segment(start=0.0, end=2.5, text="我们看电影", words=words),),
        word_segments=words,
    )
    document = corrected([SetText(segment="s0", text="我们听电影")], base=base)
    assert text_of(document) == ["我们听电影"]
    assert [token.word.timing for token in document.pieces["s0"].tokens] == ["attention"] * 2 + ["edited"] + ["attention"] * 2


def test_operations_that_share_nothing_can_be_made_in_either_order() -> None:
    base = Document(transcript())
    one, other = base.resolved([SetText(segment="s2", text="How are our numbers this week ?")]), [Split(before="w10")]
    assert not set.union(*map(base.touched, one)) & base.touched(other[0])
    same = base.resolved([SetText(segment="s2", text="How are their numbers this week ?")])
    assert set.union(*map(base.touched, one)) & set.union(*map(base.touched, same))
    assert base.touched(Delete(segments=("s2",))) & set.union(*map(base.touched, one))


@pytest.mark.parametrize("seed", range(5))
def test_a_thousand_random_operations_keep_words_in_order_and_undo_returns_the_original(seed: int) -> None:
    chance = random.Random(seed)
    original = transcript()
    start = Document(original)
    document, kept, count = start.copy(), list[list[Operation]](), 0
    while count < 200:
        operation = _random_operation(chance, document)
        try:
            resolved = document.resolved([operation])
            after = document.copy()
            add(after, resolved, len(kept) + 1)
        except CannotApply:
            continue
        expected = _words_expected(document, operation)
        kept.append(resolved)
        assert [token.word.word for piece in after for token in piece.tokens] == expected, operation
        for piece in after:
            starts = [token.word.start for token in piece.tokens]
            assert starts == sorted(starts), operation
            assert piece.tokens
        document, count = after, count + 1
    assert text_of(replayed(start, kept)) == text_of(document)
    rendered = render(document.transcript(), "json")
    assert rendered != render(original, "json")
    for number in range(len(kept), 0, -1):
        kept.append([Undo(revision=number)])
    assert render(replayed(start, kept).transcript(), "json") == render(original, "json")


def _random_operation(chance: random.Random, document: Document) -> Operation:
    pieces = list(document)
    piece = chance.choice(pieces)
    place = pieces.index(piece)
    words = [token.word.word for token in piece.tokens]
    labels = [*document.speakers, f"SPEAKER_0{chance.randrange(5)}"]
    match chance.randrange(10):
        case 0 | 1 | 2:
            for _ in range(chance.randrange(1, 4)):
                at = chance.randrange(len(words) + 1)
                words[at : at + chance.randrange(3)] = chance.choices(["um", "Anna", "<b>x</b>", "&"], k=chance.randrange(3))
            return SetText(segment=piece.id, text=" ".join(words))
        case 3:
            return Split(before=chance.choice(piece.tokens).id)
        case 4:
            return Merge(segment=piece.id, next=pieces[(place + 1) % len(pieces)].id)
        case 5:
            return Insert(after=piece.id, start=piece.end, end=piece.end, text="in between", speaker=chance.choice(labels))
        case 6:
            return Delete(segments=(piece.id,)) if len(pieces) > 2 else Assign(segments=(piece.id,), speaker="SPEAKER_07")
        case 7:
            return NameSpeaker(speaker=chance.choice(document.speakers), name=chance.choice(["Anna", "Ben", ""]))
        case 8:
            return MergeSpeakers(speaker=chance.choice(labels), into=chance.choice(labels))
    return Assign(segments=(piece.id,), speaker=chance.choice(labels))


def _words_expected(document: Document, operation: Operation) -> list[str]:
    """All words after the operation, by what it says rather than by how it is made."""
    found: list[str] = []
    for piece in document:
        words = [token.word.word for token in piece.tokens]
        if isinstance(operation, SetText) and operation.segment == piece.id:
            words = operation.text.split()
        if isinstance(operation, Delete) and piece.id in operation.segments:
            words = []
        found += words
        if isinstance(operation, Insert) and operation.after == piece.id:
            found += operation.text.split()
    return found


def test_words_are_replaced_by_their_ids_and_only_where_they_are() -> None:
    document = corrected([ReplaceWords(words=("w5", "w6"), text="Anne !")])
    assert text_of(document)[0] == "Hello there , this is Anne !"
    with pytest.raises(CannotApply, match="next to each other"):
        corrected([ReplaceWords(words=("w1", "w3"), text="x")])
    with pytest.raises(CannotApply, match="no word"):
        corrected([ReplaceWords(words=("w5",), text="Anne")], [ReplaceWords(words=("w5",), text="Anna")])


def test_marks_of_a_script_without_spaces_stay_on_their_letters() -> None:
    base = Transcript(language="th", duration=2.0, segments=(Segment(start=0.0, end=2.0, text="ดี"),), word_segments=())
    document = corrected([SetText(segment="s0", text="ที่นี่ OK")], base=base)
    assert [token.word.word for token in document.pieces["s0"].tokens] == ["ที่", "นี่", "OK"]
