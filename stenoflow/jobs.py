"""What the REST API answers, field for field.

The transcript in an answer is as WhisperX has it (`speech.formats.whisperx_json`): a key without a value is left out, and there
may be more of them than are named here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from stenoflow.types import SpeakerSource, Timing

JobStatus = Literal["queued", "downloading", "processing", "completed", "failed", "canceled"]
DeliveryStatus = Literal["pending", "delivered", "dead", "canceled"]
StageState = Literal["pending", "running", "computed", "cached", "skipped", "failed"]
RetryFrom = Literal["fetch", "segment", "asr", "align", "embed", "diarize", "merge"]
WebhookType = Literal["transcribe.completed", "transcribe.failed", "transcribe.canceled"]

_OPEN = ConfigDict(extra="allow")
Seconds = Annotated[float, Field(ge=0, description="Seconds from the recording's, or the session's, beginning.")]
Speaker = Annotated[str, Field(description="`SPEAKER_00`, `SPEAKER_01`, …; left out where nobody was told apart.")]


class Word(TypedDict):
    """A word with its time."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]

    word: str
    start: Seconds
    end: Seconds
    score: Annotated[float, Field(description="The aligner's confidence, 0 to 1.")]
    speaker: NotRequired[Speaker]
    timing: NotRequired[Annotated[Timing, Field(description="What timed it.")]]
    speaker_source: NotRequired[SpeakerSource]


class Segment(TypedDict):
    """A sentence, or a speaker's part of one."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]

    start: Seconds
    end: Seconds
    text: str
    words: NotRequired[Annotated[list[Word], Field(description="With `align`.")]]
    speaker: NotRequired[Speaker]
    avg_logprob: NotRequired[Annotated[float, Field(description="Of the chunk of up to 30 s that it is of.")]]


class SpeakerTurn(TypedDict):
    """One speaker, active from `start` to `end`."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]

    start: Seconds
    end: Seconds
    speaker: Speaker


class TranscriptFile(TypedDict):
    """A transcript as `json`."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]

    language: str
    language_probability: NotRequired[float]
    duration: Annotated[float, Field(description="Seconds of audio.")]
    segments: list[Segment]
    word_segments: list[Word]
    turns: list[SpeakerTurn]
    speakers: list[str]
    options: dict[str, Any]
    models: dict[str, Any]
    versions: dict[str, str]
    warnings: list[str]


class JobAccepted(BaseModel):
    """The job is queued."""

    job_id: str
    status: JobStatus
    message: str


class StageReport(BaseModel):
    """What one stage of the job did."""

    stage: str
    state: StageState
    attempts: int = 0
    seconds: float = 0.0
    cost: float | None = Field(None, description="US dollars; null when no price is known.")
    detail: str = ""


class WebhookDelivery(BaseModel):
    """That a job ended, on its way to `webhook_url`, or there."""

    id: str = Field(description="The `webhook-id` header, the same on every attempt.")
    job_id: str
    type: WebhookType
    status: DeliveryStatus = Field(description="`pending` until it is accepted, or given up as `dead`.")
    attempts: int = Field(ge=0, description="Attempts that were begun.")
    message: str
    created_at: datetime
    updated_at: datetime
    next_attempt_at: datetime | None = Field(None, description="Null unless it is pending.")


class Job(BaseModel):
    """A job. `language`, `segments` and `word_segments` are there once it is completed, `error` once it failed."""

    job_id: str
    status: JobStatus
    progress: float = Field(ge=0, le=100, description="Percent done, counted in audio, not in time.")
    message: str
    name: str = Field("", description="The recording's name, as its owner or its address has it.")
    created_at: datetime
    updated_at: datetime
    language: str | None = None
    segments: list[Segment] | None = None
    word_segments: list[Word] | None = None
    error: str | None = None
    error_code: str | None = None
    degraded: bool = Field(False, description="Speakers were asked for and could not be had.")
    warnings: list[str] = []
    stages: list[StageReport] = []
    duration: float | None = Field(None, description="Seconds of audio.")
    cost: float | None = Field(None, description="US dollars.")
    metadata: dict[str, str] = {}
    tags: list[str] = []
    webhook: WebhookDelivery | None = Field(None, description="There once `webhook_url` is to be told that the job has ended.")
    links: dict[str, str] = Field({}, description="Where to fetch the transcript, by format; relative to this service.")


class JobSummary(BaseModel):
    """A job in a list."""

    job_id: str
    status: JobStatus
    message: str
    created_at: datetime
    updated_at: datetime
    name: str
    metadata: dict[str, str] = {}
    tags: list[str] = []


class JobList(BaseModel):
    """One page of jobs, the newest first."""

    jobs: list[JobSummary]
    next_cursor: str | None = Field(None, description="Give it as `cursor` for the next page; null on the last one.")


class JobRemoved(BaseModel):
    """The job was cancelled and what it made is being removed."""

    message: str
    job_id: str


class ChunkResult(BaseModel):
    """The text of one chunk; its times are those of the session."""

    status: Literal["completed"] = "completed"
    session_id: str = Field(description="Send it with the next chunk, which then continues this one.")
    language: str | None
    segments: list[Segment]
    word_segments: list[Word]


class Health(BaseModel):
    status: Literal["healthy", "unhealthy"]
    service: str = "stenoflow"
    timestamp: datetime
