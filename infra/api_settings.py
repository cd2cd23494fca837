"""Settings of the REST API (`STENO_API__…`) and of its webhooks (`STENO_WEBHOOKS__…`), parts of `infra.settings`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from infra.origins import HostName, Origin


class ApiSettings(BaseModel):
    """The REST service."""

    host: str = Field("127.0.0.1", description="Address to listen on; one that is not loopback needs API keys.")
    port: int = Field(8765, ge=0, le=65535)
    allowed_hosts: tuple[HostName, ...] = Field(
        (),
        description='Further host names that the API answers to, as behind a proxy, as JSON: `["steno.example.com"]`. Those of this machine need not be listed.',
    )
    allowed_origins: tuple[Origin, ...] = Field(
        (), description='Other sites whose pages may call the API, as JSON: `["https://app.example.com"]`.'
    )
    deployment: str = Field("transcribe/one-recording", description="The Prefect deployment whose runs jobs are.")
    require_keys: bool | None = Field(
        None,
        description="Whether callers on this machine need a key; when left out, from the first key that was made on, for good. All others always do.",
    )
    max_body_bytes: int = Field(2 * 2**20, gt=0, description="Largest JSON body that is not an audio chunk.")
    max_upload_bytes: int = Field(2 * 2**30, gt=0, description="Largest uploaded recording.")
    max_chunk_seconds: float = Field(600.0, gt=0, description="Longest audio chunk; it bounds the body that may hold one.")
    upload_days: float = Field(7.0, gt=0, description="Days that uploaded recordings are kept, in case their job is retried.")
    body_timeout: float = Field(60.0, gt=0, description="Seconds without a byte before an upload counts as stalled.")
    max_wait: float = Field(60.0, ge=0, description="Longest `?wait=`, in seconds.")
    openai_wait: float = Field(
        590.0,
        ge=0,
        description="Seconds that an OpenAI-compatible call waits for its transcript; the official clients wait for 600.",
    )
    openai_stream_wait: float = Field(86_400.0, ge=0, description="The same with `stream=true`, where comments keep it alive.")
    pending_jobs: int = Field(100, ge=1, description="Jobs of one owner that may be queued or running at once.")
    rate: float = Field(
        600.0, gt=0, description="Requests per minute and owner; those that change something are counted apart, as many."
    )
    rate_submit: float = Field(120.0, gt=0, description="New jobs per minute and owner.")
    stored_bytes: int = Field(
        100 * 2**30, gt=0, description="Bytes of uploaded recordings of one owner that may be kept at once."
    )
    streams: int = Field(100, ge=1, description="Event streams of one owner that may be open at once.")
    waits: int = Field(100, ge=1, description="Calls of one owner that may wait for a job at once: `?wait=`, and OpenAI's.")
    models: tuple[str, ...] = Field(
        (),
        description='Whisper models that callers may name besides those that `steno models` lists: hub ids, or folders, as JSON: `["owner/name"]`.',
    )
    s3_sources: tuple[str, ...] = Field(
        (),
        description="Buckets, or `bucket/prefix`, that s3:// sources may name, as JSON; none when empty, with `*` any. Never the service's own store.",
    )
    sessions: int = Field(64, ge=1, description="Chunk sessions that are kept at once.")
    session_seconds: float = Field(600.0, gt=0, description="Seconds after its last chunk that a session is kept.")
    warm: bool = Field(False, description="Load the models for audio chunks at the start, not when the first chunk comes.")
    chunk_workers: int = Field(1, ge=0, le=16, description="Processes that transcribe audio chunks; 0 takes none.")
    chunk_queue: int = Field(8, ge=0, le=1000, description="Audio chunks that may wait for one of them.")
    chunk_timeout: float = Field(120.0, gt=0, description="Seconds that one audio chunk may wait, and take.")
    chunk_start_seconds: float = Field(600.0, gt=0, description="Seconds that loading the models for audio chunks may take.")


class WebhookSettings(BaseModel):
    """How owners of jobs are told that they have ended; read by the courier that `steno up` starts beside its worker."""

    delays: tuple[Annotated[float, Field(ge=0, le=7 * 86_400)], ...] = Field(
        (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400),
        max_length=30,
        description="Seconds from a failed attempt to the next, as JSON; after as many and one more it is given up.",
    )
    timeout: float = Field(15.0, gt=0, le=60, description="Seconds that one attempt may take, the answer included.")
    at_once: int = Field(100, ge=1, le=400, description="Attempts that one courier makes at the same time.")
    poll: float = Field(2.0, gt=0, le=60, description="Seconds between two looks for jobs that have ended.")
    rotation_hours: float = Field(
        24.0,
        ge=0,
        description="Hours after `steno keys webhook-secret --rotate` that the secret before is signed with as well.",
    )
