"""What OpenAPI says of the routes under `/v1`, which read their forms themselves."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from api.openai.envelope import ErrorEnvelope
from api.openai.schemas import (
    DiarizedTranscription,
    TextDelta,
    TextDone,
    Transcription,
    TranscriptionForm,
    Translation,
    TranslationForm,
    VerboseTranscription,
)

_MEANING = {
    400: "A parameter is not valid (`param` names it), or the form is incomplete.",
    401: "The API key is missing or not valid.",
    404: "No such model.",
    408: "The body did not arrive in time.",
    409: "The job was canceled during the call.",
    413: "The body is too large.",
    429: "A limit of the key is reached; retry after `Retry-After` seconds.",
    503: "The orchestrator, the store or a model is unavailable.",
    504: "The job takes longer than the limit of a call. It continues under the id in `X-Steno-Job-Id`.",
    507: "No space left.",
}
_ALWAYS = (401, 429, 503)
_REFERENCE = "#/components/schemas/{model}"
_ERROR = {"application/json": {"schema": {"$ref": _REFERENCE.format(model=ErrorEnvelope.__name__)}}}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors that a route can answer, beside those that any can."""
    return {status: {"description": _MEANING[status], "content": _ERROR} for status in sorted({*statuses, *_ALWAYS})} | {
        "default": {"description": "Any other error.", "content": _ERROR}
    }


def answers(*models: str, stream: bool = False) -> dict[int | str, dict[str, Any]]:
    """The transcript in each `response_format`."""
    content: dict[str, Any] = {
        "application/json": {"schema": {"anyOf": [{"$ref": _REFERENCE.format(model=model)} for model in models]}},
        "text/plain": {"schema": {"type": "string"}},
    }
    if stream:
        # Each event's `data` is a TextDelta, SpeakerSegment, TextDone or ErrorEnvelope as JSON, and the last one's `[DONE]`.
        content["text/event-stream"] = {"schema": {"type": "object", "properties": {"data": {"type": "string"}}}}
    header = {"description": "The job: `/transcribes/{job_id}`.", "schema": {"type": "string"}}
    return {200: {"description": "The transcript.", "content": content, "headers": {"X-Steno-Job-Id": header}}}


def _body(form: str) -> dict[str, Any]:
    content = {"multipart/form-data": {"schema": {"$ref": _REFERENCE.format(model=form)}}}
    return {"requestBody": {"required": True, "content": content}}


TRANSCRIPTION = _body("TranscriptionForm")
TRANSLATION = _body("TranslationForm")


def schemas() -> dict[str, dict[str, Any]]:
    """The schemas that the routes only name."""
    models: tuple[type[BaseModel], ...] = (
        ErrorEnvelope,
        Transcription,
        Translation,
        VerboseTranscription,
        DiarizedTranscription,
        TextDelta,
        TextDone,
    )
    found = {model.__name__: model.model_json_schema(ref_template=_REFERENCE) for model in models}
    for form in (TranscriptionForm, TranslationForm):
        schema = form.model_json_schema(ref_template=_REFERENCE)
        schema["properties"] |= {"file": {"type": "string", "format": "binary", "description": "The recording."}}
        schema["required"] = ["file", *schema["required"]]
        found[form.__name__] = schema
    return found
