"""Corrections made anew on the transcript of a retry: text stays with its words, names with their speakers, and what does not fit is named."""

from __future__ import annotations

import random

import pytest

from speech.carrying import Carried, carried
from speech.editing import CannotApply, Document, add
from stenoflow.edits import Assign, Delete, Insert, Merge, MergeSpeakers, NameSpeaker, Operation, ReplaceWords, SetText, Split
from stenoflow.types import Segment, Transcript, Turn, Word

WORDS = [
    "hello",
    "there",
    "this",
    "is",
    "anna",
    "hi",
    "anna",
    "how",
    "are",
    "the",
    "numbers",
    "this",
    "week",
    "better",
    "than",
    "the",
    "last",
    "ones",
    "good",
]


def transcript(speakers: str, words: list[str] = WORDS) -> Transcript:
    """A word every half second; a segment per run of one speaker, who is a letter."""
    segments: list[Segment] = []
    begin = 0
    for index in range(1, len(words) + 1):
        if index == len(words) or speakers[index] != speakers[begin]:
            label = f"SPEAKER_0{'abc'.index(speakers[begin])}"
            spoken = tuple(
                Word(word=words[i], start=i / 2, end=i / 2 + 0.4, score=0.9, timing="attention", speaker=label)
                for i in range(begin, index)
            )
            text = " ".join(words[begin:index])
            segments.append(Segment(start=spoken[0].start, end=spoken[-1].end, text=text, speaker=label, words=spoken))
            begin = index
    return Transcript(
        language="en",
        duration=len(words) / 2,
        segments=tuple(segments),
        word_segments=tuple(word for segment in segments for word in segment.words),
        turns=tuple(Turn(start=one.start, end=one.end, speaker=str(one.speaker)) for one in segments),
        speakers=tuple(dict.fromkeys(str(segment.speaker) for segment in segments)),
    )


TWO = transcript("aaaaabbbbbbbbbbbbba")
"""hello there this is anna | hi anna … last ones | good"""
THREE = transcript("aaaaabbbbbbbbcccccb")
SWAPPED = transcript("bbbbbaaaaaaaaaaaaab")


def corrected(base: Transcript, *operations: Operation) -> Document:
    document = Document(base).copy()
    for number, operation in enumerate(operations, start=1):
        add(document, document.resolved([operation]), number)
    return document


def repeated(found: Carried, on: Transcript) -> Document:
    """The new transcript with the operations, as the service replays them."""
    document = Document(on).copy()
    add(document, found.operations, 1)
    return document


def carry(
    on: Transcript, *operations: Operation, base: Transcript = TWO
) -> tuple[list[tuple[str | None, str]], Document, Carried]:
    found = carried(Document(base), corrected(base, *operations), Document(on))
    document = repeated(found, on)
    return [(piece.speaker, piece.text) for piece in document], document, found


def test_text_stays_with_its_words_when_segments_are_cut_elsewhere() -> None:
    shown, _, found = carry(
        THREE,
        SetText(segment="s0", text="hello everybody this is Anna"),
        ReplaceWords(words=("w12", "w13"), text="week, far better"),
        ReplaceWords(after="w18", text="indeed"),
        ReplaceWords(words=("w15",), text=""),
    )
    assert not found.left_out
    assert shown == [
        ("SPEAKER_00", "hello everybody this is Anna"),
        ("SPEAKER_01", "hi anna how are the numbers this week, far better"),
        ("SPEAKER_02", "than last ones"),
        ("SPEAKER_01", "good indeed"),
    ]


def test_names_go_with_what_their_speakers_say_whatever_they_are_labelled() -> None:
    _, document, found = carry(
        SWAPPED, NameSpeaker(speaker="SPEAKER_00", name="Anna"), NameSpeaker(speaker="SPEAKER_01", name="Ben")
    )
    assert not found.left_out
    assert document.names == {"SPEAKER_01": "Anna", "SPEAKER_00": "Ben"}


def test_a_speaker_that_is_no_longer_there_is_named() -> None:
    one = transcript("a" * len(WORDS))
    _, document, found = carry(
        one, NameSpeaker(speaker="SPEAKER_00", name="Anna"), NameSpeaker(speaker="SPEAKER_01", name="Ben")
    )
    assert document.names == {"SPEAKER_00": "Ben"}
    assert found.left_out == ("the name Anna: There is no speaker SPEAKER_01.",)


