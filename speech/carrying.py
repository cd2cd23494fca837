"""What people corrected in a transcript, made anew on the one that a retry put in its place (another number of speakers, another model).

Words are found again by their text and order, speakers by when they speak. Segments are computed anew, so splits and merges
are not repeated, except where a speaker changes. Pure: no model, no file, no clock.
"""

from __future__ import annotations

import difflib
import itertools
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from speech.editing import CannotApply, Document, Piece, Token
from speech.sentences import join_words
from stenoflow.edits import Assign, Insert, NameSpeaker, Operation, ReplaceWords, Split

_UNKNOWN = ""


class Carried(NamedTuple):
    """Operations on the new transcript, as its first revision; and what did not fit, a sentence each."""

    operations: tuple[Operation, ...]
    left_out: tuple[str, ...]


class _Change(NamedTuple):
    """Words of the old transcript, by index, in whose place others were written."""

    begin: int
    end: int
    text: str
    start: float


def carried(before: Document, corrected: Document, now: Document) -> Carried:
    """The corrections that lead from `before` to `corrected`, made on `now`."""
    return _Carrying(before, corrected, now).done()


class _Carrying:
    def __init__(self, before: Document, corrected: Document, now: Document) -> None:
        self.before, self.corrected, self.now = before, corrected, now
        self.old, self.new = _tokens(before), _tokens(now)
        self.computed = {token.id for token in self.new}
        self.place = {token.id: index for index, token in enumerate(self.old)}
        """Of each computed word of the old transcript."""
        self.found = _found([token.word.word for token in self.old], [token.word.word for token in self.new])
        """New index by old."""
        self.labels = self._labels()
        """New label by the one that a speaker has in the corrected transcript."""
        self.operations: list[Operation] = []
        self.left_out: list[str] = []
        self.made = 0
        """Ids that the operations so far have given to new words and segments, in the order in which a replay gives them."""

    def done(self) -> Carried:
        targets = self._targets()  # before words go, by whose index they stand
        inserted = [piece for piece in self.corrected if self._is_inserted(piece)]
        for change in self._changes():
            self._write(change)
        for piece in inserted:
            self._insert(piece)
        self._assign(targets)
        for label, name in self.corrected.names.items():
            self._try([NameSpeaker(speaker=self.labels.get(label, label), name=name)], f"the name {name}")
        return Carried(tuple(self.operations), tuple(self.left_out))

    # -- words ------------------------------------------------------------------------------------------------------------

    def _changes(self) -> Iterator[_Change]:
        written: list[Token] = []
        last, start = -1, 0.0
        for piece in self.corrected:
            if self._is_inserted(piece):
                continue
            for token in piece.tokens:
                index = self.place.get(token.id)
                if index is None:
                    start = token.word.start if not written else start
                    # A segment's first word has nothing before it there.
                    written.append(token if token is not piece.tokens[0] else token._replace(lead=self.corrected.joint))
                    continue
                if written or index > last + 1:
                    yield self._change(last + 1, index, written, start)
                last, written = index, []
        if written or last + 1 < len(self.old):
            yield self._change(last + 1, len(self.old), written, start)

    def _change(self, begin: int, end: int, written: list[Token], start: float) -> _Change:
        text = join_words([token.word.word for token in written], [token.lead for token in written])
        return _Change(begin, end, text, self.old[begin].word.start if begin < end else start)

    def _write(self, change: _Change) -> None:
        said = f"“{change.text}” at {change.start:.1f} s" if change.text else f"what was deleted at {change.start:.1f} s"
        places = [self.found.get(index) for index in range(change.begin, change.end)]
        if any(place is None for place in places):
            self.left_out.append(f"{said}: the words that it replaces are no longer there")
            return
        if not places:
            before = self.found.get(change.begin - 1) if change.begin else None
            if before is None and change.begin:
                self.left_out.append(f"{said}: the word before it is no longer there")
            elif before is not None:
                self._try([ReplaceWords(after=self.new[before].id, text=change.text)], said)
            elif self.now.order:
                self._try([ReplaceWords(segment=self.now.order[0], text=change.text)], said)
            return
        text, parts = change.text, []
        for _, group in groupby(
            (self.new[place] for place in places if place is not None), lambda token: self.now.segment_of(token.id)
        ):
            parts.append(ReplaceWords(words=tuple(token.id for token in group), text=text))
            text = ""
        self._try(parts, said)

    def _is_inserted(self, piece: Piece) -> bool:
        return piece.source is None and not any(token.id in self.place for token in piece.tokens)

    def _insert(self, piece: Piece) -> None:
        behind = [id_ for id_ in self.now.order if self.now.pieces[id_].start <= piece.start]
        speaker = self.labels.get(piece.speaker or "", piece.speaker)
        edit = Insert(after=behind[-1] if behind else None, start=piece.start, end=piece.end, text=piece.text, speaker=speaker)
        self._try([edit], f"“{piece.text}” at {piece.start:.1f} s")

    # -- speakers ---------------------------------------------------------------------------------------------------------

    def _labels(self) -> dict[str, str]:
        """By what is said at the same time, so that words which were written anew count as well."""
        shared: Counter[tuple[str, str]] = Counter()
        now = {token.id: piece.speaker for piece in self.now for token in piece.tokens}
        starts = [token.word.start for token in self.new]
        for piece in self.corrected:
            for token in piece.tokens if piece.speaker is not None and starts else ():
                place = bisect_right(starts, (token.word.start + token.word.end) / 2) - 1
                theirs = now[self.new[max(place, 0)].id]
                if theirs is not None and piece.speaker is not None:
                    shared[piece.speaker, theirs] += 1
        labels: dict[str, str] = {}
        for (ours, theirs), _ in shared.most_common():
            if ours not in labels and theirs not in labels.values():
                labels[ours] = theirs
        free = (label for number in itertools.count() if (label := f"SPEAKER_{number:02d}") not in self.now.speakers)
        for ours in self.corrected.speakers:
            if ours not in labels:
                labels[ours] = ours if ours not in self.now.speakers else next(free)
        return labels

    def _targets(self) -> dict[str, str]:
        """Whose each word is that was given to another speaker, by its new id."""
        was = {token.id: piece.speaker for piece in self.before for token in piece.tokens}
        merged = set(self.corrected.merged.values())
        targets: dict[str, str] = {}
        for piece in self.corrected:
            for token in piece.tokens:
                place = self.found.get(self.place.get(token.id, -1))
                given = piece.speaker is not None and (was.get(token.id) != piece.speaker or piece.speaker in merged)
                if place is not None and piece.speaker is not None and given:
                    targets[self.new[place].id] = self.labels.get(piece.speaker, piece.speaker)
        return targets

    def _assign(self, targets: dict[str, str]) -> None:
        for id_ in list(self.now.order):
            piece = self.now.pieces[id_]
            runs = [
                (speaker, [token.id for _, token in group])
                for speaker, group in groupby(zip(self._wanted(piece, targets), piece.tokens, strict=True), lambda one: one[0])
            ]
            for position, (speaker, words) in enumerate(runs):
                if position:
                    self._try([Split(before=words[0])], f"a change of speaker at {piece.start:.1f} s")
                home = self.now.segment_of(words[0])
                if speaker is not None and home is not None and self.now.pieces[home].speaker != speaker:
                    self._try([Assign(segments=(home,), speaker=speaker)], f"the speaker at {piece.start:.1f} s")

    def _wanted(self, piece: Piece, targets: dict[str, str]) -> list[str | None]:
        """Whose each word is. What was written has the speaker of the words around it."""
        known = [targets.get(token.id, piece.speaker) if token.id in self.computed else _UNKNOWN for token in piece.tokens]
        last = next((speaker for speaker in known if speaker != _UNKNOWN), piece.speaker)
        return [last := speaker if speaker != _UNKNOWN else last for speaker in known]

    # -- the document -----------------------------------------------------------------------------------------------------

    def _try(self, operations: Sequence[Operation], said: str) -> None:
        """Make all of them, or none."""
        trial, numbers = self.now.copy(), itertools.count(self.made)
        ids = (f"r1.{number}" for number in numbers)
        try:
            for operation in operations:
                trial.apply(operation, ids)
        except CannotApply as error:
            self.left_out.append(f"{said}: {error}")
            return
        self.now, self.made = trial, next(numbers)
        self.operations += operations


def _tokens(document: Document) -> list[Token]:
    return [token for piece in document for token in piece.tokens]


def _found(old: list[str], new: list[str]) -> dict[int, int]:
    """Where each word is found again: the same texts in the same order."""
    if old == new:
        return {index: index for index in range(len(old))}
    blocks = difflib.SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
    return {block.a + i: block.b + i for block in blocks for i in range(block.size)}
