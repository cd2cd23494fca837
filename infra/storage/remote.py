"""Any storage that fsspec reaches. Kinds that can more, or need more care, derive from it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from infra.storage.aside import part_name, stale_parts
from infra.storage.base import Locking, StoredFile
from infra.storage.leases import NoLocks

if TYPE_CHECKING:
    from infra.settings import S3Settings

_TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")

Ask = Callable[..., Any]
"""Calls a function with arguments, as often as its faults may pass; what it raises is for the caller's caller."""


class Found(NamedTuple):
    """A recording's object, as a listing shows it."""

    path: str
    """Bucket and key."""
    info: dict[str, Any]


class Remote:
    whole: ClassVar[bool] = False
    """Whether an upload shows only when it is complete; where not, it is written aside and moved."""
    buckets: ClassVar[bool] = False
    """Whether the first part of a path is something that writing does not create."""
    public: ClassVar[bool] = False
    """Whether a recording may be open to readers without credentials, whom it has to be asked for as such."""
    authority: ClassVar[re.Pattern[str] | None] = None
    """What stands between `://` and the path of a source; None where nothing has to."""

    def __init__(self, fs: Any, root: str) -> None:
        self.fs, self.root = fs, root.rstrip("/")

    # -- opening ------------------------------------------------------------------------------------------------------

    @classmethod
    def at(cls, address: str, s3: S3Settings | None = None) -> Self:
        """Listings are not cached: other machines write here too, and what was listed once says nothing about now."""
        from fsspec.core import url_to_fs

        try:
            fs, path = url_to_fs(address, use_listings_cache=False)
        except TypeError:  # sftp hands options that it does not know on
            fs, path = url_to_fs(address)
        return cls(fs, str(path))

    @classmethod
    def source(cls, url: str, s3: S3Settings, *, anonymous: bool = False) -> tuple[Any, str]:
        """The filesystem that the recording at the URL is read from, whose caller resumes and retries, and the path in it.

        Built from its class, never by `fsspec.open`, so that `::` in a name chains nothing. Raises ImportError or ValueError
        where its package is not installed.
        """
        from fsspec.registry import get_filesystem_class

        kind: Any = get_filesystem_class(url.partition("://")[0])
        options = {"skip_instance_cache": True, "use_listings_cache": False, **cls._source_options(s3, anonymous)}
        return kind(**kind._get_kwargs_from_urls(url), **options), str(kind._strip_protocol(url))

    @classmethod
    def _source_options(cls, s3: S3Settings, anonymous: bool) -> dict[str, Any]:
        return {}

    @classmethod
    def recordings(cls, fs: Any, path: str, ask: Ask, *, deep: bool) -> Iterator[Found]:
        """The objects below the path of a `source`, folder by folder. Raises FileNotFoundError, as `ask` has it, when there are none."""
        waiting = [path]
        while waiting:
            folder = waiting.pop()
            folders = []
            for info in sorted(ask(fs.ls, folder, detail=True), key=lambda info: str(info["name"])):
                if info.get("type") == "directory":
                    folders.append(info["name"])
                else:
                    yield Found(str(info["name"]).lstrip("/"), info)
            if deep:
                waiting += reversed(folders)

    # -- files --------------------------------------------------------------------------------------------------------

    def put(self, source: Path, path: str) -> None:
        full = self._full(path)
        if self.whole:
            self.fs.put_file(str(source), full)
            return
        folder, _, name = full.rpartition("/")
        aside = f"{folder}/{part_name(name)}"
        try:
            self.fs.put_file(str(source), aside)
            self.fs.mv(aside, full)
        except BaseException:
            with contextlib.suppress(Exception):
                self.fs.rm_file(aside)
            raise

    def write(self, path: str, content: bytes, *, private: bool = False) -> None:
        self.fs.pipe_file(self._full(path), content)

    def get(self, path: str, target: Path, size: int | None = None) -> None:
        full = self._full(path)
        announced = int(self.fs.info(full)["size"]) if size is None else size
        self.fs.get_file(full, str(target))
        if target.stat().st_size != announced:
            raise EOFError(path)

    def read(self, path: str, most: int | None = None, *, start: int = 0) -> bytes:
        full = self._full(path)
        if most is not None and int(self.fs.info(full)["size"]) > start + most:
            return bytes(self.fs.cat_file(full, start=start, end=start + most))
        return bytes(self.fs.cat_file(full, start=start or None))

    def size(self, path: str) -> int | None:
        try:
            return int(self.fs.info(self._full(path))["size"])
        except FileNotFoundError:
            return None

    def files(self, folder: str, *, parts: bool = False) -> Iterator[StoredFile]:
        try:
            found = self.fs.find(self._full(folder), detail=True, withdirs=False)
        except FileNotFoundError:
            return
        root = self.fs._strip_protocol(self.root).strip("/")
        for name, info in found.items():
            path = name.strip("/").removeprefix(root).lstrip("/")
            if parts or not path.rpartition("/")[2].startswith("."):
                yield StoredFile(path, int(info.get("size") or 0), _modified(info))

    def delete(self, path: str) -> None:
        self.fs.rm_file(self._full(path))

    def address(self, path: str) -> str:
        return str(self.fs.unstrip_protocol(self._full(path)))

    def on_disk(self, path: str) -> Path | None:
        return None

    def check(self) -> None:
        if self.buckets and not self.fs.exists(bucket := self.root.lstrip("/").partition("/")[0]):
            raise FileNotFoundError(bucket)

    # -- beside files -------------------------------------------------------------------------------------------------

    def locks(self, lease: float) -> Locking:
        return NoLocks()

    def stale_parts(self, folders: Collection[str], before: float) -> list[str]:
        return [] if self.whole else stale_parts(self, folders, before)

    def abort_uploads(self, folders: Collection[str], before: float, *, dry_run: bool) -> int:
        return 0

    def _full(self, path: str) -> str:
        return f"{self.root}/{path}"


def _modified(info: dict[str, Any]) -> float:
    """When the file was written last; filesystems name it differently."""
    value = next((info[name] for name in _TIMES if info.get(name) is not None), 0.0)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return float(value.timestamp() if isinstance(value, datetime) else value)
