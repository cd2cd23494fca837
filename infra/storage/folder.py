"""A folder of this machine: files are written aside and moved, locks are flock(2)."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from infra.settings import S3Settings
from infra.storage.aside import move_in, stale_parts, write_file
from infra.storage.base import Lock, StoredFile
from infra.storage.leases import LOCKS, NoLock, warn_once

_URL = ("file://", "local://")
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


class Folder:
    def __init__(self, root: str) -> None:
        self.root = root

    @classmethod
    def at(cls, address: str, s3: S3Settings | None = None) -> Self:
        path = next((address[len(url) :] for url in _URL if address.lower().startswith(url)), address)
        return cls(str(Path(path).expanduser().absolute()))

    def put(self, source: Path, path: str) -> None:
        with source.open("rb") as reader:
            move_in(reader, Path(self.address(path)))

    def write(self, path: str, content: bytes, *, private: bool = False) -> None:
        write_file(Path(self.address(path)), content, private=private)

    def get(self, path: str, target: Path, size: int | None = None) -> None:
        shutil.copyfile(self.address(path), target)
        if size is not None and target.stat().st_size != size:
            raise EOFError(path)

    def read(self, path: str, most: int | None = None, *, start: int = 0) -> bytes:
        with Path(self.address(path)).open("rb") as file:
            file.seek(start)
            return file.read(-1 if most is None else most)

    def size(self, path: str) -> int | None:
        try:
            return Path(self.address(path)).stat().st_size
        except FileNotFoundError:
            return None

    def files(self, folder: str, *, parts: bool = False) -> Iterator[StoredFile]:
        for place, _, names in os.walk(self.address(folder)):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    if parts or not name.startswith("."):
                        status = Path(place, name).stat()
                        path = str(Path(place, name).relative_to(self.root))
                        yield StoredFile(path, status.st_size, status.st_mtime)

    def delete(self, path: str) -> None:
        Path(self.address(path)).unlink()

    def address(self, path: str) -> str:
        return f"{self.root}/{path}"

    def on_disk(self, path: str) -> Path | None:
        return Path(self.address(path))

    def check(self) -> None:
        pass

    def locks(self, lease: float) -> FileLocks:
        return FileLocks(Path(self.root, LOCKS))

    def stale_parts(self, folders: Collection[str], before: float) -> list[str]:
        return stale_parts(self, folders, before)

    def abort_uploads(self, folders: Collection[str], before: float, *, dry_run: bool) -> int:
        return 0


class FileLocks:
    """Of one folder. The kernel releases a lock when its holder dies, whichever way. (On NFS Linux turns it into a lock of the
    file server; mounted with `nolock` it holds on one machine only.)"""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def try_acquire(self, name: str) -> Lock | None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _file_lock(path)
        try:
            lock.acquire()
        except Timeout:
            return None
        except OSError as error:
            if error.errno in _NO_LOCKS:
                warn_once(
                    "The file system of the store does not support locks: concurrent runs of the same recording may compute it twice."
                )
                return NoLock()
            raise
        return _FileLock(path, lock)

    def sweep(self, grace: float, *, dry_run: bool) -> int:
        stale = [file.path for file in Folder(str(self._folder)).files("") if time.time() - file.modified > grace]
        return sum(_remove_unheld(self._folder / path, dry_run) for path in stale)


class _FileLock:
    def __init__(self, path: Path, lock: FileLock) -> None:
        self._path, self._lock = path, lock

    def release(self) -> None:
        if self._lock.is_locked:
            # Removed while it is held: whoever opened it meanwhile sees that it is not the file of that name any more.
            with contextlib.suppress(OSError):
                self._path.unlink()
            self._lock.release()


def _file_lock(path: Path) -> FileLock:
    """Tried once, and never one that the kernel does not release; a run acquires and releases it in different threads."""
    return FileLock(path, blocking=False, thread_local=False, fallback_to_soft=False)


def _remove_unheld(path: Path, dry_run: bool) -> bool:
    try:
        with _file_lock(path):
            if not dry_run:
                path.unlink()
            return True
    except OSError:  # filelock's Timeout as well
        return False
