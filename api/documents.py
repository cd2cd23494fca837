"""What OpenAPI says of errors and of bodies that the routes read themselves."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from api.openai import documents as openai
from api.problems import MEDIA_TYPE
from api.schemas import GlossaryForm, JobRequest, Problem, RetryRequest, VoiceForm
from stenoflow.edits import Edits
from stenoflow.jobs import TranscriptFile

_MEANING = {
    400: "The request is malformed or contradictory.",
    401: "The API key is missing or not valid.",
    403: "The key does not allow this.",
    404: "The job does not exist or belongs to another owner; `job_deleted` if it was deleted.",
    408: "The body did not arrive in time.",
    409: "Not allowed in the current state of the job.",
    410: "The result of the job has expired.",
    413: "The body is too large.",
    415: "The body must be JSON or multipart/form-data.",
    416: "The range is beyond the end.",
    422: "A value is not valid.",
    429: "A limit of the key is reached; retry after `Retry-After` seconds.",
    503: "The orchestrator, the store or the warm worker is unavailable.",
    507: "No space left.",
}
_SCHEMAS = "#/components/schemas/{model}"
_PROBLEM = {MEDIA_TYPE: {"schema": {"$ref": _SCHEMAS.format(model="Problem")}}}
_ALWAYS = (401, 429, 503)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors that a route can answer, beside those that any can."""
    return {status: {"description": _MEANING[status], "content": _PROBLEM} for status in sorted({*statuses, *_ALWAYS})} | {
        "default": {"description": "Any other error.", "content": _PROBLEM}
    }


def _reference(model: str) -> dict[str, str]:
    return {"$ref": _SCHEMAS.format(model=model)}


SUBMISSION = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _reference("JobRequest")},
            "multipart/form-data": {"schema": _reference("JobUpload")},
        },
    }
}
RETRY = {"requestBody": {"required": False, "content": {"application/json": {"schema": _reference("RetryRequest")}}}}
ENROLMENT = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _reference("VoiceUpload")}}}}
GLOSSARY = {"requestBody": {"required": True, "content": {"application/json": {"schema": _reference("GlossaryForm")}}}}
EDITS = {"requestBody": {"required": True, "content": {"application/json": {"schema": _reference("Edits")}}}}


def operation_id(route: APIRoute) -> str:
    """What generators call the method: the function's name, which no other route shares."""
    return route.name


def describe(app: FastAPI) -> None:
    """Have the application's OpenAPI document hold the schemas that routes only name."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                webhooks=app.webhooks.routes,
                tags=app.openapi_tags,
            )
            schemas = found.setdefault("components", {}).setdefault("schemas", {})
            for model in (JobRequest, RetryRequest, Edits, GlossaryForm, Problem):
                _add(schemas, model.__name__, model.model_json_schema(ref_template=_SCHEMAS))
            _add(schemas, "JobUpload", _upload())
            _add(schemas, "VoiceUpload", _with_recording(VoiceForm.model_json_schema(ref_template=_SCHEMAS)))
            _add(schemas, "TranscriptFile", TypeAdapter(TranscriptFile).json_schema(ref_template=_SCHEMAS))
            for name, schema in openai.schemas().items():
                _add(schemas, name, schema)
            found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            found["security"] = [{"key": []}, {}]
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _add(schemas: dict[str, Any], name: str, schema: dict[str, Any]) -> None:
    for other, inner in schema.pop("$defs", {}).items():
        schemas.setdefault(other, inner)
    schemas[name] = schema


def _with_recording(form: dict[str, Any]) -> dict[str, Any]:
    recording = {"type": "string", "format": "binary", "description": "A recording of this person alone."}
    return form | {
        "title": "VoiceUpload",
        "properties": {"file": recording, **form["properties"]},
        "required": ["file", *form["required"]],
    }


def _upload() -> dict[str, Any]:
    """A submission as a form: the recording, and the options as fields."""
    schema = JobRequest.model_json_schema(ref_template=_SCHEMAS)
    properties = {
        name: field
        for name, field in schema["properties"].items()
        if name not in ("audio_chunk", "session_id", "final", "audio_url")
    }
    properties["metadata"] = {"type": "string", "contentMediaType": "application/json", "description": "A JSON object."}
    recording = {"type": "string", "format": "binary", "description": "The recording."}
    return {
        "type": "object",
        "title": "JobUpload",
        "description": "A recording and its options. Repeat a list's field, or separate its values with commas.",
        "properties": {"file": recording, **properties},
        "required": ["file"],
        "additionalProperties": False,
    }
