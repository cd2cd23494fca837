"""Each process's own folder for temporary files, and removing those of processes that were killed.

A process holds a lock on its folder for as long as it lives, however it ends, and whatever container its number belongs
to. So a folder that another process can lock is unused. Where folders cannot be locked, age decides.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
import weakref
from pathlib import Path

from filelock import lock_descriptor

PREFIX = "of-"
STALE_SECONDS = 2 * 86_400.0
"""Since something was written to it last; longer than any download or stage is silent."""


class OwnFolder:
    """A folder of this process's under `root`, given up when nothing refers to this any more, and at exit.

    Making it removes what dead processes left under `root`. Where it cannot be made it is named nevertheless: whoever writes to it
    then says what is wrong.
    """

    def __init__(self, root: Path) -> None:
        self.path, lock = _made(root)
        weakref.finalize(self, _release, self.path, lock)
        with contextlib.suppress(OSError):
            sweep(root)


def sweep(root: Path) -> int:
    """Remove what killed processes left under `root`; how many files and folders that were."""
    removed = 0
    for entry in os.scandir(root) if root.is_dir() else ():
        if _abandoned(entry):
            removed += 1
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                Path(entry.path).unlink(missing_ok=True)
    return removed


def _made(root: Path) -> tuple[Path, int | None]:
    """The folder, and the descriptor that holds its lock."""
    while True:
        folder = root / f"{PREFIX}{os.getpid()}-{uuid.uuid4().hex[:12]}"
        try:
            folder.mkdir(parents=True)
            descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # swept between the two
        except OSError:
            return folder, None
        try:
            if lock_descriptor(descriptor, blocking=False) and folder.stat().st_ino == os.fstat(descriptor).st_ino:
                return folder, descriptor
        except FileNotFoundError:
            pass
        except OSError:
            if folder.is_dir():  # a file system that locks no folders
                os.close(descriptor)
                return folder, None
        os.close(descriptor)


def _abandoned(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith(PREFIX):
        try:
            descriptor = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return lock_descriptor(descriptor, blocking=False)
        except OSError:
            pass  # no locks here: by age
        finally:
            os.close(descriptor)
    return time.time() - _last_written(entry) > STALE_SECONDS


def _last_written(entry: os.DirEntry[str]) -> float:
    """The latest time of the entry and all below it; now, if unknown."""
    try:
        latest = entry.stat(follow_symlinks=False).st_mtime
        if entry.is_dir(follow_symlinks=False):
            for folder, _, files in os.walk(entry.path):
                latest = max(latest, Path(folder).stat().st_mtime, *(Path(folder, name).lstat().st_mtime for name in files))
    except OSError:
        return time.time()
    return latest


def _release(folder: Path, lock: int | None) -> None:
    """Only an empty folder is removed here: threads may still be writing."""
    with contextlib.suppress(OSError):
        folder.rmdir()
    if lock is not None:
        with contextlib.suppress(OSError):
            os.close(lock)
