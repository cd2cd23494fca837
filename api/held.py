"""Calls that stay open, streams of events and calls that wait: so many of one owner at a time, as each API process counts."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractContextManager

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api.errors import TooMany
from infra.settings import get_settings

_COME_BACK = 5.0
"""Seconds after which a caller who has too many calls open is told to try again."""
_streams: Counter[str] = Counter()
_waits: Counter[str] = Counter()


def stream(owner: str) -> AbstractContextManager[None]:
    """A stream of events of the owner's. Entering it raises TooMany."""
    return _held(_streams, owner, get_settings().api.streams, "event streams")


def wait(owner: str) -> AbstractContextManager[None]:
    """A call of the owner's that waits for a job. Entering it raises TooMany."""
    return _held(_waits, owner, get_settings().api.waits, "waiting calls")


class HeldStream(StreamingResponse):
    """A stream that counts for as long as it is sent; in place of one too many, an error."""

    def __init__(self, held: AbstractContextManager[None], content: AsyncIterator[str], headers: Mapping[str, str]) -> None:
        super().__init__(content, media_type="text/event-stream", headers=headers)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            await super().__call__(scope, receive, send)


@contextlib.contextmanager
def _held(calls: Counter[str], owner: str, most: int, what: str) -> Iterator[None]:
    if calls[owner] >= most:
        raise TooMany(
            f"No more than {most} {what} may be open at once; close some.", retry_after=_COME_BACK, code="too_many_open"
        )
    calls[owner] += 1
    try:
        yield
    finally:
        calls[owner] -= 1
        if not calls[owner]:
            del calls[owner]
