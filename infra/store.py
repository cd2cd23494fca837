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
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra import usage
from infra.artifacts import SUFFIXES, ArtifactRef, Kind, artifact_path
from infra.integrity import FILE_SHA256, Version, file_sha256, is_content, judged, sealed, unsealed
from infra.locks import Locks
from infra.scratch import OwnFolder
from infra.settings import LockSettings
from infra.storage import StoredFile, open_storage
from infra.storage_errors import missing_is_unwritable, storage_errors
from stenoflow.errors import ArtifactMissing, UnreadableArtifact

if TYPE_CHECKING:
    from infra.settings import S3Settings, StenoSettings

FOLDERS = ("artifacts", "records", "uploads")
"""Where files are written, beside locks."""
_ATTEMPTS_AT_A_COPY = 2
_IDENTITY = "store/identity"


class Store:
    """Artifacts and records under one fsspec URL. Synchronous: call it from a worker thread."""

    def __init__(
        self, url: str, scratch: Path | OwnFolder, s3: S3Settings | None = None, *, lease: float = LockSettings().lease
    ) -> None:
        self.storage = open_storage(url, s3)
        self.root, self.url = self.storage.root, url
        self.locks = Locks(self, lease)
        """Of this process: whoever shares the store shares what it holds."""
        self._scratch = scratch
        self.scratch = scratch.path if isinstance(scratch, OwnFolder) else scratch

    @classmethod
    def from_settings(cls, settings: StenoSettings) -> Store:
        return cls(settings.store_url, OwnFolder(settings.scratch_path), settings.s3, lease=settings.locks.lease)

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
        return self.storage.address(path)

    def audio_bytes(self, ref: ArtifactRef) -> int:
        """How large the audio's file is. Raises ArtifactMissing."""
        size = self._size(ref.path) if ref.in_place else None
        if size is None:
            raise _missing(ref)
        return size

    def read_part(self, ref: ArtifactRef, start: int, most: int) -> bytes:
        """So many bytes of the artifact, from `start` on, unchecked: for those who listen. Raises ArtifactMissing."""
        with storage_errors(f"reading the {ref.kind} artifact"):
            try:
                return self.storage.read(ref.path, most, start=start)
            except FileNotFoundError:
                raise _missing(ref) from None

    def keep(self, source: Path, path: str) -> str:
        """Keep the file at `source` under a name of one's own, whole or not at all; where it is then. Raises as `put`."""
        self._commit(source, path)
        return self.address(path)

    # -- records ------------------------------------------------------------------------------------------------------

    def read_record(self, name: str) -> bytes | None:
        """The record's bytes, or None when there is none; a damaged one begins with `infra.integrity.DAMAGED`, which no parser takes."""
        try:
            with storage_errors("reading a record"):
                return unsealed(name, self.storage.read(f"records/{name}"))
        except FileNotFoundError:
            return None

    def write_record(self, name: str, content: bytes, *, private: bool = False) -> None:
        """Write the record whole, replacing any before it. In a folder, a `private` record is readable by this user only."""
        content = sealed(name, content) if content.startswith(b"{") else content
        with self._writing("writing a record"):
            self.storage.write(f"records/{name}", content, private=private)

    def delete_record(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError), storage_errors("deleting a record"):
            self.storage.delete(f"records/{name}")

    @cached_property
    def identity(self) -> str:
        """What tells this store from any other, made when it is first asked for."""
        found = self.read_record(_IDENTITY)
        if found is None:
            self.write_record(_IDENTITY, uuid.uuid4().hex.encode())
            found = self.read_record(_IDENTITY)  # of several that make one at once, the last is everybody's
        return (found or b"").decode(errors="replace")

    # -- all that is there ---------------------------------------------------------------------------------------------

    def files(self, folder: str, *, parts: bool = False) -> Iterator[StoredFile]:
        """Every file under `folder` (`artifacts`, `records/uses` …), those being written left out unless `parts`."""
        with storage_errors("listing the store"):
            yield from self.storage.files(folder, parts=parts)

    def delete(self, path: str) -> None:
        """Remove a file; nothing when it is gone already."""
        with contextlib.suppress(FileNotFoundError), storage_errors(f"deleting {path}"):
            self.storage.delete(path)

    # -- what killed processes left -------------------------------------------------------------------------------------

    def abort_uploads(self, grace: float, *, dry_run: bool = False) -> int:
        """Abort uploads in parts that were begun more than `grace` seconds ago; how many there were."""
        with storage_errors("listing unfinished uploads"):
            return self.storage.abort_uploads(FOLDERS, time.time() - grace, dry_run=dry_run)

    def remove_parts(self, grace: float, *, dry_run: bool = False) -> int:
        """Remove files that were being written aside when their process died; how many there were."""
        with storage_errors("listing the store"):
            stale = self.storage.stale_parts(FOLDERS, time.time() - grace)
        for path in stale if not dry_run else ():
            self.delete(path)
        return len(stale)

    # -- mechanism ----------------------------------------------------------------------------------------------------

    def _size(self, path: str) -> int | None:
        """Bytes of what is stored at `path`, or None if nothing is."""
        with storage_errors("reading the store"):
            return self.storage.size(path)

    @contextlib.contextmanager
    def _file(self, ref: ArtifactRef) -> Iterator[Path]:
        """The artifact as a file of this machine, checked: where it lies, or a copy that goes with the block."""
        if not ref.in_place:
            raise _missing(ref)
        if (there := self.storage.on_disk(ref.path)) is not None:
            yield self._checked(ref, there)
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

    def _checked(self, ref: ArtifactRef, path: Path) -> Path:
        """Where the artifact lies in a folder. What is not what its name says, or cannot be read from the disk, is removed."""
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
        # Audio: another encoder's file of the same samples may have taken its place.
        self.storage.get(ref.path, target, None if ref.kind == "audio" else ref.bytes)

    def _commit(self, source: Path, path: str) -> None:
        with self._writing(f"writing {path}"):
            self.storage.put(source, path)

    @contextlib.contextmanager
    def _writing(self, doing: str) -> Iterator[None]:
        with storage_errors(doing), missing_is_unwritable() if self.storage.on_disk("") is None else contextlib.nullcontext():
            yield


def _missing(ref: ArtifactRef) -> ArtifactMissing:
    return ArtifactMissing(f"The {ref.kind} artifact {ref.sha256[:12]} is no longer in the store; run again to recompute it.")


def _damaged(ref: ArtifactRef) -> ArtifactMissing:
    return ArtifactMissing(
        f"The {ref.kind} artifact {ref.sha256[:12]} was damaged and has been removed from the store; run again to recompute it."
    )
