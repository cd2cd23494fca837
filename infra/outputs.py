"""Where transcripts and tables are written: a folder of this machine, or any fsspec URL."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import uuid
from pathlib import Path
from typing import Any

from infra.names import expanded
from infra.settings import StenoSettings

_opened: dict[str, tuple[StenoSettings, Any]] = {}


def is_url(target: str) -> bool:
    return "://" in target


def joined(folder: str, name: str) -> str:
    """`name` in `folder`, unless it is a URL or an absolute path itself; paths come out absolute."""
    if is_url(name) or is_url(folder):
        return name if is_url(name) else f"{folder.rstrip('/')}/{name}"
    return str((expanded(folder) / expanded(name)).absolute())


def filesystem(url: str, settings: StenoSettings) -> tuple[Any, str]:
    """The filesystem that the URL leads to, kept open since connecting is slow, and the path in it."""
    from fsspec.core import url_to_fs

    place = url.partition("://")[0] if url.startswith("s3://") else ""
    if place and place in _opened and _opened[place][0] is settings:
        fs = _opened[place][1]
        return fs, str(fs._strip_protocol(url))
    if place:
        from infra.s3_files import PatientS3

        fs = PatientS3.of(settings.s3)
        _opened[place] = (settings, fs)
        return fs, str(fs._strip_protocol(url))
    fs, path = url_to_fs(url)
    return fs, str(path)


def read(target: str, settings: StenoSettings, *, most: int) -> bytes | None:
    """What is there, up to `most` bytes; None where nothing is. Raises OSError and what the filesystem raises."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if is_url(target):
            fs, place = filesystem(target, settings)
            return bytes(fs.cat_file(place, start=0, end=most)) if fs.exists(place) else None
        path = Path(target)
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise OSError(errno.EINVAL, "Not a file, but a pipe, a socket or a device")  # reading might never end
        with path.open("rb") as file:
            return file.read(most)
    return None


def write(target: str, content: bytes, settings: StenoSettings) -> None:
    """Write whole or not at all: a file aside, then moved. Raises OSError and what the filesystem raises."""
    if is_url(target):
        fs, place = filesystem(target, settings)
        fs.pipe_file(place, content)
        return
    write_file(Path(target), content)


def write_file(path: Path, content: bytes) -> None:
    """Write whole or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex[:8]}.part")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            aside.unlink()


def exists(target: str, settings: StenoSettings) -> bool:
    if not is_url(target):
        return Path(target).is_file()
    fs, path = filesystem(target, settings)
    return bool(fs.exists(path))
