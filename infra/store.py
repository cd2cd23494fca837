"""The artifact store: content-addressed files and small records on one fsspec URL.

Layout under the root::

    artifacts/<kind>/<aa>/<sha256><suffix>   immutable, written aside and moved (folder) or committed whole (object store)
    records/<name>                           small JSON: what a stage key led to, how a run ended, what runs use
    locks/<name>                             while something is computed (`infra.locks`)
    uploads/<aa>/<sha256><suffix>            recordings that the REST API was sent

A reader never sees a half-written file: on a folder the move is atomic, on an object store the upload is. Nor does it see
a damaged one: what is read is compared with the hash that it is named by (`infra.integrity`), and removed when it differs, so
that it is made again.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from infra import usage
from infra.artifacts import SUFFIXES, ArtifactRef, Kind, artifact_path
from infra.errors import ArtifactMissing
from infra.filesystems import S3, modified, opened
from infra.integrity import FILE_SHA256, Version, file_sha256, is_content, judged, sealed, unsealed
from infra.scratch import own_folder
from infra.storage_errors import missing_is_unwritable, storage_errors
from speech.errors import UnreadableArtifact

if TYPE_CHECKING:
    from infra.settings import S3Settings, StenoSettings

_OBJECT_STORES = {"s3", "gs", "abfs", "adl"}
"""Where an upload shows only when it is whole; elsewhere it is written aside and moved."""
_ATTEMPTS_AT_A_COPY = 2


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
        self.fs, self.root = opened(url, s3)
        self.root = self.root.rstrip("/")
        self.url = url
        self.is_s3 = url.startswith(S3)
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
        An artifact that is already there is not written again, unless it is damaged.

        Raises StorageFull when there is no space, OutputNotWritable when the store may not be written, and TransientError
        when it cannot be reached.
        """
        digest = sha256 or file_sha256(source)
        path = artifact_path(kind, digest)
        facts = {**(meta or {}), **({FILE_SHA256: file_sha256(source)} if sha256 else {})}
        ref = ArtifactRef(kind=kind, path=path, sha256=digest, bytes=source.stat().st_size, meta=facts)
        stored = self._stored(ref)
        if stored is not None and usage.claimed(self, path, by):
            return stored
        self._commit(source, path)
        return ref

    @contextlib.contextmanager
    def local(self, ref: ArtifactRef) -> Iterator[Path]:
        """A local file with the artifact's content, valid inside the block; not to be written to.

        Raises ArtifactMissing when it is gone, or was damaged and is removed; StorageFull when there is no space for the copy.
        """
        with self._file(ref) as path:
            try:
                yield path
            except UnreadableArtifact as error:
                if error.path != path:
                    raise
                self.delete(ref.path)
                raise _damaged(ref) from error

    def holds(self, ref: ArtifactRef) -> bool:
        """Whether the artifact is there, as large as it should be. What it holds is checked when it is read."""
        stored = self._size(ref.path) if ref.in_place else None
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
        """The record's bytes, or None when there is none; a damaged one begins with `infra.integrity.DAMAGED`, which no parser takes."""
        try:
            with storage_errors("reading a record"):
                return unsealed(name, bytes(self.fs.cat_file(self._full(f"records/{name}"))))
        except FileNotFoundError:
            return None

    def write_record(self, name: str, content: bytes, *, private: bool = False) -> None:
        """Write the record whole, replacing any before it. In a folder, nobody but this user may read a `private` one."""
        path = f"records/{name}"
        content = sealed(name, content) if content.startswith(b"{") else content
        if not self.is_local:
            with storage_errors("writing a record"), missing_is_unwritable():
                self.fs.pipe_file(self._full(path), content)
            return
        with storage_errors("writing a record"):
            self._move_in(io.BytesIO(content), Path(self._full(path)), private=private)

    def delete_record(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError), storage_errors("deleting a record"):
            self.fs.rm_file(self._full(f"records/{name}"))

    # -- all that is there ---------------------------------------------------------------------------------------------

    def files(self, folder: str, *, parts: bool = False) -> Iterator[StoredFile]:
        """Every file under `folder` (`artifacts`, `records/uses` …), those being written left out unless `parts`."""
        with storage_errors("listing the store"):
            if self.is_local:
                yield from self._local_files(folder, parts)
                return
            try:
                found = self.fs.find(self._full(folder), detail=True, withdirs=False)
            except FileNotFoundError:
                return
        root = self.fs._strip_protocol(self.root).strip("/")
        for name, info in found.items():
            path = name.strip("/").removeprefix(root).lstrip("/")
            if path.rpartition("/")[2].startswith(".") and not parts:
                continue
            yield StoredFile(path, int(info.get("size") or 0), modified(info))

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

    def _local_files(self, folder: str, parts: bool) -> Iterator[StoredFile]:
        for place, _, names in os.walk(self._full(folder)):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    if parts or not name.startswith("."):
                        status = Path(place, name).stat()
                        path = str(Path(place, name).relative_to(self.root))
                        yield StoredFile(path, status.st_size, status.st_mtime)

    @contextlib.contextmanager
    def _file(self, ref: ArtifactRef) -> Iterator[Path]:
        """The artifact as a file of this machine, checked: where it lies, or a copy that goes with the block."""
        if not ref.in_place:
            raise _missing(ref)
        if self.is_local:
            yield self._checked(ref)
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

    def _checked(self, ref: ArtifactRef) -> Path:
        """Where the artifact lies in a folder. What is not what its name says, or cannot be read from the disk, is removed."""
        path = Path(self.root, ref.path)
        version: Version | None = None
        with storage_errors(f"reading the {ref.kind} artifact"):
            try:
                version, intact = judged(path, ref)
            except (FileNotFoundError, NotADirectoryError):
                raise _missing(ref) from None
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                intact = False
            if intact:
                return path
            with contextlib.suppress(FileNotFoundError):
                if version is None or Version.of(path) == version:  # else another run has put a good one in its place
                    self.delete(ref.path)
        raise _damaged(ref)

    def _stored(self, ref: ArtifactRef) -> ArtifactRef | None:
        """The reference of what is kept under that name already; None when there is nothing, or nothing whole.

        Audio may be another encoder's file of the same samples.
        """
        if self._size(ref.path) is None:
            return None
        try:
            with self._file(ref) as path:
                if ref.kind != "audio":
                    return ref
                size, facts = path.stat().st_size, {**ref.meta, FILE_SHA256: file_sha256(path)}
                return ref.model_copy(update={"bytes": size, "meta": facts})
        except ArtifactMissing:
            return None

    def _copy(self, ref: ArtifactRef, target: Path) -> None:
        """The artifact at `target`, checked. What is whole but not what its name says is removed, so that it is made again."""
        for _ in range(_ATTEMPTS_AT_A_COPY):
            try:
                self._download(ref, target)
            except FileNotFoundError:
                raise _missing(ref) from None
            except EOFError:
                break
            if is_content(target, ref):
                return
        self.delete(ref.path)
        raise _damaged(ref)

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
                with missing_is_unwritable():
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


def _missing(ref: ArtifactRef) -> ArtifactMissing:
    return ArtifactMissing(f"The {ref.kind} artifact {ref.sha256[:12]} is no longer in the store; run again to recompute it.")


def _damaged(ref: ArtifactRef) -> ArtifactMissing:
    return ArtifactMissing(
        f"The {ref.kind} artifact {ref.sha256[:12]} was damaged and is removed from the store; run again to recompute it."
    )
