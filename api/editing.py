"""Revisions of jobs' transcripts: read, paged, changed and compared. What they are is in the store (`infra.edits`)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, ParamSpec, TypeVar

from api.errors import Conflict, JobNotFound
from api.results import expired, read_transcript, transcript_at
from flows.result import TranscribeResult
from infra import waveform
from infra.artifacts import ArtifactRef
from infra.compute import get_store
from infra.edits import EditLog, Entry, changing, read_log, replaced_log, write_log
from infra.store import Store
from speech.carrying import carried
from speech.editing import CannotApply, Document, Piece, add, in_effect, replayed
from stenoflow.edits import (
    ChangedSegment,
    EditedSegment,
    EditedWord,
    EditResult,
    Edits,
    Operation,
    Peaks,
    Revision,
    Revisions,
    SegmentPage,
    Undo,
)
from stenoflow.errors import ArtifactMissing
from stenoflow.types import Transcript, VoiceMatch

P = ParamSpec("P")
T = TypeVar("T")

_PER_SECOND = 20
_MOST_REVISIONS = 20_000


class Overlapping(Conflict):
    """Others have changed the same words meanwhile; `since` is what they did."""

    code = "edits_overlap"

    def __init__(self, detail: str, since: list[Revision], revision: int) -> None:
        super().__init__(detail)
        self.more = {"revision": revision, "since": [one.model_dump(mode="json") for one in since]}


async def in_thread(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """What the function returns. Raises Gone when the job's artifacts were collected."""
    try:
        return await asyncio.to_thread(function, *arguments, **named)
    except ArtifactMissing:
        raise expired() from None


def corrected_at(run: str, result: TranscribeResult, revision: int | None) -> Transcript | None:
    """The transcript of the revision, by default the latest; None where that is the original. Raises JobNotFound where there is none."""
    log = _log_at(run, result, revision)
    return _document(result, log).transcript() if log.entries else None


def segments(run: str, result: TranscribeResult, revision: int | None, first: int, limit: int) -> SegmentPage:
    """Some segments of the revision, counted from 0."""
    log = _log_at(run, result, revision)
    document = _document(result, log)
    shown = document.order[first : first + limit]
    return SegmentPage(
        **_state(document, log),
        language=document.language,
        duration=document.base.duration,
        total=len(document.order),
        segments=[_shown(document.pieces[id_]) for id_ in shown],
    )


def revisions(run: str, result: TranscribeResult) -> Revisions:
    """The whole history."""
    log = _log_at(run, result, None)
    return Revisions(**_state(_document(result, log), log), revisions=_history(log))


def difference(run: str, result: TranscribeResult, revision: int, since: int) -> EditResult:
    """What has to be done to `since` to have the revision."""
    log = _log_at(run, result, revision)
    before = _document(result, _log_at(run, result, since))
    return _changes(before, _document(result, log), log)


def edit(run: str, result: TranscribeResult, edits: Edits, by: str) -> EditResult:
    """Make a new revision; what has changed since the base of the edits. Raises Overlapping, and Conflict for what does not apply."""
    store = get_store()
    with changing(store, run):
        log = _with_carried(store, run, result)
        if edits.base > len(log.entries):
            raise Conflict(f"There is no revision {edits.base}; the latest is {len(log.entries)}.", code="unknown_revision")
        if len(log.entries) >= _MOST_REVISIONS:
            raise Conflict("This transcript has too many revisions.", code="too_many_revisions")
        before, now = _document(result, log.until(edits.base)), _document(result, log)
        try:
            operations = before.resolved(edits.operations)
            _check_overlap(before, operations, log, edits.base)
            entry = Entry(at=datetime.now(UTC), by=by, operations=tuple(operations))
            longer = log.model_copy(update={"entries": (*log.entries, entry)})
            after = _with(result, now, longer)
        except CannotApply as error:
            raise Conflict(f"{error} Load the transcript again.", code="cannot_apply") from None
        if operations:
            write_log(store, run, longer)
        else:
            longer = log
    merged = edits.base < len(log.entries)
    return _changes(before, after, longer).model_copy(update={"merged": merged})


def peaks(audio: ArtifactRef) -> Peaks:
    found = waveform.read_peaks(get_store(), audio)
    return Peaks(
        duration=float(audio.meta.get("duration", len(found) / _PER_SECOND)), per_second=_PER_SECOND, peaks=list(found)
    )


def audio_of(result: TranscribeResult) -> ArtifactRef:
    """The recording. Raises Gone for a job of a release that did not say where it is."""
    if result.audio is None:
        raise expired()
    return result.audio


# -- documents --------------------------------------------------------------------------------------------------------


def _log_at(run: str, result: TranscribeResult, revision: int | None) -> EditLog:
    store = get_store()
    log = read_log(store, run, result.transcript.path)
    if not log.entries and _has_replaced(run, result.transcript.path):
        with changing(store, run):
            log = _with_carried(store, run, result)
    if revision is None:
        return log
    if revision > len(log.entries):
        raise JobNotFound(f"There is no revision {revision}; the latest is {len(log.entries)}.", code="unknown_revision")
    return log.until(revision)


@lru_cache(maxsize=1000)
def _has_replaced(run: str, transcript: str) -> bool:
    """Whether a transcript was corrected in whose place this one is."""
    return replaced_log(get_store(), run, transcript) is not None


