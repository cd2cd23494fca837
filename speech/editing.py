"""A transcript as corrections change it: the computed one, and the operations of each revision replayed on it.

Nothing is changed in place: a revision is the list of operations up to it, and undoing one leaves it out of the replay. So what is
undone leaves the original, to the byte, and every revision remains available. Pure: no model, no file, no clock.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from speech.languages import WITHOUT_SPACES, language_of_text
from speech.sentences import characters, join_words, separators, shared_time
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

_EVERYTHING = "*"


class CannotApply(Exception):
    """The operation names what is not there, or would put words out of order."""


class Token(NamedTuple):
    """A word with its id, and what stands before it in the text."""

    id: str
    word: Word
    lead: str


class Piece(NamedTuple):
    """A segment of a revision. `original` is the computed segment, as long as nothing in it was changed."""

    id: str
    start: float
    end: float
    speaker: str | None
    tokens: tuple[Token, ...]
    original: Segment | None = None
    source: Segment | None = None
    """The computed segment that it comes from."""

    @property
    def text(self) -> str:
        if self.original is not None:
            return self.original.text.strip()
        return join_words([token.word.word for token in self.tokens], [token.lead for token in self.tokens])

    def changed(self, **fields: object) -> Piece:
        return self._replace(original=None, **fields)  # type: ignore[arg-type]


class Document:
    """A revision of a transcript."""

    def __init__(self, transcript: Transcript) -> None:
        self.base = transcript
        self.language = language_of_text(transcript)
        self.names: dict[str, str] = {}
        self.merged: dict[str, str] = {}
        self.assigned: list[tuple[float, float, str]] = []
        self.order: list[str] = []
        self.pieces: dict[str, Piece] = {}
        self._home: dict[str, str] = {}
        numbered = 0
        for index, segment in enumerate(transcript.segments):
            words = segment.words or tuple(self._untimed(segment))
            leads = separators([word.word for word in words], segment.text, language_of_text(transcript, segment))
            tokens = tuple(
                Token(f"w{numbered + i}", word, lead) for i, (word, lead) in enumerate(zip(words, leads, strict=True))
            )
            numbered += len(tokens)
            self.order.append(f"s{index}")
            self._keep(Piece(f"s{index}", segment.start, segment.end, segment.speaker, tokens, segment, segment))

    @property
    def joint(self) -> str:
        """What stands between words."""
        return "" if self.language in WITHOUT_SPACES else " "

    def copy(self) -> Document:
        """A document of its own with the same content."""
        other = object.__new__(Document)
        other.__dict__ = {
            name: value.copy() if isinstance(value, dict | list) else value for name, value in self.__dict__.items()
        }
        return other

    def __iter__(self) -> Iterator[Piece]:
        return (self.pieces[id_] for id_ in self.order)

    # -- what it is ---------------------------------------------------------------------------------------------------

    @property
    def speakers(self) -> list[str]:
        """Labels, those of the computed transcript first."""
        used = {piece.speaker for piece in self if piece.speaker is not None}
        first = [label for label in self.base.speakers if label not in self.merged]
        return [*first, *sorted(used - set(first))]

    def segment_of(self, word: str) -> str | None:
        """Id of the segment that holds the word."""
        piece = self.pieces.get(self._home.get(word, ""))
        return piece.id if piece is not None and any(token.id == word for token in piece.tokens) else None

    def transcript(self) -> Transcript:
        """As a transcript, with labels for speakers. Where nothing differs, it is the computed one."""
        whole = tuple(self.base.segments)
        pieces = list(self)
        names = {label: name for label, name in self.names.items() if label in self.speakers}
        same = len(pieces) == len(whole) and all(piece.original is one for piece, one in zip(pieces, whole, strict=True))
        if same and not self.merged and not self.assigned:
            return self.base.model_copy(update={"speaker_names": names}) if names else self.base
        aligned = bool(self.base.word_segments)
        segments = tuple(_segment(piece, aligned=aligned) for piece in pieces)
        return self.base.model_copy(
            update={
                "segments": segments,
                "word_segments": tuple(word for segment in segments for word in segment.words),
                "turns": self._turns(),
                "speakers": tuple(self.speakers),
                "speaker_names": names,
            }
        )

    def _turns(self) -> tuple[Turn, ...]:
        """Who speaks when, as far as segments were given to others."""
        turns = [turn.model_copy(update={"speaker": self._merged_into(turn.speaker)}) for turn in self.base.turns]
        if not turns:
            return ()
        for start, end, speaker in self.assigned:
            kept = [part for turn in turns for part in _outside(turn, start, end)]
            turns = [*kept, Turn(start=start, end=end, speaker=self._merged_into(speaker))]
        return tuple(sorted(turns, key=lambda turn: (turn.start, turn.end)))

    def _merged_into(self, speaker: str) -> str:
        seen = set[str]()
        while speaker in self.merged and speaker not in seen:
            seen.add(speaker)
            speaker = self.merged[speaker]
        return speaker

    # -- changing it --------------------------------------------------------------------------------------------------

    def resolved(self, operations: Iterable[Operation]) -> list[Operation]:
        """The operations, whole texts as the words that they replace in this revision. Raises CannotApply."""
        found: list[Operation] = []
        for operation in operations:
            found += self._replacements(operation) if isinstance(operation, SetText) else [operation]
        return found

    def touched(self, operation: Operation) -> set[str]:
        """What an operation has to do with: two that share nothing can be made in either order."""
        match operation:
            case ReplaceWords(words=words) if words:
                return {f"word {id_}" for id_ in words}
            case ReplaceWords(after=after, segment=segment):
                return {f"word {after}"} if after else {f"segment {segment}"}
            case Split(before=before):
                return {f"word {before}", f"segment {self._home.get(before)}"}
            case Merge(segment=first, next=second):
                return {f"segment {first}", f"segment {second}"}
            case Insert(after=after):
                return {f"place {after}"}
            case Delete(segments=segments):
                theirs = {f"word {token.id}" for id_ in segments if id_ in self.pieces for token in self.pieces[id_].tokens}
                return theirs | {f"{kind} {id_}" for id_ in segments for kind in ("segment", "place")}
            case Assign(segments=segments, speaker=speaker):
                return {f"segment {id_}" for id_ in segments} | {f"speaker {speaker}"}
            case NameSpeaker(speaker=speaker):
                return {f"name {speaker}"}
            case MergeSpeakers(speaker=speaker, into=into):
                return {f"{kind} {label}" for label in (speaker, into) for kind in ("speaker", "name")}
        return {_EVERYTHING}

    def apply(self, operation: Operation, new: Iterator[str]) -> None:
        """Make the change; `new` gives ids. Raises CannotApply, and leaves the document to be thrown away."""
        match operation:
            case ReplaceWords():
                self._replace(operation, new)
            case Split(before=before):
                self._split(before, next(new))
            case Merge(segment=first, next=second):
                self._merge(first, second)
            case Insert():
                self._insert(operation, new)
            case Delete(segments=segments):
                for id_ in segments:
                    self._remove(self._piece(id_))
            case NameSpeaker(speaker=speaker, name=name):
                self._check_speaker(speaker)
                self.names[speaker] = name
                if not name:
                    del self.names[speaker]
            case MergeSpeakers(speaker=speaker, into=into):
                self._merge_speakers(speaker, into)
            case Assign(segments=segments, speaker=speaker):
                for id_ in segments:
                    self._assign(self._piece(id_), speaker)
            case _:
                raise CannotApply(f"The operation {operation.op} does not change a transcript.")

    def _replace(self, edit: ReplaceWords, new: Iterator[str]) -> None:
        piece, first, last = self._span(edit)
        tokens = piece.tokens
        if first < last:
            start, end = tokens[first].word.start, max(token.word.end for token in tokens[first:last])
        else:
            start = tokens[first - 1].word.end if first else piece.start
            end = max(start, tokens[first].word.start if first < len(tokens) else piece.end)
        speaker = tokens[min(first, len(tokens) - 1)].word.speaker if tokens else piece.speaker
        written = self._written(edit.text, start, end, speaker, new)
        tail = tokens[last:]
        if not last and written and tail:
            tail = (tail[0]._replace(lead=self.joint), *tail[1:])
        self._set_tokens(piece, (*tokens[:first], *written, *tail))

    def _span(self, edit: ReplaceWords) -> tuple[Piece, int, int]:
        """The segment, and the first and one past the last of its words that are replaced."""
        if edit.words:
            piece = self._piece_of(edit.words[0])
            ids = [token.id for token in piece.tokens]
            first = ids.index(edit.words[0])
            if tuple(ids[first : first + len(edit.words)]) != edit.words:
                raise CannotApply("The words are no longer next to each other.")
            return piece, first, first + len(edit.words)
        if edit.after is not None:
            piece = self._piece_of(edit.after)
            place = [token.id for token in piece.tokens].index(edit.after) + 1
            return piece, place, place
        if edit.segment is None:
            raise CannotApply("Say which words to replace, or where to insert.")
        return self._piece(edit.segment), 0, 0

    def _split(self, before: str, id_: str) -> None:
        piece = self._piece_of(before)
        place = [token.id for token in piece.tokens].index(before)
        if not place:
            raise CannotApply("A segment begins with that word already.")
        head, tail = piece.tokens[:place], piece.tokens[place:]
        self._keep(piece.changed(end=max(token.word.end for token in head), tokens=head))
        self.order.insert(self.order.index(piece.id) + 1, id_)
        self._keep(piece.changed(id=id_, start=tail[0].word.start, tokens=(tail[0]._replace(lead=""), *tail[1:])))

    def _merge(self, first: str, second: str) -> None:
        one, other = self._piece(first), self._piece(second)
        place = self.order.index(first)
        if self.order[place + 1 : place + 2] != [second]:
            raise CannotApply("The segments do not follow each other.")
        tail = tuple(token._replace(lead=self.joint if not i else token.lead) for i, token in enumerate(other.tokens))
        del self.order[place + 1], self.pieces[second]
        if one.speaker != other.speaker and one.speaker is not None:
            tail = _spoken_by(tail, one.speaker)
            self.assigned.append((other.start, other.end, one.speaker))
        self._keep(one.changed(end=max(one.end, other.end), tokens=(*one.tokens, *tail)))

    def _insert(self, edit: Insert, new: Iterator[str]) -> None:
        place = 0 if edit.after is None else self.order.index(self._piece(edit.after).id) + 1
        before = self.pieces[self.order[place - 1]].start if place else 0.0
        behind = self.pieces[self.order[place]].start if place < len(self.order) else self.base.duration
        if not before <= edit.start <= edit.end or edit.start > behind:
            raise CannotApply("The new segment's time is not between its neighbours'.")
        id_ = next(new)
        tokens = self._written(edit.text, edit.start, edit.end, edit.speaker, new)
        if not tokens:
            raise CannotApply("A segment needs words.")
        self.order.insert(place, id_)
        self._keep(Piece(id_, edit.start, edit.end, edit.speaker, tokens))

    def _merge_speakers(self, speaker: str, into: str) -> None:
        self._check_speaker(speaker)
        self._check_speaker(into)
        if speaker == into:
            raise CannotApply("They are the same speaker.")
        self.merged[speaker] = into
        for piece in list(self):
            if piece.speaker == speaker:
                self._keep(piece.changed(speaker=into, tokens=_spoken_by(piece.tokens, into)))

    def _assign(self, piece: Piece, speaker: str) -> None:
        self.merged.pop(speaker, None)
        self.assigned.append((piece.start, piece.end, speaker))
        self._keep(piece.changed(speaker=speaker, tokens=_spoken_by(piece.tokens, speaker)))

    # -- the parts ----------------------------------------------------------------------------------------------------

    def _replacements(self, edit: SetText) -> Iterator[ReplaceWords]:
        piece = self._piece(edit.segment)
        old, new = [token.word.word for token in piece.tokens], self._words(edit.text)
        ids = [token.id for token in piece.tokens]
        # From the end, so that what is inserted after a word is not in the way of what is replaced before it.
        for kind, i, j, k, m in reversed(difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()):
            text = self.joint.join(new[k:m])
            if kind == "insert":
                yield ReplaceWords(after=ids[i - 1] if i else None, segment=None if i else piece.id, text=text)
            elif kind != "equal":
                yield ReplaceWords(words=tuple(ids[i:j]), text=text)

    def _words(self, text: str) -> list[str]:
        return characters(text) if self.language in WITHOUT_SPACES else text.split()

    def _written(self, text: str, start: float, end: float, speaker: str | None, new: Iterator[str]) -> tuple[Token, ...]:
        """The words of a text, which share a stretch of time by their length."""
        words = self._words(text)
        leads = separators(words, " ".join(text.split()), self.language)
        return tuple(
            Token(
                next(new),
                Word(word=word, start=begin, end=finish, score=1.0, timing="edited", speaker=speaker),
                lead or self.joint,
            )
            for (word, begin, finish), lead in zip(shared_time(words, start, end), leads, strict=True)
        )

    def _untimed(self, segment: Segment) -> Iterator[Word]:
        for word, start, end in shared_time(self._words(segment.text), segment.start, segment.end):
            yield Word(word=word, start=start, end=end, score=0.0, timing="interpolated", speaker=segment.speaker)

    def _set_tokens(self, piece: Piece, tokens: tuple[Token, ...]) -> None:
        if not tokens:
            self._remove(piece)
            return
        self._keep(piece.changed(tokens=(tokens[0]._replace(lead=""), *tokens[1:])))

    def _keep(self, piece: Piece) -> None:
        self.pieces[piece.id] = piece
        self._home |= {token.id: piece.id for token in piece.tokens}

    def _remove(self, piece: Piece) -> None:
        self.order.remove(piece.id)
        del self.pieces[piece.id]

    def _piece(self, id_: str) -> Piece:
        if id_ not in self.pieces:
            raise CannotApply(f"There is no segment {id_}.")
        return self.pieces[id_]

    def _piece_of(self, word: str) -> Piece:
        if (home := self.segment_of(word)) is None:
            raise CannotApply(f"There is no word {word}.")
        return self.pieces[home]

    def _check_speaker(self, speaker: str) -> None:
        if speaker not in self.speakers:
            raise CannotApply(f"There is no speaker {speaker}.")


def replayed(base: Document, revisions: Sequence[Sequence[Operation]]) -> Document:
    """The last of the revisions. Raises CannotApply when one cannot be made without those that were undone."""
    document = base.copy()
    active = in_effect(revisions)
    for number, operations in enumerate(revisions, start=1):
        if active[number - 1]:
            add(document, operations, number)
    return document


def add(document: Document, operations: Iterable[Operation], number: int) -> None:
    """Make the operations of the revision of that number, in place; an undo changes nothing by itself. Raises CannotApply."""
    new = (f"r{number}.{count}" for count in range(1_000_000))
    for operation in operations:
        if not isinstance(operation, Undo):
            document.apply(operation, new)


def in_effect(revisions: Sequence[Sequence[Operation]]) -> list[bool]:
    """Of each revision, whether it is not undone."""
    active = [True] * len(revisions)
    for number in range(len(revisions), 0, -1):
        for operation in revisions[number - 1] if active[number - 1] else ():
            if isinstance(operation, Undo) and operation.revision < number:
                active[operation.revision - 1] = False
    return active


def _spoken_by(tokens: tuple[Token, ...], speaker: str) -> tuple[Token, ...]:
    changes = {"speaker": speaker, "speaker_source": None}
    return tuple(token._replace(word=token.word.model_copy(update=changes)) for token in tokens)


def _segment(piece: Piece, *, aligned: bool) -> Segment:
    if piece.original is not None:
        return piece.original
    words = tuple(token.word for token in piece.tokens) if aligned else ()
    known = piece.source
    return Segment(
        start=piece.start,
        end=piece.end,
        text=piece.text,
        speaker=piece.speaker,
        avg_logprob=known.avg_logprob if known else None,
        no_speech_prob=known.no_speech_prob if known else None,
        language=known.language if known else None,
        words=words,
    )


def _outside(turn: Turn, start: float, end: float) -> Iterator[Turn]:
    """What is left of a turn without that stretch."""
    if turn.end <= start or turn.start >= end:
        yield turn
        return
    if turn.start < start:
        yield turn.model_copy(update={"end": start})
    if turn.end > end:
        yield turn.model_copy(update={"start": end})
