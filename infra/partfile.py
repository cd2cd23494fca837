"""A file that is being received: capped, hashed as it grows, and given its name only when it is whole."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

from infra.storage_errors import storage_errors
from stenoflow.errors import SourceError, SourceTooLarge, StorageFull

BLOCK = 1 << 20
TICK_SECONDS = 0.5
"""A wait for more is interrupted that often, to see whether it was cancelled."""
Report = Callable[[int, int | None], None]
"""Receives the bytes done and the total, if known; also while nothing arrives. It may raise, which ends the download."""


class Served(NamedTuple):
    """What a server says of what it sent; not to be trusted."""

    content_type: str | None = None
    name: str | None = None
    """Safe to show."""


class PartFile:
    """Receives one source into `folder/name` by way of `name.part`, which is removed unless `finish` was reached.

    Raises SourceTooLarge above `max_bytes` and StorageFull when the disk is.
    """

    def __init__(self, folder: Path, name: str, max_bytes: int) -> None:
        self.path = folder / name
        self.max_bytes = max_bytes
        self._part = folder / f"{name}.part"
        self._file: IO[bytes]
        self._begin()

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of what was received so far."""
        return self._hash.hexdigest()

    def write(self, block: bytes) -> None:
        self._check(self.size + len(block))
        with storage_errors("receiving the source"):
            self._file.write(block)
        self._hash.update(block)
        self.size += len(block)

    def expect(self, total: int) -> None:
        """Refuse early what is announced to be too large for the cap or for the disk."""
        self._check(total)
        if total - self.size > shutil.disk_usage(self._part.parent).free:
            raise StorageFull(
                "The source is larger than the space left on the device", cure="free some, or set STENO_SCRATCH to another disk"
            )

    def restart(self) -> None:
        """Forget what was received."""
        if self.size:
            self._close()
            self._begin()

    def decode(self, encoding: str) -> None:
        """Replace what was received by its decoded form; `encoding` is HTTP's `gzip` or `deflate`.

        The cap counts decoded bytes, and no more than a block is decoded at once, so that a bomb stops at the cap.
        """
        self._close()
        encoded = self._part.with_suffix(".encoded")
        self._part.replace(encoded)
        try:
            self._begin()
            for block in _decoded(encoded, encoding):
                self.write(block)
        finally:
            encoded.unlink()

    def finish(self) -> Path:
        """Close the file, give it its name and return its path."""
        with storage_errors("receiving the source"):
            self._file.close()
            return self._part.replace(self.path)

    def _begin(self) -> None:
        self.size = 0
        self._hash = hashlib.sha256()
        with storage_errors("receiving the source"):
            self._part.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("wb")

    def _check(self, size: int) -> None:
        if size > self.max_bytes:
            raise SourceTooLarge(
                f"The source exceeds the limit of {self.max_bytes} bytes",
                cure="give a smaller one, or raise STENO_LIMITS__MAX_BYTES",
            )

    def _close(self) -> None:
        # What could not be flushed was reported by the write, or no longer matters.
        with contextlib.suppress(OSError):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()
        self._part.unlink(missing_ok=True)


def _decoded(path: Path, encoding: str) -> Iterator[bytes]:
    try:
        # 47: gzip or zlib, whichever the header says (RFC 9110, 8.4.1: servers confuse the two).
        decoder = zlib.decompressobj(47)
        with path.open("rb") as file:
            while block := file.read(1 << 16):
                while block:
                    if decoder.eof:
                        decoder = zlib.decompressobj(47)
                    yield decoder.decompress(block, BLOCK)
                    block = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
        while not decoder.eof and (rest := decoder.decompress(b"", BLOCK)):
            yield rest
        if not decoder.eof:
            raise SourceError(f"The source's {encoding} encoding ends too early; ask its server's owner.")
    except zlib.error:
        raise SourceError(f"The source arrived with a broken {encoding} encoding; ask its server's owner.") from None
