"""Chunks of audio, transcribed at once by a warm worker; a session lets one continue the other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

from pydantic import ValidationError

from api import cures, npy
from api.auth import Caller
from api.errors import BadRequest, Unavailable, Unprocessable
from api.problems import unprocessable
from api.schemas import JobRequest
from api.sessions import Sessions
from api.warm import Pool
from flows.doors import Door, options_of
from flows.options import TranscribeOptions
from infra.settings import StenoSettings
from stenoflow.jobs import ChunkResult

_OPTIONS = set(options_of(TranscribeOptions, Door.CHUNK))
_SWEEP = 30.0
"""Seconds between two looks for sessions that have expired."""


class Chunks:
    """The workers, and the sessions."""

    def __init__(self, settings: StenoSettings) -> None:
        self.settings = settings
        self.pool = Pool(settings)
        self.sessions = Sessions.of(settings)

    async def transcribe(self, body: JobRequest, caller: Caller) -> ChunkResult:
        """The text of `body.audio_chunk`, with the times of its session. Raises BadRequest, Unprocessable, TooLarge and Unavailable."""
        assert body.audio_chunk is not None
        params = _params(body, self.settings)
        audio = await asyncio.to_thread(npy.decoded, body.audio_chunk, self.settings.api.max_chunk_seconds)
        key_id, session_id = caller.owned_by, body.session_id or uuid.uuid4().hex
        async with self.sessions.lock(key_id, session_id):
            state = await asyncio.to_thread(self.sessions.load, key_id, session_id)
            parts, state = await self._transcribe(params, audio, state, final=body.final is not False)
            await asyncio.to_thread(self.sessions.save, key_id, session_id, state)
        return _joined(parts, session_id)

    async def _transcribe(
        self, params: dict[str, Any], audio: bytes, state: bytes, *, final: bool
    ) -> tuple[list[dict[str, Any]], bytes]:
        """What each piece of the chunk says, and the session's state after the last one; a word cut by a piece's end is the next one's."""
        parts: list[dict[str, Any]] = []
        pieces = npy.pieces(audio)
        piece = next(pieces)
        while True:
            following = await asyncio.to_thread(next, pieces, None)
            header = {"params": params, "final": final and following is None}
            answer = await self.pool.ask(header, (piece, state))
            if "error" in answer.header:
                raise _error(answer.header)
            parts.append(json.loads(answer.parts[0]))
            state = answer.parts[1]
            if following is None:
                return parts, state
            piece = following

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """While the application runs: workers are started early where the settings say so, and ended at its end."""
        sweeping = asyncio.create_task(self.swept())
        starting = asyncio.create_task(self.pool.start()) if self.settings.api.warm else None
        try:
            yield
        finally:
            for task in (sweeping, starting):
                if task is not None:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
            await self.pool.close()

    async def swept(self) -> None:
        """Drop sessions when they expire, independently of requests."""
        while True:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self.sessions.trim)
            await asyncio.sleep(min(_SWEEP, self.settings.api.session_seconds))


def _params(body: JobRequest, settings: StenoSettings) -> dict[str, Any]:
    """A chunk's options, as `speech.session.ChunkParams` has them. Raises BadRequest and Unprocessable."""
    if body.webhook_url is not None:
        raise BadRequest("A chunk is answered immediately, so `webhook_url` does not apply; leave it out.")
    if body.model not in ("auto", settings.model):
        raise Unprocessable(
            "model: the service transcribes chunks with the model that it keeps loaded; leave `model` out.",
            code="unknown_model",
        )
    try:
        options = TranscribeOptions.model_validate(body.model_dump(include=_OPTIONS))
    except ValidationError as error:
        raise unprocessable(error) from None
    return options.model_dump(include=_OPTIONS) | {"model": settings.model}


def _error(header: dict[str, Any]) -> Exception:
    """What a worker refused, as the caller gets it."""
    detail = cures.message_for_callers(header["error"], header["detail"], header["happened"])
    if header["kind"] == "input":
        return Unprocessable(detail, code=header["error"])
    return Unavailable(detail, retry_after=5.0, code=header["error"])


def _joined(parts: list[dict[str, Any]], session_id: str) -> ChunkResult:
    """What the pieces of a chunk say, as what the chunk does."""
    return ChunkResult(
        session_id=session_id,
        language=parts[-1]["language"],
        segments=[segment for part in parts for segment in part["segments"]],
        word_segments=[word for part in parts for word in part["word_segments"]],
    )
