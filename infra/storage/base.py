"""What a kind of storage does: its Protocol, and that of its locks.

Methods raise what the filesystem raises, FileNotFoundError for what is not there; `infra.storage_errors` makes our errors of it.
All block: call them from a worker thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

if TYPE_CHECKING:
    from infra.settings import S3Settings


class StoredFile(NamedTuple):
    """A file, as listed."""

    path: str
    """Relative to the storage's root."""
    bytes: int
    modified: float
    """Seconds since 1970, by the clock of whoever keeps the files."""


class Lock(Protocol):
    def release(self) -> None:
        """Give the lock up; returns at once, and may be called again."""


class Locking(Protocol):
    """Exclusive locks by name, as one process takes them."""

    def try_acquire(self, name: str) -> Lock | None:
        """The lock, or None when another holds it."""

    def sweep(self, grace: float, *, dry_run: bool) -> int:
        """Delete locks of killed holders without an attempt to acquire them in `grace` seconds; returns their number."""


class Storage(Protocol):
    """The files of one folder, a local or a remote one, by paths relative to it."""

    root: str

    @classmethod
    def at(cls, address: str, s3: S3Settings | None) -> Self:
        """The folder at the address."""

    def put(self, source: Path, path: str) -> None:
        """Write the file at `source` whole or not at all, replacing any before it."""

    def write(self, path: str, content: bytes, *, private: bool = False) -> None:
        """The same with bytes. In a local folder, a `private` file is readable by this user only."""

    def get(self, path: str, target: Path, size: int | None = None) -> None:
        """Copy a file to `target`. Raises EOFError when it does not have `size` bytes, or as many as it is said to have."""

    def read(self, path: str, most: int | None = None, *, start: int = 0) -> bytes:
        """Its bytes from `start` on, all or the first `most`."""

    def size(self, path: str) -> int | None:
        """Its bytes; None when nothing is there."""

    def files(self, folder: str, *, parts: bool = False) -> Iterator[StoredFile]:
        """All files below `folder`; those whose name begins with a dot, as those being written do, only with `parts`."""

    def delete(self, path: str) -> None: ...

    def address(self, path: str) -> str:
        """Where the file is: a path of this machine, or a URL."""

    def on_disk(self, path: str) -> Path | None:
        """Where the file lies on this machine; None if it has to be copied."""

    def check(self) -> None:
        """Raise FileNotFoundError when files can be written here only once their bucket exists."""

    def locks(self, lease: float) -> Locking:
        """Its locks; a holder that is gone loses them after `lease` seconds at most."""

    def stale_parts(self, folders: Collection[str], before: float) -> list[str]:
        """Paths of files that were being written at that time and are not now."""

    def abort_uploads(self, folders: Collection[str], before: float, *, dry_run: bool) -> int:
        """Abort uploads in parts that were begun before that time, where the service keeps them; how many there are."""