def _with_carried(store: Store, run: str, result: TranscribeResult) -> EditLog:
    """The corrections; before there are any, those of the transcript that a retry has replaced, as far as they fit. Under the lock."""
    log = read_log(store, run, result.transcript.path)
    before = replaced_log(store, run, result.transcript.path) if not log.entries else None
    if before is None:
        return log
    try:
        base = Document(read_transcript(transcript_at(before.transcript)))
    except ArtifactMissing:  # collected: nothing can be said of its words
        return log
    found = carried(base, replayed(base, _operations(before.entries)), _base(_facts(result)))
    if found.operations or found.left_out:
        last = before.entries[-1]
        entry = Entry(at=datetime.now(UTC), by=last.by, operations=found.operations, left_out=found.left_out)
        log = log.model_copy(update={"entries": (entry,)})
        write_log(store, run, log)
    return log


def _document(result: TranscribeResult, log: EditLog) -> Document:
    return _cached(_facts(result), log.entries)


def _facts(result: TranscribeResult) -> str:
    """What a document follows from, beside corrections."""
    return result.model_dump_json(include={"transcript", "speaker_matches"})


@lru_cache(maxsize=16)
def _cached(facts: str, entries: tuple[Entry, ...]) -> Document:
    """Not to be changed: `Document.copy` is."""
    return replayed(_base(facts), _operations(entries)) if entries else _base(facts)


@lru_cache(maxsize=4)
def _base(facts: str) -> Document:
    known = json.loads(facts)
    matches = {label: VoiceMatch.model_validate(match) for label, match in known.get("speaker_matches", {}).items()}
    found = read_transcript(ArtifactRef.model_validate(known["transcript"]))
    return Document(found.model_copy(update={"speaker_matches": matches}))


def forget_documents() -> None:
    """Keep nothing of a job that was deleted."""
    _cached.cache_clear()
    _base.cache_clear()
    _has_replaced.cache_clear()


def _with(result: TranscribeResult, now: Document, log: EditLog) -> Document:
    """The document with the last entry of the log. Raises CannotApply."""
    operations = log.entries[-1].operations
    if any(isinstance(operation, Undo) for operation in operations):
        count = len(log.entries)
        if any(isinstance(operation, Undo) and operation.revision >= count for operation in operations):
            raise CannotApply("That revision is not there to be undone.")
        try:
            return replayed(_base(_facts(result)), _operations(log.entries))
        except CannotApply:
            raise CannotApply("Later corrections build on that one; undo them first.") from None
    after = now.copy()
    add(after, operations, len(log.entries))
    return after


def _operations(entries: Sequence[Entry]) -> list[tuple[Operation, ...]]:
    return [entry.operations for entry in entries]


def _check_overlap(before: Document, operations: Sequence[Operation], log: EditLog, base: int) -> None:
    """Raise Overlapping when an operation has to do with what was changed since its base."""
    since = log.entries[base:]
    if not since:
        return
    mine = {name for operation in operations for name in before.touched(operation)}
    theirs = {name for entry in since for operation in entry.operations for name in before.touched(operation)}
    if "*" in mine | theirs or mine & theirs:
        raise Overlapping(
            "The same words, segments or speakers were changed meanwhile; load the transcript again.",
            _history(log)[base:],
            len(log.entries),
        )


# -- what is shown ----------------------------------------------------------------------------------------------------


def _state(document: Document, log: EditLog) -> dict[str, Any]:
    undo, redo = _next(log)
    recognised = {label: match.name for label, match in document.base.speaker_matches.items()}
    return {
        "revision": len(log.entries),
        "speakers": {label: document.names.get(label, recognised.get(label, label)) for label in document.speakers},
        "undo": undo,
        "redo": redo,
    }


def _next(log: EditLog) -> tuple[int | None, int | None]:
    """The revision to undo next, and the undo to undo for a redo: the last ones, until something else is changed."""
    operations = _operations(log.entries)
    active = in_effect(operations)
    undo = redo = None
    for number in range(len(operations), 0, -1):
        undoes = any(isinstance(operation, Undo) for operation in operations[number - 1])
        if active[number - 1] and not undoes:
            undo = number
            break
        if active[number - 1] and undoes and redo is None and _undoes_a_change(operations, number):
            redo = number
    return undo, redo


def _undoes_a_change(operations: Sequence[Sequence[Operation]], number: int) -> bool:
    """Whether the undo is of a change, and not itself a redo."""
    return all(
        not isinstance(inner, Undo)
        for operation in operations[number - 1]
        if isinstance(operation, Undo)
        for inner in operations[operation.revision - 1]
    )


def _history(log: EditLog) -> list[Revision]:
    active = in_effect(_operations(log.entries))
    return [
        Revision(
            revision=number,
            at=entry.at,
            by=entry.by,
            operations=list(entry.operations),
            active=effective,
            left_out=list(entry.left_out),
        )
        for number, (entry, effective) in enumerate(zip(log.entries, active, strict=True), start=1)
    ]


def _changes(before: Document, after: Document, log: EditLog) -> EditResult:
    changed, previous = [], None
    was = dict(zip(before.order, [None, *before.order], strict=False))
    for id_ in after.order:
        piece = after.pieces[id_]
        if before.pieces.get(id_) != piece or was.get(id_) != previous:
            changed.append(ChangedSegment(after=previous, **_shown(piece).model_dump()))
        previous = id_
    removed = [id_ for id_ in before.order if id_ not in after.pieces]
    return EditResult(**_state(after, log), segments=changed, removed=removed)


def _shown(piece: Piece) -> EditedSegment:
    words = [
        EditedWord(
            id=token.id,
            word=token.lead + token.word.word,
            start=round(token.word.start, 3),
            end=round(token.word.end, 3),
            score=round(token.word.score, 3),
            timing=token.word.timing,
        )
        for token in piece.tokens
    ]
    return EditedSegment(id=piece.id, start=piece.start, end=piece.end, speaker=piece.speaker, text=piece.text, words=words)
