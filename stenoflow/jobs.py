"""Responses of the REST API.

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
WebhookType = Literal["transcribe.completed", "transcribe.failed", "transcribe.canceled"]

_OPEN = ConfigDict(extra="allow")
Seconds = Annotated[float, Field(ge=0, description="Seconds from the start of the recording or session.")]
Speaker = Annotated[str, Field(description="`SPEAKER_00`, `SPEAKER_01`, …; omitted without diarization.")]


class Voice(BaseModel):
    """A person's voice that jobs with `voices` recognise. Its embeddings are never shown."""

    voice_id: str
    name: str
    seconds: float = Field(description="Seconds of speech that it was enrolled from.")
    recordings: int
    models: list[str] = Field(description="Diarization models whose jobs can recognise it.")
    consent: str = Field(description="How the person consented, as noted last.")
    enrolled_by: str = Field(description="Name of the key that enrolled it last.")
    created_at: datetime
    updated_at: datetime


class VoiceList(BaseModel):
    voices: list[Voice]


class GlossaryInfo(BaseModel):
    """A glossary that jobs choose by its name."""

    name: str
    text: str = Field(description="As it can be set again.")
    hotwords: int
    replacements: int


class GlossaryList(BaseModel):
    glossaries: list[GlossaryInfo]


class Word(TypedDict):
    """A word with its time."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]

    word: str
    start: Seconds
    end: Seconds
    score: Annotated[float, Field(description="The aligner's confidence, 0 to 1.")]
    speaker: NotRequired[Speaker]
    timing: NotRequired[Annotated[Timing, Field(description="Source of the word's times.")]]
    speaker_source: NotRequired[SpeakerSource]


class Segment(TypedDict):
    """A sentence, or one speaker's part of it."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]

    start: Seconds
    end: Seconds
    text: str
    words: NotRequired[Annotated[list[Word], Field(description="Only with `align`.")]]
    speaker: NotRequired[Speaker]
    channel: NotRequired[Annotated[int, Field(description="From 1, where channels were transcribed separately.")]]
    language: NotRequired[Annotated[str, Field(description="Where several are spoken in the recording.")]]
    avg_logprob: NotRequired[
        Annotated[float, Field(description="Average log probability of the chunk, up to 30 s long, that contains the segment.")]
    ]


class SpeakerTurn(TypedDict):
    """A speaker's turn, from `start` to `end`."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]

    start: Seconds
    end: Seconds
    speaker: Speaker


class TranscriptFile(TypedDict):
    """A transcript as `json`."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]

    language: str
    language_probability: NotRequired[float]
    languages: NotRequired[
        Annotated[list[str], Field(description="Where several are spoken, in the order in which they are first.")]
    ]
    duration: Annotated[float, Field(description="Duration of the audio, in seconds.")]
    segments: list[Segment]
    word_segments: list[Word]
    turns: list[SpeakerTurn]
    speakers: list[str]
    speaker_names: NotRequired[Annotated[dict[str, str], Field(description="By label, where names were given.")]]
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
    """The state and result of a stage."""

    stage: str
    state: StageState
    attempts: int = 0
    seconds: float = 0.0
    cost: float | None = Field(None, description="In US dollars; null if unknown.")
    detail: str = ""


class WebhookDelivery(BaseModel):
    """Delivery of a job's webhook."""

    id: str = Field(description="Value of the `webhook-id` header, the same for every attempt.")
    job_id: str
    type: WebhookType
    status: DeliveryStatus = Field(description="`pending` until it is delivered, or `dead` after the last attempt.")
    attempts: int = Field(ge=0, description="Attempts so far.")
    message: str
    created_at: datetime
    updated_at: datetime
    next_attempt_at: datetime | None = Field(None, description="Null unless pending.")


class Job(BaseModel):
    """A job. `language`, `segments` and `word_segments` are set once it has completed, `error` once it has failed."""

    job_id: str
    status: JobStatus
    progress: float = Field(ge=0, le=100, description="Percent of the audio processed.")
    message: str
    name: str = Field("", description="Name of the recording, as submitted or from its URL.")
    created_at: datetime
    updated_at: datetime
    language: str | None = None
    segments: list[Segment] | None = None
    word_segments: list[Word] | None = None
    error: str | None = None
    error_code: str | None = None
    degraded: bool = Field(False, description="Whether diarization failed and the transcript has no speakers.")
    warnings: list[str] = []
    stages: list[StageReport] = []
    duration: float | None = Field(None, description="Duration of the audio, in seconds.")
    cost: float | None = Field(None, description="In US dollars.")
    metadata: dict[str, str] = {}
    tags: list[str] = []
    webhook: WebhookDelivery | None = Field(None, description="Set once the job has ended, if it has a `webhook_url`.")
    links: dict[str, str] = Field({}, description="URLs of the transcript by format, relative to this service.")


class JobSummary(BaseModel):
    """Summary of a job."""

    job_id: str
    status: JobStatus
    message: str
    created_at: datetime
    updated_at: datetime
    name: str
    metadata: dict[str, str] = {}
    tags: list[str] = []


class JobList(BaseModel):
    """A page of jobs, newest first."""

    jobs: list[JobSummary]
    next_cursor: str | None = Field(None, description="Pass it as `cursor` to get the next page; null on the last page.")


class JobRemoved(BaseModel):
    """The job was cancelled, and its data is being deleted."""

    message: str
    job_id: str


class ChunkResult(BaseModel):
    """The transcript of a chunk. Times are relative to the start of the session."""

    status: Literal["completed"] = "completed"
    session_id: str = Field(description="Send it with the next chunk to continue the session.")
    language: str | None
    segments: list[Segment]
    word_segments: list[Word]


class Health(BaseModel):
    status: Literal["healthy", "unhealthy"]
    service: str = "stenoflow"
    timestamp: datetime
