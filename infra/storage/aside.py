"""Files of this machine, written aside and then moved: whoever reads meanwhile sees nothing or all of it."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import uuid
from pathlib import Path
from typing import IO


def write_file(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write whole or not at all; nobody but this user may read a `private` file. Raises OSError."""
    move_in(io.BytesIO(content), path, private=private)


def move_in(reader: IO[bytes], path: Path, *, private: bool = False) -> None:
    """The same with what a file holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The part has a longer name than the file, which may have the longest that there is.
    aside = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex}.part")
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
