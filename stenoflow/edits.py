"""Corrections of a transcript: the operations that `PATCH /transcribes/{job_id}/edits` takes, and its answers.

Words and segments are named by ids, which stay the same in all revisions: `w12` and `s3` are the thirteenth word and the fourth
segment as computed; what revision 5 made has ids that begin with `r5.`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from stenoflow.types import Frozen, Timing

Id = Annotated[str, StringConstraints(min_length=1, max_length=64)]
SpeakerLabel = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\s]+$")]
Text = Annotated[str, StringConstraints(max_length=20_000)]


class ReplaceWords(Frozen):
    """Write `text` in the place of adjacent words, whose time it shares. Without `words`, insert it."""

    op: Literal["replace"] = "replace"
    words: tuple[Id, ...] = Field((), max_length=20_000)
    after: Id | None = Field(None, description="Without `words`: the word to insert after.")
    segment: Id | None = Field(None, description="Without `words` and `after`: the segment to insert at the beginning of.")
    text: Text = Field(description="The new words; empty to delete the old ones.")


class SetText(Frozen):
    """Replace the text of a segment. Words that it shares with the old text keep their times. Kept as `replace` operations."""

    op: Literal["text"] = "text"
    segment: Id
    text: Text


class Split(Frozen):
    """Split a segment; the new one begins with this word."""

    op: Literal["split"] = "split"
    before: Id


class Merge(Frozen):
    """Join a segment with the next one, which gets the first one's speaker."""

    op: Literal["merge"] = "merge"
    segment: Id
    next: Id


class Insert(Frozen):
    """Insert a segment."""

    op: Literal["insert"] = "insert"
    after: Id | None = Field(None, description="The segment to insert it after; null for the first place.")
    start: float = Field(ge=0)
    end: float = Field(ge=0)
    text: Text
    speaker: SpeakerLabel | None = None


class Delete(Frozen):
    """Delete segments."""

    op: Literal["delete"] = "delete"
    segments: tuple[Id, ...] = Field(min_length=1)


class NameSpeaker(Frozen):
    """Give a speaker a name; an empty one removes it."""

    op: Literal["name"] = "name"
    speaker: SpeakerLabel
    name: Annotated[str, StringConstraints(strip_whitespace=True, max_length=200)]


class MergeSpeakers(Frozen):
    """Two labels are one speaker."""

    op: Literal["merge_speakers"] = "merge_speakers"
    speaker: SpeakerLabel
    into: SpeakerLabel


class Assign(Frozen):
    """Give segments to a speaker, who may be new."""

    op: Literal["assign"] = "assign"
    segments: tuple[Id, ...] = Field(min_length=1)
    speaker: SpeakerLabel


class Undo(Frozen):
    """Undo a revision. Undoing a revision that is itself an undo restores what that undid."""

    op: Literal["undo"] = "undo"
    revision: int = Field(ge=1)


Operation = Annotated[
    ReplaceWords | SetText | Split | Merge | Insert | Delete | NameSpeaker | MergeSpeakers | Assign | Undo,
    Field(discriminator="op"),
]


class Edits(Frozen):
    """Corrections to a revision. All of them are made, as one new revision, or none."""

    base: int = Field(ge=0, description="The revision that they were made on; 0 is the transcript as computed.")
    operations: tuple[Operation, ...] = Field(min_length=1, max_length=2000)


class Revision(BaseModel):
    """What one `PATCH` changed."""

    revision: int
    at: datetime
    by: str = Field(description="Name of the key.")
    operations: list[Operation]
    active: bool = Field(description="False once it is undone.")
    left_out: list[str] = Field(
        [],
        description="Of the first revision after a retry, which repeats the corrections of the transcript before: those that did not fit.",
    )


class EditedWord(BaseModel):
    """A word of a revision."""

    id: str
    word: str
    start: float
    end: float
    score: float
    timing: Timing


class EditedSegment(BaseModel):
    """A segment of a revision."""

    id: str
    start: float
    end: float
    speaker: str | None = None
    text: str
    words: list[EditedWord]


class State(BaseModel):
    """What a revision is, apart from its segments."""

    revision: int
    speakers: dict[str, str] = Field(description="Label to name; the label itself where there is none.")
    undo: int | None = Field(description="The revision that an undo would undo next.")
    redo: int | None = Field(description="The undo that undoing would restore.")


class SegmentPage(State):
    """Segments of a revision, in order."""

    language: str
    duration: float
    total: int
    segments: list[EditedSegment]


class ChangedSegment(EditedSegment):
    after: str | None = Field(description="The segment that it comes after; null for the first.")


class EditResult(State):
    """What is different from an earlier revision. Remove what was `removed`, then put each segment in its place, in order."""

    merged: bool = Field(False, description="Whether others had made corrections since, which do not overlap.")
    segments: list[ChangedSegment]
    removed: list[str]


class Revisions(State):
    """All revisions, oldest first."""

    revisions: list[Revision]


class Peaks(BaseModel):
    """The waveform: the largest sample of each stretch of time."""

    duration: float
    per_second: int
    peaks: list[int] = Field(description="0 to 255.")
