"""The artifact store: content-addressed files and small records on one fsspec URL.

Layout under the root::

    artifacts/<kind>/<aa>/<sha256><suffix>   immutable, written aside and moved (folder) or committed whole (object store)
    records/<name>                           small JSON: what a stage key led to

A reader never sees a half-written file: on a folder the move is atomic, on an object store the upload is.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.artifacts import SUFFIXES, ArtifactRef, Kind
from infra.errors import ArtifactMissing, StorageFull

if TYPE_CHECKING:
    from infra.settings import S3Settings, StenoSettings


class Store:
    """Artifacts and records under one fsspec URL. Synchronous: call it from a worker thread."""

    def __init__(self, url: str, scratch: Path, s3: S3Settings | None = None) -> None:
        from fsspec.core import url_to_fs

        options: dict[str, Any] = s3_options(s3) if s3 is not None and url.startswith("s3://") else {}
        self.fs, self.root = url_to_fs(url, **options)
        self.root = self.root.rstrip("/")
        self.url = url
        self.is_local = self.fs.protocol == "file" or "file" in self.fs.protocol
        self.scratch = scratch

    @classmethod
    def from_settings(cls, settings: StenoSettings) -> Store:
        return cls(settings.store_url, settings.scratch_path, settings.s3)

    # -- artifacts ----------------------------------------------------------------------------------------------------

    def put(self, source: Path, kind: Kind, *, sha256: str | None = None, meta: dict[str, Any] | None = None) -> ArtifactRef:
        """Keep the file at `source` as an artifact and return its reference.

        `sha256` names the content where the bytes do not (audio is named by its samples). An artifact that is already
        there is not written again. Raises StorageFull when there is no space.
        """
        digest = sha256 or file_sha256(source)
        path = f"artifacts/{kind}/{digest[:2]}/{digest}{SUFFIXES[kind]}"
        size = source.stat().st_size
        if not self.exists(path):
            self._commit(source, path)
        return ArtifactRef(kind=kind, path=path, sha256=digest, bytes=size, meta=meta or {})

    @contextlib.contextmanager
    def local(self, ref: ArtifactRef) -> Iterator[Path]:
        """A local file with the artifact's content, valid inside the block. Raises ArtifactMissing when it is gone."""
        if self.is_local:
            path = Path(self.root, ref.path)
            if not path.is_file():
                raise ArtifactMissing(f"The {ref.kind} artifact {ref.sha256[:12]} is no longer in the store; run again to recompute it.")
            yield path
            return
        self.scratch.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix="artifact-", suffix=SUFFIXES[ref.kind], dir=self.scratch)
        os.close(handle)
        try:
            with _translated(f"copying the {ref.kind} artifact"):
                self.fs.get_file(self._full(ref.path), name)
            yield Path(name)
        except FileNotFoundError:
            raise ArtifactMissing(f"The {ref.kind} artifact {ref.sha256[:12]} is no longer in the store; run again to recompute it.") from None
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)

    def exists(self, path: str) -> bool:
        return bool(self.fs.exists(self._full(path)))

    def uri(self, ref: ArtifactRef) -> str:
        """The artifact's full address, for people and for links."""
        return self.fs.unstrip_protocol(self._full(ref.path)) if not self.is_local else self._full(ref.path)

    # -- records ------------------------------------------------------------------------------------------------------

    def read_record(self, name: str) -> bytes | None:
        """The record's bytes, or None when there is none."""
        try:
            return bytes(self.fs.cat_file(self._full(f"records/{name}")))
        except FileNotFoundError:
            return None

    def write_record(self, name: str, content: bytes) -> None:
        """Write the record whole, replacing any before it."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        with _translated("writing a record"), tempfile.NamedTemporaryFile(dir=self.scratch, prefix="record-") as file:
            file.write(content)
            file.flush()
            self._commit(Path(file.name), f"records/{name}")

    def delete_record(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self._full(f"records/{name}"))

    # -- mechanism ----------------------------------------------------------------------------------------------------

    def _full(self, path: str) -> str:
        return f"{self.root}/{path}"

    def _commit(self, source: Path, path: str) -> None:
        full = self._full(path)
        with _translated(f"writing {path}"):
            if not self.is_local:
                self.fs.put_file(str(source), full)
                return
            target = Path(full)
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
            try:
                with open(source, "rb") as reader, open(aside, "wb") as writer:
                    shutil.copyfileobj(reader, writer, 1 << 20)
                    writer.flush()
                    os.fsync(writer.fileno())
                os.replace(aside, target)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    aside.unlink()


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of the file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def s3_options(s3: S3Settings) -> dict[str, Any]:
    """s3fs's storage options for these settings; what is empty is left to the AWS default chain."""
    options: dict[str, Any] = {"skip_instance_cache": True}
    if s3.key and s3.secret:
        options |= {"key": s3.key.get_secret_value(), "secret": s3.secret.get_secret_value()}
    if s3.token:
        options["token"] = s3.token.get_secret_value()
    client = {name: value for name, value in (("endpoint_url", s3.endpoint_url), ("region_name", s3.region)) if value}
    if client:
        options["client_kwargs"] = client
    if s3.addressing_style != "auto":
        options["config_kwargs"] = {"s3": {"addressing_style": s3.addressing_style}}
    return options


@contextlib.contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"No space left on the device while {doing}; free some, or point STENO_STORE and STENO_SCRATCH elsewhere.") from error
        raise
