"""Large bodies, which are held in memory while they are read and answered: a few at a time in one process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from fastapi import Request

from api.errors import Unavailable

_LARGE = 8 << 20
"""Bytes; a minute of float32 in base64 has less."""
_MOST = 4
_held: set[Request] = set()


@contextlib.asynccontextmanager
async def held(request: Request, ordinary: int) -> AsyncIterator[None]:
    """While a body is in hand that is large, or may become so. Raises Unavailable when too many are."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) <= max(_LARGE, ordinary):
        yield
        return
    if len(_held) >= _MOST:
        raise Unavailable("Several long audio chunks are in hand; send this one again.", retry_after=5.0, code="busy")
    _held.add(request)
    try:
        yield
    finally:
        _held.discard(request)
