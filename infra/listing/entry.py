"""One recording of a list, or one entry of it that cannot be taken."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from stenoflow.types import Frozen


class Item(Frozen):
    """One recording to transcribe."""

    source: str
    """As `TranscribeRequest.source` takes it."""
    name: str
    """For people, and for the output files."""
    origin: str
    """What it is, whatever its content is now: its path, its address without signature, its number in a feed."""
    version: str = ""
    """Changes when the content does: size and time of change, or ETag; empty where there is nothing of the kind."""
    folder: str = ""
    """Where it lies below what was listed, with slashes; outputs are laid out likewise."""
    modified: float | None = None
    """Seconds since 1970."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Of a manifest's row, as they were written."""
    line: int | None = None
    """Of the manifest, from 1."""
    occurrence: int = 0
    """How many rows above name the same recording, with other options."""


class Refused(Frozen):
    """An entry that is reported instead of transcribed."""

    name: str
    message: str
    """One sentence that says why, and what to do."""
    line: int | None = None
    later: bool = False
    """It may be taken next time (a file that still grows): no fault."""


class Left(Frozen):
    """Something beside the recordings that is none of them: no fault, and nothing to transcribe."""

    name: str
    message: str
    """Why, in a few words."""


Entry = Item | Refused | Left
