"""Whether something that is not called like a recording is one: its first bytes decide."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from infra.listing.entry import Left, Refused
from infra.names import OTHERS, WRITTEN, is_media, readable
from speech.sniff import HEAD, document_kind, has_header, looks_like_media

_UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".filepart", ".opdownload", ".!qb", ".tmp", ".aria2")


def judged(path: Path) -> Iterator[Path | Refused | Left]:
    """The file when it may be a recording, or why it is left. Opens it only when its name does not say."""
    if is_media(path.name):
        yield path
        return
    try:
        why = why_left(path.name, lambda: _head(path))
    except OSError as error:
        if known_otherwise(path.name):
            yield Left(name=readable(path.name), message="not a recording, by its name")
            return
        reason = "may not be read by this user" if isinstance(error, PermissionError) else f"cannot be read ({error.strerror})"
        yield Refused(name=readable(path.name), message=f"The file {reason}, so it is not known whether it is a recording.")
        return
    yield Left(name=readable(path.name), message=why) if why else path


def why_left(name: str, head: Callable[[], bytes]) -> str:
    """Why what is called so is no recording; empty when it may be one. `head` reads the first `HEAD` bytes, or raises."""
    if name.startswith("~$") or name.lower().endswith(_UNFINISHED):
        return "an unfinished download, by its name"
    begins = head()
    if not begins:
        return "empty"
    # Text that happens to decode is no recording when its name says so.
    sounds = has_header(begins) if known_otherwise(name) else looks_like_media(begins, name)
    if sounds:
        return ""
    return f"not a recording: {document_kind(begins) or 'neither audio nor video'}"


def known_otherwise(name: str) -> bool:
    return name.rpartition(".")[2].lower() in OTHERS | WRITTEN


def _head(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(HEAD)
