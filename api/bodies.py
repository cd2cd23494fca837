"""Bodies as they arrive: read piece by piece, within a limit of size, and refused early."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from api.errors import BadRequest, TooLarge, Unprocessable, WrongMediaType
from api.problems import unprocessable

M = TypeVar("M", bound=BaseModel)

_BETWEEN_VALUES = (b"[", b"{", b",")
_MOST_VALUES = 10_000
"""In a body that is large: each takes more memory than it has bytes."""


async def pieces(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body. Raises TooLarge above `limit` bytes, declared or sent. What does not come is `api.ceiling`'s business."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    size = 0
    try:
        async for piece in request.stream():
            size += len(piece)
            if size > limit:
                raise _too_large(limit)
            yield piece
    except ClientDisconnect:
        raise BadRequest("The connection was closed before the body was complete.", code="cut_short") from None


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body exceeds the limit of {limit} bytes.")


def media_type(request: Request) -> str:
    """What the body is said to be; nothing where that is not said, or said more than once."""
    given = request.headers.getlist("content-type")
    return given[0].partition(";")[0].strip().lower() if len(given) == 1 else ""


async def json_body(request: Request, model: type[M], limit: int) -> M:
    """The body as a model. Raises what `json_value` does, and Unprocessable."""
    return checked(await json_value(request, limit), model)


async def json_value(request: Request, limit: int, ordinary: int | None = None) -> Any:
    """The body, of at most `limit` bytes; beyond `ordinary` ones it may only be long because of a text in it.

    Raises WrongMediaType, TooLarge, BadRequest for what is no JSON.
    """
    kind = media_type(request)
    # Without a type, or as text, pages of other sites could send it: browsers ask nobody first.
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise WrongMediaType("Send the body as application/json (or a recording as multipart/form-data).")
    content = bytearray()
    async for piece in pieces(request, limit):
        content += piece
    if ordinary is not None and len(content) > ordinary and sum(map(content.count, _BETWEEN_VALUES)) > _MOST_VALUES:
        raise _too_large(ordinary)
    return await asyncio.to_thread(parsed, content) if len(content) > 1 << 16 else parsed(content)


def parsed(content: bytes | bytearray) -> Any:
    """JSON, without the numbers that are none. Raises BadRequest."""
    try:
        return json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise BadRequest("The body is not valid JSON.", code="invalid_json") from None


def checked(value: Any, model: type[M]) -> M:
    """The value as a model. Raises Unprocessable, also for text that cannot be kept."""
    if not isinstance(value, dict):
        raise Unprocessable("The body must be a JSON object.")
    try:
        found = model.model_validate(value)
    except ValidationError as error:
        raise unprocessable(error) from None
    if _unkeepable(value):
        raise Unprocessable("A text contains a NUL character, which cannot be stored.")
    return found


def _no_number(name: str) -> Any:
    raise ValueError(name)


def _unkeepable(value: Any) -> bool:
    """Whether there is a NUL in it, which PostgreSQL refuses."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_unkeepable(item) for pair in value.items() for item in pair)
    return isinstance(value, list) and any(map(_unkeepable, value))
