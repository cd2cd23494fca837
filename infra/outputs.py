"""Where transcripts and tables are written: a folder of this machine, or any fsspec URL."""

from __future__ import annotations

import contextlib
import errno
import stat
from pathlib import Path

from infra.names import expanded
from infra.settings import StenoSettings
from infra.storage import Storage, open_storage
from infra.storage.aside import write_file


def is_url(target: str) -> bool:
    return "://" in target


def joined(folder: str, name: str) -> str:
    """`name` in `folder`, unless it is a URL or an absolute path itself; paths come out absolute."""
    if is_url(name) or is_url(folder):
        return name if is_url(name) else f"{folder.rstrip('/')}/{name}"
    return str((expanded(folder) / expanded(name)).absolute())


def read(target: str, settings: StenoSettings, *, most: int) -> bytes | None:
    """What is there, up to `most` bytes; None where nothing is. Raises OSError and what the filesystem raises."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if is_url(target):
            storage, name = _opened(target, settings)
            return storage.read(name, most)
        path = Path(target)
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise OSError(errno.EINVAL, "Not a regular file, but a pipe, a socket or a device")  # reading might never end
        with path.open("rb") as file:
            return file.read(most)
    return None


def write(target: str, content: bytes, settings: StenoSettings) -> None:
    """Write whole or not at all: a file aside, then moved. Raises OSError and what the filesystem raises."""
    if is_url(target):
        storage, name = _opened(target, settings)
        storage.write(name, content)
    else:
        write_file(Path(target), content)


def exists(target: str, settings: StenoSettings) -> bool:
    if not is_url(target):
        return Path(target).is_file()
    storage, name = _opened(target, settings)
    return storage.size(name) is not None


def check_bucket(target: str, settings: StenoSettings) -> None:
    """Raise FileNotFoundError, which names it, when the URL's bucket does not exist."""
    _opened(target, settings)[0].check()


def _opened(url: str, settings: StenoSettings) -> tuple[Storage, str]:
    """The folder of a file, and the file's name."""
    scheme, _, place = url.partition("://")
    folder, _, name = place.rpartition("/")
    return open_storage(f"{scheme}://{folder}", settings.s3), name
