"""Every error as an RFC 9457 problem: one sentence, a stable code, and nothing of what went wrong inside."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from api import cures
from api.errors import ApiError, Unprocessable
from api.openai import envelope
from api.schemas import Problem, RefusedField
from stenoflow.errors import AccessError, InputError, StenoError, TransientError

if TYPE_CHECKING:
    from pydantic import ValidationError

MEDIA_TYPE = "application/problem+json"
_CODES = {404: "not_found", 405: "method_not_allowed"}
_STATUS = {
    "run_under_way": 409,
    "nothing_to_retry": 409,
    "run_not_found": 404,
    "artifact_missing": 410,
    "storage_full": 507,
    "source_too_large": 413,
}
"""By the code of an error of the engine's tree, where its branch does not say."""

_log = logging.getLogger(__name__)


def install(app: FastAPI) -> None:
    """Have the application answer every error so."""
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(StenoError, _steno_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


def problem(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    title: str | None = None,
    errors: list[dict[str, Any]] | None = None,
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Response:
    """The answer, with members of its own (RFC 9457, 3.2) where there is `more`; under `/v1` as OpenAI's clients read it."""
    if envelope.applies_to(request):
        return envelope.answer(status, code, detail, errors=errors, headers=headers)
    body = Problem(
        title=title or HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        error=detail,
        instance=request.url.path,
        request_id=getattr(request.state, "request_id", ""),
        errors=[RefusedField.model_validate(item) for item in errors] if errors is not None else None,
        **(more or {}),
    )
    # Lone surrogates in a path cannot be encoded; they are somebody's attempt at something.
    content = body.model_dump_json(exclude_none=True)
    return Response(content, status_code=status, headers=headers, media_type=MEDIA_TYPE)


def refused_fields(error: ValidationError) -> list[dict[str, Any]]:
    """Which fields, and why; never the values, which may be secret or huge."""
    return [
        {
            "field": ".".join(str(part) for part in item["loc"])[:200],
            "message": item["msg"].removeprefix("Value error, ")[:500],
            "code": item["type"],
        }
        for item in error.errors(include_url=False, include_context=False, include_input=False)[:50]
    ]


def unprocessable(error: ValidationError) -> Unprocessable:
    """What pydantic refused, for callers."""
    return _unprocessable(refused_fields(error))


def _unprocessable(fields: list[dict[str, Any]]) -> Unprocessable:
    said = [f"{item['field']}: {item['message']}" if item["field"] else item["message"] for item in fields[:5]]
    return Unprocessable(" ".join(_sentence(line) for line in said) or "The request was rejected.", errors=fields)


def _sentence(line: str) -> str:
    return line if line.endswith((".", "!", "?")) else f"{line}."


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    headers = {"Retry-After": str(max(1, math.ceil(error.retry_after)))} if error.retry_after is not None else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    fields = error.errors if isinstance(error, Unprocessable) else None
    return problem(
        request,
        error.status,
        error.problem_code,
        error.detail,
        title=error.title,
        errors=fields,
        headers=headers,
        more=error.more,
    )


async def _steno_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StenoError)
    status = status_of(type(error))
    if status == 500:
        _log.error("%s: %s", error.code, error.message)
    headers = {"Retry-After": "5"} if status == 503 else {}
    return problem(request, status, error.code, cures.of(error), headers=headers)


def status_of(kind: type[StenoError]) -> int:
    """The status that says what went wrong."""
    if kind.code in _STATUS:
        return _STATUS[kind.code]
    if issubclass(kind, InputError):
        return 422
    return 503 if issubclass(kind, TransientError | AccessError) else 500


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    fields = [
        {
            "field": ".".join(str(part) for part in item["loc"][1:])[:200],
            "message": str(item["msg"]).removeprefix("Value error, ")[:500],
            "code": item["type"],
        }
        for item in error.errors()[:50]
    ]
    return await _api_error(request, _unprocessable(fields))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code
    detail = {404: "Not found: the API has no such path.", 405: "This path does not support that method."}.get(status)
    code = _CODES.get(status, HTTPStatus(status).phrase.lower().replace(" ", "_"))
    headers = {"Allow": _allowed(request)} if status == 405 else error.headers
    return problem(request, status, code, detail or f"{HTTPStatus(status).phrase}.", headers=headers)


def _allowed(request: Request) -> str:
    """The methods of the address. Starlette names those of the first route that matches, and each of ours has one method."""
    # FastAPI wraps what is included (0.150, `fastapi.routing._IncludedRouter`).
    wrapped = [getattr(route, "original_router", None) for route in request.app.routes]
    routes = [*request.app.routes, *(route for router in wrapped if router is not None for route in router.routes)]
    matching = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for route in matching for method in getattr(route, "methods", None) or ()}))


async def _unexpected(request: Request, error: Exception) -> Response:
    # Only its kind: an exception's text may quote anything.
    _log.error("unexpected %s in %s", type(error).__name__, request.scope.get("path"))
    return problem(request, 500, "internal", "Internal error; the service has logged the details.")
