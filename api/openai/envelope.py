"""Errors as OpenAI's clients read them: `{"error": {"message", "type", "param", "code"}}`.

https://platform.openai.com/docs/guides/error-codes. The clients choose their exception by the status, and try again by
themselves at 408, 409, 429 and from 500 on, unless `x-should-retry` forbids it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fastapi import Request, Response
from pydantic import BaseModel

PREFIX = "/v1/"
_STATUS = {415: 400, 422: 400}
"""OpenAI's for what is refused."""
_CODES = {
    "unauthenticated": "invalid_api_key",
    "unknown_model": "model_not_found",
    "not_found": "unknown_url",
    "method_not_allowed": "method_not_supported",
}
_FIELD_CODES = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    "unsupported": "unsupported_parameter",
}


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorEnvelope(BaseModel):
    """An error, as OpenAI's clients read it."""

    error: ErrorDetail


class Refusal(NamedTuple):
    """An error to send later, in a stream or with additional headers."""

    status: int
    code: str
    detail: str
    param: str | None = None
    again: bool = False
    """Whether a retry may succeed, for clients that retry automatically."""


def applies_to(request: Request) -> bool:
    """Whether the request uses OpenAI's API."""
    path: str = request.scope.get("path", "")
    return path.startswith(PREFIX)


def answer(
    status: int,
    code: str,
    detail: str,
    *,
    errors: list[dict[str, Any]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An error of the service, translated."""
    field = errors[0] if errors else {}
    status, body = _translated(status, code, detail, param=field.get("field"), why=field.get("code"))
    return Response(body.model_dump_json(), status_code=status, headers=dict(headers or {}), media_type="application/json")


def refused(refusal: Refusal, headers: Mapping[str, str]) -> Response:
    """The answer to a call whose job has no transcript."""
    status, body = _translated(refusal.status, refusal.code, refusal.detail, param=refusal.param)
    told = {**headers, "x-should-retry": "true" if refusal.again else "false"}
    return Response(body.model_dump_json(), status_code=status, headers=told, media_type="application/json")


def as_event(refusal: Refusal) -> dict[str, Any]:
    """The same as an event of a stream."""
    return _translated(refusal.status, refusal.code, refusal.detail, param=refusal.param)[1].model_dump()


def _translated(status: int, code: str, detail: str, *, param: str | None, why: str | None = None) -> tuple[int, ErrorEnvelope]:
    if code == "unknown_model":
        status, param = 404, "model"
    elif status == 422 and code == "invalid_request":
        code = _FIELD_CODES.get(why or "", "invalid_value")
    elif status == 429:
        code = "rate_limit_exceeded"
    status = _STATUS.get(status, status)
    error = ErrorDetail(message=detail, type=_type(status), param=param or None, code=_CODES.get(code, code))
    return status, ErrorEnvelope(error=error)


def _type(status: int) -> str:
    if status == 429:
        return "requests"
    return "server_error" if status >= 500 else "invalid_request_error"
