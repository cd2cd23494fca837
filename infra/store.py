"""The artifact store: content-addressed files and small records on one fsspec URL.

Layout under the root::

    artifacts/<kind>/<aa>/<sha256><suffix>   immutable, written aside and moved (folder) or committed whole (object store)
    records/<name>                           small JSON: what a stage key led to, how a run ended, what runs use
    locks/<name>                             while something is computed (`infra.locks`)
    uploads/<aa>/<sha256><suffix>            recordings that the REST API was sent

A reader never sees a half-written file: on a folder the move is atomic, on an object store the upload is. What is
copied from an object store is checked against its size and hash.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from infra import usage
from infra.artifacts import SUFFIXES, ArtifactRef, Kind
from infra.errors import ArtifactMissing, OutputNotWritable, StorageFull
from infra.remote_errors import RemoteFault, remote_fault
from infra.scratch import own_folder
from speech.errors import StenoError, TransientError

if TYPE_CHECKING:
    from infra.settings import S3Settings, StenoSettings

_OBJECT_STORES = {"s3", "gs", "abfs", "adl"}
"""Where an upload shows only when it is whole; elsewhere it is written aside and moved."""
_S3 = ("s3://", "s3a://")
_ATTEMPTS_AT_A_COPY = 2
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")
_UNWRITABLE = (errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)


class StoredFile(NamedTuple):
    """A file in the store, as listed."""

    path: str
    """Relative to the store's root."""
    bytes: int
    modified: float
    """Seconds since 1970, by the clock of whoever keeps the files."""


