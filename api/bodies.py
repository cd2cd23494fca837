"""Bodies as they arrive: read piece by piece, within limits of size and time, and refused early."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from api.errors import BadRequest, TimedOut, TooLarge, Unprocessable, WrongMediaType
from api.problems import unprocessable
from infra.settings import ApiSettings

M = TypeVar("M", bound=BaseModel)

_SLOWEST = 1024
"""Bytes per second: what comes slower for longer than the time-out holds a connection and brings nothing."""


async def pieces(request: Request, settings: ApiSettings, limit: int) -> AsyncIterator[bytes]:
    """The body. Raises TooLarge above `limit` bytes, declared or sent, and TimedOut when it stalls or drips."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    size, began = 0, time.monotonic()
    stream = request.stream()
    while True:
        try:
            piece = await asyncio.wait_for(anext(stream, b""), settings.body_timeout)
        except TimeoutError:
            raise TimedOut(f"No byte of the body arrived for {settings.body_timeout:.0f} s; send it again.") from None
        except ClientDisconnect:
            raise BadRequest("The connection was closed before the body was whole.", code="cut_short") from None
        if not piece:
            return
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        took = time.monotonic() - began
        if took > settings.body_timeout and size < _SLOWEST * took:
            raise TimedOut("The body arrives too slowly; send it again over a better connection.")
        yield piece


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than the {limit} bytes that are taken here.")


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def json_body(request: Request, model: type[M], settings: ApiSettings, limit: int) -> M:
    """The body as a model. Raises WrongMediaType, TooLarge, TimedOut, BadRequest for what is no JSON, Unprocessable."""
    kind = media_type(request)
    if kind not in ("application/json", "") and not kind.endswith("+json"):
        raise WrongMediaType("Send the body as application/json (or a recording as multipart/form-data).")
    content = b"".join([piece async for piece in pieces(request, settings, limit)])
    return checked(await asyncio.to_thread(parsed, content) if len(content) > 1 << 16 else parsed(content), model)


def parsed(content: bytes) -> Any:
    """JSON, without the numbers that are none. Raises BadRequest."""
    try:
        return json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise BadRequest("The body is not JSON.", code="invalid_json") from None


def checked(value: Any, model: type[M]) -> M:
    """The value as a model. Raises Unprocessable, also for text that cannot be kept."""
    if not isinstance(value, dict):
        raise Unprocessable("The body must be a JSON object.")
    try:
        found = model.model_validate(value)
    except ValidationError as error:
        raise unprocessable(error) from None
    if _unkeepable(value):
        raise Unprocessable("A text holds a NUL character, which cannot be kept.")
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
