"""What a submission asks for, checked before a run is made of it."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from api import tags
from api.allowed import check_models
from api.auth import Caller
from api.problems import unprocessable
from api.schemas import JobOptions, JobRequest
from api.voices import UNKNOWN, Known
from flows.request import TranscribeRequest
from infra.handles import concealed, handle_of
from infra.settings import StenoSettings

_HANDLES_OF = "jobs"
"""Other runs of the same address have a handle of their own, so that ours is removed with the last job."""


@dataclass(frozen=True)
class Uploaded:
    """A recording that the store keeps."""

    source: str
    """Where the worker reads it."""
    sha256: str
    name: str
    """What its owner calls it."""
    bytes: int
    held: str
    """Keeps it from being removed until its job is made; see `api.holds`."""


def request_of(body: JobRequest, upload: Uploaded | None, settings: StenoSettings) -> TranscribeRequest:
    """The flow's request. Addresses with secrets in them are concealed: Prefect shows a run's parameters.

    Raises Unprocessable.
    """
    options = body.model_dump(include=set(JobOptions.model_fields) - {"formats"}, exclude_none=True)
    # No files: what callers ask for is rendered from the transcript in the store.
    options |= {"formats": ()}
    if upload is not None:
        options = {"name": upload.name} | options | {"source": upload.source}
    else:
        assert body.audio_url is not None
        options |= {"source": concealed(body.audio_url, settings, shared=True, of=_HANDLES_OF)}
    request = validated(options)
    check_models(request.model, request.align_model, request.diarization_model, request.language, settings)
    return request


def validated(options: dict[str, Any]) -> TranscribeRequest:
    """The request. Raises Unprocessable."""
    try:
        return TranscribeRequest.model_validate(options)
    except ValidationError as error:
        raise unprocessable(error) from None


def source_tag(body: JobRequest, upload: Uploaded | None) -> str | None:
    """The tag of what the store keeps for such a job: its upload, or its address if that holds a secret."""
    if upload is not None:
        return f"{tags.UPLOAD}{upload.sha256}"
    handle = handle_of(body.audio_url or "", _HANDLES_OF)
    return f"{tags.HANDLE}{handle}" if handle else None


def payload_of(body: JobRequest, upload: Uploaded | None, known: Known = UNKNOWN) -> str:
    """What was asked for, as a hash."""
    content = body.model_dump(mode="json") | ({"sha256": upload.sha256, "name": upload.name} if upload else {})
    content |= {"voices_given": known.digest} if known.digest else {}
    return hashed(json.dumps(content, sort_keys=True))[:32]


def run_key(caller: Caller, idempotency_key: str | None) -> str:
    """Prefect's idempotency key: a request that is repeated because its answer was lost makes no second run."""
    return f"api-{hashed(caller.owned_by, idempotency_key)}" if idempotency_key is not None else f"api-{uuid.uuid4()}"


def hashed(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
