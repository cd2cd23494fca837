"""Atomic writes of local files: written to a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import IO

from infra.storage.base import Storage

_PART = re.compile(r"\..*\.part")


def part_name(name: str) -> str:
    """What the file of that name is called while it is written. The longest name that there may be leaves no room for more."""
    return f".{name[:100]}.{uuid.uuid4().hex}.part"


def stale_parts(storage: Storage, folders: Collection[str], before: float) -> list[str]:
    """Paths of files below the folders that were last written before that time, and never finished."""
    files = (file for folder in folders for file in storage.files(folder, parts=True))
    return [file.path for file in files if _PART.fullmatch(file.path.rpartition("/")[2]) and 0 < file.modified < before]


def write_file(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write atomically; a `private` file is readable by this user only. Raises OSError."""
    move_in(io.BytesIO(content), path, private=private)


def move_in(reader: IO[bytes], path: Path, *, private: bool = False) -> None:
    """The same with what a file holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(part_name(path.name))
    try:
        if private:
            aside.touch(0o600)
        with aside.open("wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
            writer.flush()
            os.fsync(writer.fileno())
        aside.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            aside.unlink()
