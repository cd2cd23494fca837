"""What callers send and get, field for field."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from flows.doors import Door, model_at
from flows.options import TranscribeOptions
from flows.request import TranscribeRequest
from flows.webhooks import JobEnd
from stenoflow.jobs import RetryFrom, WebhookDelivery, WebhookType

Tag = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[\w.:/@+-]+$")]
MetaKey = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[\w.:/@+-]+$")]
MetaValue = Annotated[str, StringConstraints(max_length=512)]
LeftOut = BeforeValidator(lambda value: None if value == "" else value)
"""Older callers send an empty text for what they leave out."""


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


class WebhookDeliveries(BaseModel):
    """One page of deliveries, the latest first."""

    webhooks: list[WebhookDelivery]
    next_cursor: str | None = Field(None, description="Give it as `cursor` for the next page; null on the last one.")


class WebhookData(BaseModel):
    job_id: str
    status: JobEnd
    url: str = Field(description="Where to fetch the job; relative to this service.")
    metadata: dict[str, str]


class WebhookMessage(BaseModel):
    """What a `webhook_url` is sent when a job ends. Ask for the job itself: this never holds a transcript."""

    type: WebhookType
    timestamp: datetime = Field(description="When the job ended; `webhook-timestamp` is when this attempt was made.")
    data: WebhookData


class RetryRequest(RetryOptions):
    """What to do differently; nothing: the same again, of which finished stages are reused."""

    from_: RetryFrom | None = Field(
        None, alias="from", description="Compute this stage and what follows it, although it is cached."
    )


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