class Store:
    """Artifacts and records under one fsspec URL. Synchronous: call it from a worker thread."""

    def __init__(self, url: str, scratch: Path, s3: S3Settings | None = None) -> None:
        self.fs, self.root = _opened(url, s3)
        self.root = self.root.rstrip("/")
        self.url = url
        self.is_s3 = url.startswith(_S3)
        self.is_local = self.fs.protocol == "file" or "file" in self.fs.protocol
        self.scratch = scratch

    @classmethod
    def from_settings(cls, settings: StenoSettings) -> Store:
        return cls(settings.store_url, own_folder(settings.scratch_path), settings.s3)

    # -- artifacts ----------------------------------------------------------------------------------------------------

    def put(
        self, source: Path, kind: Kind, *, sha256: str | None = None, meta: dict[str, Any] | None = None, by: str = ""
    ) -> ArtifactRef:
        """Keep the file at `source` as an artifact and return its reference.

        `sha256` names the content where the bytes do not (audio is named by its samples), `by` the key that led to it.
        An artifact that is already
        there is not written again, unless it has another size than its content (a damaged disk). Raises StorageFull
        when there is no space, OutputNotWritable when the store may not be written, and TransientError when it cannot
        be reached.
        """
        digest = sha256 or file_sha256(source)
        path = f"artifacts/{kind}/{digest[:2]}/{digest}{SUFFIXES[kind]}"
        size = source.stat().st_size
        stored = self._size(path)
        if stored is not None and (sha256 is not None or stored == size) and usage.claimed(self, path, by):
            size = stored
        else:
            self._commit(source, path)
        return ArtifactRef(kind=kind, path=path, sha256=digest, bytes=size, meta=meta or {})

    @contextlib.contextmanager
    def local(self, ref: ArtifactRef) -> Iterator[Path]:
        """A local file with the artifact's content, valid inside the block; not to be written to.

        Raises ArtifactMissing when it is gone or damaged, StorageFull when there is no space for the copy.
        """
        if self.is_local:
            path = Path(self.root, ref.path)
            if not self.holds(ref):
                raise _missing(ref)
            yield path
            return
        with storage_errors(f"copying the {ref.kind} artifact"):
            self.scratch.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix="artifact-", suffix=SUFFIXES[ref.kind], dir=self.scratch)
            os.close(handle)
        copy = Path(name)
        try:
            with storage_errors(f"copying the {ref.kind} artifact"):
                self._copy(ref, copy)
            yield copy
        finally:
            copy.unlink(missing_ok=True)

    def holds(self, ref: ArtifactRef) -> bool:
        """Whether the artifact is there, as large as it should be."""
        stored = self._size(ref.path)
        return stored is not None and (stored == ref.bytes or (ref.kind == "audio" and stored > 0))

    def exists(self, path: str) -> bool:
        return self._size(path) is not None

    def uri(self, ref: ArtifactRef) -> str:
        """The artifact's full address, for people and for links."""
        return self.address(ref.path)

    def address(self, path: str) -> str:
        """Where the file is: a path of this machine, or a URL."""
        return self.fs.unstrip_protocol(self._full(path)) if not self.is_local else self._full(path)

    def keep(self, source: Path, path: str) -> str:
        """Keep the file at `source` under a name of one's own, whole or not at all; where it is then. Raises as `put`."""
        self._commit(source, path)
        return self.address(path)

    # -- records ------------------------------------------------------------------------------------------------------

    def read_record(self, name: str) -> bytes | None:
        """The record's bytes, or None when there is none."""
        try:
            with storage_errors("reading a record"):
                return bytes(self.fs.cat_file(self._full(f"records/{name}")))
        except FileNotFoundError:
            return None

    def write_record(self, name: str, content: bytes, *, private: bool = False) -> None:
        """Write the record whole, replacing any before it. In a folder, nobody but this user may read a `private` one."""
        path = f"records/{name}"
        if not self.is_local:
            with storage_errors("writing a record"), _missing_is_unwritable():
                self.fs.pipe_file(self._full(path), content)
            return
        with storage_errors("writing a record"):
            self._move_in(io.BytesIO(content), Path(self._full(path)), private=private)

    def delete_record(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError), storage_errors("deleting a record"):
            self.fs.rm_file(self._full(f"records/{name}"))

    # -- all that is there ---------------------------------------------------------------------------------------------

    def files(self, folder: str) -> Iterator[StoredFile]:
        """Every file under `folder` (`artifacts`, `records/uses` …), those being written left out."""
        with storage_errors("listing the store"):
            if self.is_local:
                yield from self._local_files(folder)
                return
            try:
                found = self.fs.find(self._full(folder), detail=True, withdirs=False)
            except FileNotFoundError:
                return
        root = self.fs._strip_protocol(self.root).strip("/")
        for name, info in found.items():
            path = name.strip("/").removeprefix(root).lstrip("/")
            yield StoredFile(path, int(info.get("size") or 0), _modified(info))

    def delete(self, path: str) -> None:
        """Remove a file; nothing when it is gone already."""
        with contextlib.suppress(FileNotFoundError), storage_errors(f"deleting {path}"):
            self.fs.rm_file(self._full(path))

    # -- mechanism ----------------------------------------------------------------------------------------------------

    def _full(self, path: str) -> str:
        return f"{self.root}/{path}"

    def _size(self, path: str) -> int | None:
        """Bytes of what is stored at `path`, or None if nothing is."""
        try:
            with storage_errors("looking into the store"):
                return int(self.fs.info(self._full(path))["size"])
        except FileNotFoundError:
            return None

    def _local_files(self, folder: str) -> Iterator[StoredFile]:
        for place, _, names in os.walk(self._full(folder)):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    if not name.startswith("."):
                        status = Path(place, name).stat()
                        path = str(Path(place, name).relative_to(self.root))
                        yield StoredFile(path, status.st_size, status.st_mtime)

    def _copy(self, ref: ArtifactRef, target: Path) -> None:
        """The artifact at `target`, checked. What is whole but not what its name says is removed, so that it is made again."""
        for _ in range(_ATTEMPTS_AT_A_COPY):
            try:
                self._download(ref, target)
            except FileNotFoundError:
                raise _missing(ref) from None
            except EOFError:
                break
            # Audio is named by its samples, and its frames carry checksums of their own.
            if ref.kind == "audio" or file_sha256(target) == ref.sha256:
                return
        self.delete(ref.path)
        raise _missing(ref)

    def _download(self, ref: ArtifactRef, target: Path) -> None:
        full = self._full(ref.path)
        size = ref.bytes
        if ref.kind == "audio":
            size = int(self.fs.info(full)["size"])  # another encoder's file of the same samples may have taken its place
        if self.is_s3:
            self.fs.download(full, target, size)
            return
        self.fs.get_file(full, str(target))
        if target.stat().st_size != size:
            raise EOFError(ref.path)

    def _commit(self, source: Path, path: str) -> None:
        full = self._full(path)
        with storage_errors(f"writing {path}"):
            if self.is_local:
                with source.open("rb") as reader:
                    self._move_in(reader, Path(full))
            else:
                with _missing_is_unwritable():
                    self._upload(source, full)

    def _upload(self, source: Path, full: str) -> None:
        protocols = (self.fs.protocol,) if isinstance(self.fs.protocol, str) else self.fs.protocol
        if _OBJECT_STORES.intersection(protocols):
            try:
                self.fs.put_file(str(source), full)
            except FileNotFoundError:
                # A parted upload whose last answer was lost: asked again, the service knows of no such upload any more.
                if self._size(full.removeprefix(f"{self.root}/")) != source.stat().st_size:
                    raise
            return
        folder, _, name = full.rpartition("/")
        aside = f"{folder}/.{name}.{uuid.uuid4().hex}.part"
        try:
            self.fs.put_file(str(source), aside)
            self.fs.mv(aside, full)
        except BaseException:
            with contextlib.suppress(Exception):
                self.fs.rm_file(aside)
            raise

    def _move_in(self, reader: IO[bytes], target: Path, *, private: bool = False) -> None:
        """Write aside, then move: whoever reads meanwhile sees nothing or all of it."""
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
        try:
            if private:
                aside.touch(0o600)
            with aside.open("wb") as writer:
                shutil.copyfileobj(reader, writer, 1 << 20)
                writer.flush()
                os.fsync(writer.fileno())
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)


