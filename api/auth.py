"""Who calls: a bearer key, or anybody where no key was made."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request


@dataclass(frozen=True)
class Caller:
    """Whose jobs a request may see."""

    key_id: str
    """Short and public; in the tags of its jobs."""
    name: str


ANYBODY = Caller("anybody", "anybody")


async def caller(request: Request) -> Caller:
    """The caller, by `Authorization: Bearer …`. Raises Unauthenticated."""
    return ANYBODY
