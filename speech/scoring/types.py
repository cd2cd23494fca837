"""What scoring takes and gives. Every count is kept, so that recordings are pooled by adding: errors over words, not means of rates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import Field

from stenoflow.types import Frozen

SCORING_VERSION = 2
"""Raised when the same transcript and truth give other numbers, so that older evaluations are not compared with newer ones."""

Activity = tuple[str, float, float]
"""(speaker, start, end) in seconds."""
Span = tuple[float, float]
"""(start, end) in seconds."""


@dataclass(frozen=True)
class Spoken:
    """A word with what is known of it; times in seconds."""

    word: str
    start: float | None = None
    end: float | None = None
    speaker: str | None = None


class ScoringOptions(Frozen):
    """How strictly speakers are scored."""

    collar: float = Field(
        0.0,
        ge=0,
        le=5,
        description="Seconds around the start and end of each reference turn that DER ignores; NIST uses 0.25.",
    )
    skip_overlap: bool = Field(False, description="Exclude overlapping speech from DER.")


class WordErrors(Frozen):
    """Edit distance between two texts, in words (in characters for languages written without spaces)."""

    substitutions: int
    deletions: int
    insertions: int
    reference_words: int

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference word. Words against an empty reference count as if it had one."""
        return self.errors / max(self.reference_words, 1)

    @classmethod
    def pooled(cls, parts: Iterable[WordErrors]) -> WordErrors:
        """All of them as if they were one long recording."""
        parts = list(parts)
        return cls(
            substitutions=sum(part.substitutions for part in parts),
            deletions=sum(part.deletions for part in parts),
            insertions=sum(part.insertions for part in parts),
            reference_words=sum(part.reference_words for part in parts),
        )


class DiarizationErrors(Frozen):
    """Seconds of each kind of error; overlap counts for each speaker in it."""

    missed: float
    false_alarm: float
    confusion: float
    total: float
    """Seconds of reference speech."""

    @property
    def errors(self) -> float:
        return self.missed + self.false_alarm + self.confusion

    @property
    def rate(self) -> float:
        """DER: error seconds per second of reference speech; 1 when there is none of it and some was found all the same."""
        return self.errors / self.total if self.total else float(self.errors > 0)

    @classmethod
    def pooled(cls, parts: Iterable[DiarizationErrors]) -> DiarizationErrors:
        """All of them as if they were one long recording whose speakers are mapped recording by recording."""
        parts = list(parts)
        return cls(
            missed=sum(part.missed for part in parts),
            false_alarm=sum(part.false_alarm for part in parts),
            confusion=sum(part.confusion for part in parts),
            total=sum(part.total for part in parts),
        )


class TimeErrors(Frozen):
    """How far word times are from truth, in seconds, over the `matched` words."""

    matched: int
    start_mae: float
    """Mean distance of the starts."""
    start_median: float
    start_bias: float
    """Mean of hypothesis minus reference: negative is early."""
    end_mae: float
    within_200ms: int
    """Words whose start and end are both within 0.2 s of the truth."""


class SpeakerCount(Frozen):
    """How many speakers there are, and how many were found."""

    true: int
    found: int

    @property
    def error(self) -> int:
        """Found too many (positive) or too few."""
        return self.found - self.true


class Scores(Frozen):
    """One transcript against its truth; None where the truth or the transcript does not say."""

    words: WordErrors | None = None
    whisper_words: WordErrors | None = None
    """The same after Whisper's own normaliser, as published rates are counted."""
    speaker_words: WordErrors | None = None
    """cpWER: the words of each speaker apart."""
    timed_words: WordErrors | None = None
    """tcpWER: cpWER in which words pair only where their times are near; None without meeteval."""
    diarization: DiarizationErrors | None = None
    speakers: SpeakerCount | None = None
    times: TimeErrors | None = None
    language: str
    """Whose rules the texts were normalised by."""
    in_characters: bool = False
    """The errors count characters."""