def test_words_that_were_given_to_another_speaker_are_given_again() -> None:
    shown, document, found = carry(
        SWAPPED,
        Split(before="w13"),
        Assign(segments=("r1.0",), speaker="SPEAKER_05"),
        SetText(segment="r1.0", text="better than these last ones"),
        NameSpeaker(speaker="SPEAKER_05", name="Cleo"),
    )
    assert not found.left_out
    assert shown[1:3] == [
        ("SPEAKER_00", "hi anna how are the numbers this week"),
        ("SPEAKER_05", "better than these last ones"),
    ]
    assert document.names == {"SPEAKER_05": "Cleo"}
    assert {turn.speaker for turn in document.transcript().turns} == {"SPEAKER_00", "SPEAKER_01", "SPEAKER_05"}


def test_a_label_that_means_somebody_else_now_is_not_mixed_up() -> None:
    """SPEAKER_02 was made by hand, and the new transcript has one of its own."""
    shown, document, _ = carry(
        THREE, Assign(segments=("s2",), speaker="SPEAKER_02"), NameSpeaker(speaker="SPEAKER_02", name="Dan")
    )
    assert shown[-1] == ("SPEAKER_03", "good")
    assert document.names == {"SPEAKER_03": "Dan"}


def test_speakers_that_were_merged_are_one_again() -> None:
    shown, _, found = carry(SWAPPED, MergeSpeakers(speaker="SPEAKER_01", into="SPEAKER_00"))
    assert not found.left_out
    assert len({speaker for speaker, _ in shown}) == 1


def test_what_was_inserted_and_deleted_stays_so() -> None:
    shown, _, found = carry(
        SWAPPED,
        Insert(after="s0", start=2.45, end=2.5, text="(laughs)", speaker="SPEAKER_01"),
        Delete(segments=("s2",)),
        Merge(segment="s0", next="r1.0"),
    )
    assert not found.left_out
    assert " ".join(text for _, text in shown) == " ".join([*WORDS[:5], "(laughs)", *WORDS[5:-1]])


def test_corrections_of_words_that_are_gone_are_named() -> None:
    other = transcript("aaaaabbbbbbbbbbbbba", [word if word != "numbers" else "figures" for word in WORDS])
    shown, _, found = carry(other, ReplaceWords(words=("w10",), text="sums"), ReplaceWords(words=("w0",), text="Hullo"))
    assert shown[0] == ("SPEAKER_00", "Hullo there this is anna")
    assert "figures" in shown[1][1]
    assert found.left_out == ("“sums” at 5.0 s: the words that it replaces are no longer there",)


@pytest.mark.parametrize("seed", range(40))
def test_nothing_that_was_written_is_lost_by_another_number_of_speakers(seed: int) -> None:
    """Random corrections of text, carried to a random cut of the same words: the same text, and every replay finds the ids it needs."""
    rng = random.Random(seed)
    document = Document(TWO).copy()
    number = 0
    while number < 30:
        tokens = [token for piece in document for token in piece.tokens]
        piece = document.pieces[rng.choice(document.order)]
        choice: Operation = rng.choice(
            [
                ReplaceWords(words=(rng.choice(tokens).id,), text=rng.choice(["", "one", "two three"])),
                ReplaceWords(after=rng.choice(tokens).id, text="more"),
                Split(before=rng.choice(tokens).id),
                Assign(segments=(piece.id,), speaker=rng.choice(["SPEAKER_00", "SPEAKER_01", "SPEAKER_04"])),
            ]
        )
        trial = document.copy()
        try:
            add(trial, [choice], number + 1)
        except CannotApply:
            continue
        if trial.order:
            document, number = trial, number + 1
    cut = transcript("".join(rng.choice("aaabc") for _ in WORDS))
    found = carried(Document(TWO), document, Document(cut))
    assert not [said for said in found.left_out if not said.startswith(("the name", "a change"))]
    written = " ".join(piece.text for piece in document).split()
    assert " ".join(piece.text for piece in repeated(found, cut)).split() == written
