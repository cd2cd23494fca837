"""What a transcription leaves, and the error that still carries it."""

from __future__ import annotations

from typing import ClassVar, Literal

from infra.artifacts import ArtifactRef
from speech.errors import StenoError
from speech.schema import Frozen

StageState = Literal["computed", "cached", "skipped", "failed"]


class StageReport(Frozen):
    """What one stage of one run did."""

    stage: str
    """`fetch`, `segment`, `asr`, `align`, `embed`, `diarize`, `merge` or `export`."""
    state: StageState
    seconds: float = 0.0
    """Wall seconds in this run, waiting for retries included."""
    compute_seconds: float | None = None
    """The stage's own work, models loaded included; of the run that computed it when the result was reused."""
    attempts: int = 0
    """Executions in this run; 0 when the result was reused or the stage skipped."""
    backend: str = ""
    device: str = ""
    batch_size: int | None = None
    key: str = ""
    detail: str = ""
    """Why the stage was skipped or failed; never transcript text."""


class TranscribeResult(Frozen):
    """One recording's transcript, where its files are, and how it came about."""

    source_name: str
    transcript: ArtifactRef
    files: dict[str, str]
    """Format to path or URL, in the order asked for."""
    language: str
    language_probability: float | None = None
    duration: float
    words: int
    speakers: int
    stages: tuple[StageReport, ...]
    warnings: tuple[str, ...] = ()
    degraded: bool = False
    """Speakers were asked for and could not be had; `error` says why."""
    total_seconds: float
    error: str | None = None


class DiarizationFailed(StenoError):
    """The transcript was exported, without the speakers that were asked for; running again repeats only diarization."""

    code: ClassVar[str] = "diarization_failed"
    exit_code: ClassVar[int] = 7

    def __init__(self, message: str, result: TranscribeResult | None = None) -> None:
        super().__init__(message)
        self.result = result