def _opened(url: str, s3: S3Settings | None) -> tuple[Any, str]:
    """The filesystem and the path in it.

    Listings are not cached: other machines write here too, and what was listed once says nothing about now.
    """
    if url.startswith(_S3):
        from infra.s3_files import PatientS3
        from infra.settings import S3Settings

        return PatientS3.of(s3 or S3Settings()), str(PatientS3._strip_protocol(url))
    from fsspec.core import url_to_fs

    fs, path = url_to_fs(url, **({"use_listings_cache": False} if "://" in url else {}))
    return fs, str(path)


def _modified(info: dict[str, Any]) -> float:
    """When the file was written last; filesystems name it differently."""
    value = next((info[name] for name in _TIMES if info.get(name) is not None), 0.0)
    return float(value.timestamp() if isinstance(value, datetime) else value)


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _missing(ref: ArtifactRef) -> ArtifactMissing:
    return ArtifactMissing(f"The {ref.kind} artifact {ref.sha256[:12]} is no longer in the store; run again to recompute it.")


@contextlib.contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Have storage that is full, closed to us or out of reach say so; a missing file stays FileNotFoundError."""
    try:
        yield
    except (StenoError, FileNotFoundError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageFull(
                f"No space left on the device while {doing}; free some, or point STENO_STORE and STENO_SCRATCH elsewhere."
            ) from error
        fault = remote_fault(error)
        if fault in (RemoteFault.DENIED, RemoteFault.NO_CREDENTIALS) or (
            isinstance(error, OSError) and error.errno in _UNWRITABLE
        ):
            raise OutputNotWritable(
                f"Not permitted or not possible while {doing}; check the place, permissions and credentials of STENO_STORE and STENO_SCRATCH."
            ) from error
        if fault is RemoteFault.TRANSIENT:
            raise TransientError(f"The storage did not answer while {doing}; try again later.") from error
        raise


@contextlib.contextmanager
def _missing_is_unwritable() -> Iterator[None]:
    """Writing to an object store finds something missing only when it is the bucket."""
    try:
        yield
    except FileNotFoundError as error:
        raise OutputNotWritable("The bucket that STENO_STORE names does not exist; create it, or name another.") from error
