"""Chunks of audio, transcribed at once by a warm worker; a session lets one continue the other."""

from __future__ import annotations

from api.auth import Caller
from api.errors import Unavailable
from api.schemas import ChunkResult, JobRequest


async def transcribe_chunk(body: JobRequest, caller: Caller) -> ChunkResult:
    """The text of `body.audio_chunk`, with the times of its session. Raises Unprocessable, TooLarge and Unavailable."""
    raise Unavailable("The warm worker for audio chunks is not running.")
