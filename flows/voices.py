"""Whose enrolled voices a run compares its speakers with. Its tags say so: parameters are shown to whoever may see the run."""

from __future__ import annotations

from collections.abc import Iterable

from flows.request import TranscribeRequest
from infra.voices import CALL, set_of
from infra.webhooks import SERVICE

OWNER = "owner:"
"""On a job: whose it is, and whose voices are meant."""
KNOWN = "voices:"
"""On a job: the set of voices that came with it."""


def voice_sets(request: TranscribeRequest, tags: Iterable[str]) -> tuple[str, ...]:
    """The sets in the store; none unless the request asks, or voices came with it."""
    given = list(tags)
    came = tuple(tag.removeprefix(KNOWN) for tag in given if tag.startswith(f"{KNOWN}{CALL}"))
    if not request.voices:
        return came
    return (*came, set_of(owner_in(given)))


def owner_in(tags: Iterable[str]) -> str:
    """Whose run it is by its tags; who has no key is SERVICE."""
    return next((tag.removeprefix(OWNER) for tag in tags if tag.startswith(OWNER)), SERVICE)
