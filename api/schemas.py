"""Requests and responses of the REST API."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from flows.doors import Door, model_at
from flows.options import RedoFrom, TranscribeOptions
from flows.request import TranscribeRequest
from flows.webhooks import JobEnd
from stenoflow.edits import Revision
from stenoflow.jobs import WebhookDelivery, WebhookType

Tag = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[\w.:/@+-]+$")]
MetaKey = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[\w.:/@+-]+$")]
MetaValue = Annotated[str, StringConstraints(max_length=512)]
LeftOut = BeforeValidator(lambda value: None if value == "" else value)
"""Older callers send an empty text for what they leave out."""


class Body(BaseModel):
    """A request body. Unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


if TYPE_CHECKING:

    class JobOptions(TranscribeOptions):
        name: str | None

    class RetryOptions(TranscribeOptions): ...

else:
    JobOptions = model_at(Door.API, TranscribeRequest, Body, "JobOptions", "How a recording is transcribed.")
    RetryOptions = model_at(Door.RETRY, TranscribeRequest, Body, "RetryOptions", "What is to be different.", changes=True)


class JobRequest(JobOptions):
    """`POST /transcribes` with JSON: either a URL to fetch or a chunk of audio to transcribe immediately."""

    audio_url: Annotated[str | None, LeftOut] = Field(None, max_length=8192, description="http(s) or s3 URL of the recording.")
    audio_chunk: Annotated[str | None, LeftOut] = Field(
        None,
        description="A base64-encoded `.npy` file: mono float32, float64 or int16 at 16 kHz. Transcribed immediately, without a job.",
    )
    session_id: Annotated[str | None, LeftOut] = Field(
        None,
        max_length=128,
        pattern=r"^[\w.:-]*$",
        description="Chunks with the same ID continue one another. If omitted, a new session is created and returned.",
    )
    final: bool | None = Field(
        None,
        description="For a chunk: whether it is the last one of its session. With `false`, a word cut off by its end is returned "
        "with the next chunk.",
    )
    metadata: dict[MetaKey, MetaValue] = Field(
        default_factory=dict, max_length=32, description="Your own key-value pairs; returned unchanged."
    )
    tags: tuple[Tag, ...] = Field((), max_length=16, description="Your own tags, for filtering jobs.")
    webhook_url: str | None = Field(
        None,
        min_length=1,
        max_length=2048,
        description="https URL to notify when the job ends: a POST, signed according to Standard Webhooks.",
    )


class VoiceForm(Body):
    """`POST /voices`, beside the recording."""

    name: str = Field(min_length=1, max_length=100, description="Name of the person. Enrolling it again adds a recording.")
    consent: str = Field(
        min_length=1,
        max_length=500,
        description="How the person consented to be recognised by voice, and where that is recorded.",
    )
    diarization_model: str = Field(
        "auto",
        max_length=200,
        description="Diarization model of the jobs that are to recognise the voice. `auto` is the service's default.",
    )


class GlossaryForm(Body):
    """`PUT /glossaries/{name}`."""

    text: str = Field(
        max_length=500_000,
        description="A line each: a hot word, or `heard => written`, which replaces whole words whatever their case. `#` begins a comment.",
    )


class WebhookDeliveries(BaseModel):
    """A page of deliveries, newest first."""

    webhooks: list[WebhookDelivery]
    next_cursor: str | None = Field(None, description="Pass it as `cursor` to get the next page; null on the last page.")


class WebhookData(BaseModel):
    job_id: str
    status: JobEnd
    url: str = Field(description="URL of the job, relative to this service.")
    metadata: dict[str, str]


class WebhookMessage(BaseModel):
    """The body sent to `webhook_url` when a job ends. It never contains a transcript; fetch the job for that."""

    type: WebhookType
    timestamp: datetime = Field(description="When the job ended. `webhook-timestamp` is the time of this attempt.")
    data: WebhookData


class RetryRequest(RetryOptions):
    """Changes for the retry. An empty body retries the failed stages; finished ones are reused."""

    from_: RedoFrom | None = Field(
        None, alias="from", description="Recompute this stage and everything after it, even if cached."
    )


class RefusedField(BaseModel):
    """An invalid field."""

    field: str
    message: str
    code: str


class Problem(BaseModel):
    """An RFC 9457 problem, with an `error` string for older clients."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    error: str
    instance: str = ""
    request_id: str = ""
    errors: list[RefusedField] | None = None
    revision: int | None = Field(None, description="Of a transcript that was changed meanwhile: its latest revision.")
    since: list[Revision] | None = Field(None, description="The revisions since the one that the edits were made on.")
