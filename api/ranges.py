"""Files of the store by ranges of bytes (RFC 9110, 14), so that a player can begin anywhere."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

from fastapi import HTTPException, Response
from fastapi.responses import StreamingResponse

from infra.artifacts import ArtifactRef
from infra.compute import get_store

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_BLOCK = 1 << 20


async def ranged(ref: ArtifactRef, asked: str | None, media_type: str) -> Response:
    """The artifact, or the range of it that is asked for: one; of several the whole is sent. Raises ArtifactMissing, HTTPException."""
    size = await asyncio.to_thread(get_store().audio_bytes, ref)
    headers = {"Accept-Ranges": "bytes", "ETag": f'"{ref.sha256}"', "Cache-Control": "private, no-cache"}
    match = _RANGE.fullmatch(asked.replace(" ", "")) if asked else None
    first, last, status = 0, size - 1, 200
    if match and (match[1] or match[2]):
        first, last = (int(match[1]), int(match[2] or size)) if match[1] else (max(0, size - int(match[2])), size)
        last = min(last, size - 1)
        if first > last:
            raise HTTPException(416, f"The recording has {size} bytes.", {"Content-Range": f"bytes */{size}"})
        status = 206
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    headers["Content-Length"] = str(last - first + 1)
    return StreamingResponse(_blocks(ref, first, last), status, headers, media_type)


async def _blocks(ref: ArtifactRef, first: int, last: int) -> AsyncIterator[bytes]:
    while first <= last:
        block = await asyncio.to_thread(get_store().read_part, ref, first, min(_BLOCK, last - first + 1))
        if not block:
            return
        yield block
        first += len(block)
