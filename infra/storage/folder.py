"""A folder of this machine: files are written aside and moved, locks are flock(2)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Self

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

    def read(self, path: str, most: int | None = None) -> bytes:
        with Path(self.address(path)).open("rb") as file:
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
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_ino == path.stat().st_ino:
                    return _FileLock(path, descriptor)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except FileNotFoundError:
                pass  # its last holder removed it after it was opened here
            except OSError as error:
                os.close(descriptor)
                if error.errno in _NO_LOCKS:
                    warn_once("The store's file system has no locks: runs of the same recording may compute it twice.")
                    return NoLock()
                raise
            os.close(descriptor)

    def sweep(self, grace: float, *, dry_run: bool) -> int:
        stale = [file.path for file in Folder(str(self._folder)).files("") if time.time() - file.modified > grace]
        return sum(_remove_unheld(self._folder / path, dry_run) for path in stale)


class _FileLock:
    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor

    def release(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            # Removed while it is held: whoever opened it meanwhile sees that it is not the file of that name any more.
            with contextlib.suppress(OSError):
                self._path.unlink()
            os.close(descriptor)


def _remove_unheld(path: Path, dry_run: bool) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not dry_run and os.fstat(descriptor).st_ino == path.stat().st_ino:
            path.unlink()
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
