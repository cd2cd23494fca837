"""How much one caller may ask for. Every function raises TooMany (with `Retry-After`) or TooLarge."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from api.auth import Caller


async def may_request(caller: Caller) -> None:
    """Requests per minute."""


async def may_submit(caller: Caller, pending: Callable[[], Awaitable[int]]) -> None:
    """New jobs per minute, and jobs that wait or run at once; `pending` counts those."""
