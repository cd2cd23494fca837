"""What an evaluation leaves: a row for each recording and system, what each system's rows add up to, and what has changed."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

from pydantic import Field

from speech.scoring import DiarizationErrors, Scores, ScoringOptions, WordErrors
from stenoflow.errors import StenoError
from stenoflow.types import Frozen

Metric = Literal["wer", "cpwer", "der", "word_times"]


class Row(Frozen):
    """One recording, transcribed by one system."""

    recording: str
    system: str
    reference: str = ""
    """SHA-256 of the files that the truth was read from."""
    model: str = ""
    """The Whisper model that was used, by its full name."""
    duration: float | None = None
    """Of the recording, in seconds."""
    scores: Scores | None = None
    compute_seconds: float | None = None
    """Work of all stages, without loading models, as measured when each was computed: in this run or an earlier one."""
    devices: tuple[str, ...] = ()
    """What the stages were computed on."""
    cost: float | None = None
    """Dollars of that work, by the tables of `infra.prices`; None where no price is known."""
    run: str = ""
    """Id of the flow run that transcribed it."""
    error: str = ""
    """Why it could not be transcribed or scored, wholly or in part."""
    code: str = ""
    exit_code: int = 0

    @property
    def times_real_time(self) -> float | None:
        """Seconds of recording per second of work."""
        return self.duration / self.compute_seconds if self.duration and self.compute_seconds else None


class Overall(Frozen):
    """All recordings of one system together: errors over words, not a mean of rates."""

    system: str
    model: str = ""
    recordings: int
    """That have a score."""
    failed: int = 0
    duration: float = 0.0
    words: WordErrors | None = None
    whisper_words: WordErrors | None = None
    speaker_words: WordErrors | None = None
    timed_words: WordErrors | None = None
    diarization: DiarizationErrors | None = None
    words_timed: int = 0
    start_mae: float | None = None
    """Seconds, over all words that matched and have times."""
    within_200ms: float | None = None
    """Their share with both ends within 0.2 s."""
    speakers_right: int | None = None
    """Recordings with the right number of speakers."""
    speakers_counted: int = 0
    """Recordings whose number of speakers is known."""
    speaker_count_error: float | None = None
    """Mean of how many speakers too many or too few were found."""
    times_real_time: float | None = None
    devices: tuple[str, ...] = ()
    cost_per_hour: float | None = None
    """Dollars per hour of recordings."""


class Delta(Frozen):
    """How one measure differs between two systems on the recordings that both have."""

    metric: Metric
    recordings: int
    before: float
    after: float
    low: float | None = None
    """Lower end of the difference's 95 % interval; None of too few recordings."""
    high: float | None = None

    @property
    def difference(self) -> float:
        """Positive is more errors."""
        return self.after - self.before

    @property
    def verdict(self) -> str:
        """A hint in two or three words."""
        if self.difference == 0:
            return "the same"
        if self.low is None or self.high is None:
            return "too few recordings for a verdict"
        if self.low <= 0 <= self.high:
            return "no clear difference"
        return "better" if self.high < 0 else "worse"


class Comparison(Frozen):
    """One system held against another, of this evaluation or an earlier one."""

    system: str
    baseline: str
    evaluation: str = ""
    """The earlier evaluation, as `name/id`; empty when the baseline is of this one."""
    deltas: tuple[Delta, ...] = ()
    notes: tuple[str, ...] = ()
    """What makes the two less than comparable."""


class Evaluation(Frozen):
    """Everything: what the records keep, and what `--json` and the .json file say."""

    name: str
    id: str
    at: datetime
    run: str = ""
    """Id of the flow run."""
    references: str
    """Without credentials and query."""
    scoring: ScoringOptions
    version: int
    """Of the scoring rules."""
    systems: dict[str, dict[str, Any]]
    """Options by system, as far as they were given."""
    rows: tuple[Row, ...]
    overall: tuple[Overall, ...]
    comparisons: tuple[Comparison, ...] = ()
    warnings: tuple[str, ...] = ()
    files: dict[str, str] = Field(default_factory=dict)
    """Kind to path or URL."""
    previous: str | None = None
    """The id of the evaluation of this name before this one."""

    @property
    def failed(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.error)


class EvaluationIncomplete(StenoError):
    """Some recordings could not be transcribed or scored; `evaluation` has the others."""

    code: ClassVar[str] = "evaluation_incomplete"

    def __init__(self, message: str, evaluation: Evaluation | None = None) -> None:
        super().__init__(message)
        self.evaluation = evaluation
