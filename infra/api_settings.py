"""Settings of the REST API (`STENO_API__…`) and of its webhooks (`STENO_WEBHOOKS__…`), parts of `infra.settings`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from infra.origins import HostName, Origin


class ApiSettings(BaseModel):
    """The REST API."""

    host: str = Field("127.0.0.1", description="Address to listen on. API keys are required unless it is loopback.")
    port: int = Field(8765, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    allowed_hosts: tuple[HostName, ...] = Field(
        (),
        description="Additional host names that the API answers to, such as a proxy's, as JSON: `[\"steno.example.com\"]`. This machine's own names are always accepted.",
    )
    allowed_origins: tuple[Origin, ...] = Field(
        (), description='Other web origins that may call the API, as JSON: `["https://app.example.com"]`.'
    )
    deployment: str = Field("transcribe/one-recording", description="Prefect deployment that runs the jobs.")
    require_keys: bool | None = Field(
        None,
        description="Whether callers on this machine need a key. By default they do once the first key has been created, permanently; all other callers always do.",
    )
    max_body_bytes: int = Field(2 * 2**20, gt=0, description="Largest JSON body, in bytes, except for audio chunks.")
    max_upload_bytes: int = Field(2 * 2**30, gt=0, description="Largest uploaded recording, in bytes.")
    max_chunk_seconds: float = Field(
        600.0, gt=0, description="Longest audio chunk, in seconds. It also limits the size of its request."
    )
    upload_days: float = Field(7.0, gt=0, description="Days to keep uploaded recordings, so that their jobs can be retried.")
    body_timeout: float = Field(60.0, gt=0, description="Seconds without data after which an upload is aborted.")
    max_wait: float = Field(60.0, ge=0, description="Longest accepted `?wait=`, in seconds.")
    openai_wait: float = Field(
        590.0,
        ge=0,
        description="Seconds an OpenAI-compatible call waits for its transcript; the official clients time out after 600.",
    )
    openai_stream_wait: float = Field(
        86_400.0, ge=0, description="The same with `stream=true`, where comments keep the connection alive."
    )
    pending_jobs: int = Field(100, ge=1, description="Queued and running jobs per owner.")
    rate: float = Field(
        600.0, gt=0, description="Requests per minute and owner. Reading and changing requests are counted separately."
    )
    rate_submit: float = Field(120.0, gt=0, description="New jobs per minute and owner.")
    stored_bytes: int = Field(100 * 2**30, gt=0, description="Total size of stored uploads per owner, in bytes.")
    streams: int = Field(100, ge=1, description="Concurrent event streams per owner.")
    waits: int = Field(
        100, ge=1, description="Concurrent calls per owner that wait for a job: `?wait=` and OpenAI-compatible ones."
    )
    models: tuple[str, ...] = Field(
        (),
        description='Models that callers may use in addition to those that `steno models` lists: hub IDs or folders, as JSON: `["owner/name"]`.',
    )
    s3_sources: tuple[str, ...] = Field(
        (),
        description="Buckets or `bucket/prefix` that s3:// sources may use, as JSON; `*` allows all. The service's own store is never allowed.",
    )
    sessions: int = Field(64, ge=1, description="Concurrent chunk sessions.")
    session_seconds: float = Field(600.0, gt=0, description="Seconds after its last chunk before a session expires.")
    warm: bool = Field(False, description="Load the models for audio chunks at start-up instead of at the first chunk.")
    chunk_workers: int = Field(1, ge=0, le=16, description="Processes that transcribe audio chunks; 0 rejects chunks.")
    chunk_queue: int = Field(8, ge=0, le=1000, description="Audio chunks that may wait for a free process.")
    chunk_timeout: float = Field(120.0, gt=0, description="Seconds before an audio chunk times out, including its wait.")
    chunk_start_seconds: float = Field(600.0, gt=0, description="Most seconds for loading the models for audio chunks.")


class WebhookSettings(BaseModel):
    """Delivery of webhooks, by the process that `steno up` starts beside its worker."""

    delays: tuple[Annotated[float, Field(ge=0, le=7 * 86_400)], ...] = Field(
        (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400),
        max_length=30,
        description="Seconds between attempts, as JSON. Delivery fails after one attempt more than there are delays.",
    )
    timeout: float = Field(15.0, gt=0, le=60, description="Timeout of one attempt, in seconds, including its response.")
    at_once: int = Field(100, ge=1, le=400, description="Concurrent attempts.")
    poll: float = Field(2.0, gt=0, le=60, description="Seconds between checks for ended jobs.")
    rotation_hours: float = Field(
        24.0,
        ge=0,
        description="Hours after `steno keys webhook-secret --rotate` during which messages are also signed with the previous secret.",
    )
