"""What registering did, thing by thing."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Change(NamedTuple):
    """One thing that was looked at, and what became of it."""

    kind: Literal["work pool", "deployment", "automation"]
    name: str
    what: Literal["created", "updated", "unchanged", "removed"]
