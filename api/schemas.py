"""What callers send and get, field for field."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from api.transcripts import Segment, Word
from flows.doors import Door, model_at
from flows.options import TranscribeOptions
from flows.request import TranscribeRequest
from flows.webhooks import JobEnd, WebhookType

JobStatus = Literal["queued", "downloading", "processing", "completed", "failed", "canceled"]
DeliveryStatus = Literal["pending", "delivered", "dead", "canceled"]
StageState = Literal["pending", "running", "computed", "cached", "skipped", "failed"]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[\w.:/@+-]+$")]
MetaKey = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[\w.:/@+-]+$")]
MetaValue = Annotated[str, StringConstraints(max_length=512)]
LeftOut = BeforeValidator(lambda value: None if value == "" else value)
"""Older callers send an empty text for what they leave out."""
RetryFrom = Literal["fetch", "segment", "asr", "align", "embed", "diarize", "merge"]


class Body(BaseModel):
    """A body that callers send: what it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


if TYPE_CHECKING:

    class JobOptions(TranscribeOptions):
        name: str | None

    class RetryOptions(TranscribeOptions): ...

else:
    JobOptions = model_at(Door.API, TranscribeRequest, Body, "JobOptions", "How a recording is transcribed.")
    RetryOptions = model_at(Door.RETRY, TranscribeRequest, Body, "RetryOptions", "What is to be different.", changes=True)


class JobRequest(JobOptions):
    """`POST /transcribes` with JSON: a URL to fetch, or a chunk of audio to transcribe at once; exactly one of them."""

    audio_url: Annotated[str | None, LeftOut] = Field(None, max_length=8192, description="http(s) or s3 URL of the recording.")
    audio_chunk: Annotated[str | None, LeftOut] = Field(
        None,
        description="Base64 of a `.npy` file: one channel of float32, float64 or int16 at 16 kHz; answered at once, without a job.",
    )
    session_id: Annotated[str | None, LeftOut] = Field(
        None,
        max_length=128,
        pattern=r"^[\w.:-]*$",
        description="Chunks of one session continue each other. One is made where it is left out; the answer names it.",
    )
    final: bool | None = Field(
        None,
        description="For a chunk: whether it is answered to its last word. With `false` a word that its end cuts comes whole with "
        "the next chunk of the session.",
    )
    metadata: dict[MetaKey, MetaValue] = Field(default_factory=dict, max_length=32, description="Yours; given back as it is.")
    tags: tuple[Tag, ...] = Field((), max_length=16, description="Yours; jobs are listed by them.")
    webhook_url: str | None = Field(
        None,
        min_length=1,
        max_length=2048,
        description="https URL that is told when the job ends, by POST, signed as Standard Webhooks has it.",
    )


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


class WebhookDeliveries(BaseModel):
    """One page of deliveries, the latest first."""

    webhooks: list[WebhookDelivery]
    next_cursor: str | None = Field(None, description="Give it as `cursor` for the next page; null on the last one.")


class WebhookData(BaseModel):
    job_id: str
    status: JobEnd
    url: str = Field(description="Where the job is to be had; relative to this service.")
    metadata: dict[str, str]


class WebhookMessage(BaseModel):
    """What a `webhook_url` is sent when a job ends. Ask for the job itself: this never holds a transcript."""

    type: WebhookType
    timestamp: datetime = Field(description="When the job ended; `webhook-timestamp` is when this attempt was made.")
    data: WebhookData


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
    links: dict[str, str] = Field({}, description="Where the transcript is to be had, by format; relative to this service.")


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


class RetryRequest(RetryOptions):
    """What to do differently; nothing: the same again, of which finished stages are reused."""

    from_: RetryFrom | None = Field(
        None, alias="from", description="Compute this stage and what follows it, although it is cached."
    )


class ChunkResult(BaseModel):
    """The text of one chunk; its times are those of the session."""

    status: Literal["completed"] = "completed"
    session_id: str = Field(description="Send it with the next chunk, which then continues this one.")
    language: str | None
    segments: list[Segment]
    word_segments: list[Word]


class RefusedField(BaseModel):
    """A field that is refused."""

    field: str
    message: str
    code: str


class Problem(BaseModel):
    """An error, as RFC 9457 has it, with the `error` string that older callers read."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    error: str
    instance: str = ""
    request_id: str = ""
    errors: list[RefusedField] | None = None


class Health(BaseModel):
    status: Literal["healthy", "unhealthy"]
    service: str = "stenoflow"
    timestamp: datetime
