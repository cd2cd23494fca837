"""What a transcription leaves, and the error that still carries it."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from infra.artifacts import ArtifactRef
from stenoflow.errors import StenoError
from stenoflow.types import Frozen, VoiceMatch
from tasks.reports import StageReport

__all__ = ["DiarizationFailed", "StageReport", "TranscribeResult"]


class TranscribeResult(Frozen):
    """One recording's transcript, where its files are, and how it came about."""

    source_name: str
    transcript: ArtifactRef
    audio: ArtifactRef | None = None
    """The recording as every stage read it; None of results of release 0.1."""
    files: dict[str, str]
    """Format to path or URL, in the order asked for."""
    language: str
    language_probability: float | None = None
    languages: tuple[str, ...] = Field((), exclude_if=lambda value: not value)
    """Where there are several."""
    duration: float
    words: int
    speakers: int
    speaker_matches: dict[str, VoiceMatch] = Field({}, exclude_if=lambda value: not value)
    """Enrolled voices that speakers were recognised by, by label. Not in the transcript's artifact, which every run of the same
    recording shares."""
    stages: tuple[StageReport, ...]
    warnings: tuple[str, ...] = ()
    degraded: bool = False
    """Speakers were requested but are missing; `error` is the reason."""
    total_seconds: float
    """Of the run, and of what a command did for it before Prefect's server was there."""
    cost: float | None = None
    """Dollars in this run, by the tables of `infra.prices`; None where a stage's price is not known."""
    error: str | None = None
    happened: str | None = None
    """`error` without a cure that is the command line's."""


class DiarizationFailed(StenoError):
    """The transcript was exported, without the speakers that were asked for; running again repeats only diarization."""

    code: ClassVar[str] = "diarization_failed"
    exit_code: ClassVar[int] = 7

    def __init__(self, message: str, result: TranscribeResult | None = None) -> None:
        super().__init__(message)
        self.result = result
