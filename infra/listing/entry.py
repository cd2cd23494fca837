"""One recording of a list, or one entry of it that cannot be taken."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from speech.schema import Frozen

MEDIA = frozenset(
    [
        "aac",
        "ac3",
        "aif",
        "aifc",
        "aiff",
        "alac",
        "amr",
        "ape",
        "au",
        "avi",
        "caf",
        "flac",
        "flv",
        "gsm",
        "m2ts",
        "m4a",
        "m4b",
        "m4v",
        "mka",
        "mkv",
        "mov",
        "mp2",
        "mp3",
        "mp4",
        "mpeg",
        "mpg",
        "mts",
        "mxf",
        "oga",
        "ogg",
        "ogv",
        "opus",
        "ra",
        "rm",
        "snd",
        "spx",
        "ts",
        "tta",
        "voc",
        "vob",
        "w64",
        "wav",
        "weba",
        "webm",
        "wma",
        "wmv",
        "wv",
        "3g2",
        "3gp",
    ]
)
"""Extensions of files that may hold sound. Whether one does, its bytes decide."""


def is_media(name: str) -> bool:
    """Whether a file of this name may be a recording: not hidden, not the part of a download, a known extension."""
    stem, dot, extension = name.rpartition(".")
    return bool(stem) and bool(dot) and not name.startswith((".", "~$")) and extension.lower() in MEDIA


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


class Refused(Frozen):
    """An entry that is reported instead of transcribed."""

    name: str
    message: str
    """One sentence that says why, and what to do."""
    line: int | None = None
    later: bool = False
    """It may be taken next time (a file that still grows): no fault."""


Entry = Item | Refused
