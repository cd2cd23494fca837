"""Whether what is kept still is what was kept: files by their hash, records by a seal.

A file of this machine is hashed once per process and version of it: as long as its inode, size and times stay the same, so does
the answer. So a batch hashes a recording once, not once per stage.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from infra.artifacts import ArtifactRef, Kind

FILE_SHA256 = "file_sha256"
"""In the `meta` of audio, which is named by its samples: the hash of its file's bytes."""
DAMAGED = b"\0"
"""What a damaged record begins with when it is read. No parser takes that, so each reader does what it does with a record that it
cannot read; the collector still finds the artifacts that are named in it."""

_SEAL_BITS = 64
_MARKS = b" \t"


class Version(NamedTuple):
    """What changes when a file does."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int
    """Of the inode: it changes even if the modification time is set back."""

    @classmethod
    def of(cls, path: Path) -> Version:
        status = path.stat()
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def judged(path: Path, ref: ArtifactRef) -> tuple[Version, bool]:
    """The version of the file that is there, and whether its content is the artifact's. Raises FileNotFoundError, OSError."""
    version = Version.of(path)
    return version, _judged(version, path, ref.kind, ref.sha256, ref.meta.get(FILE_SHA256))


def is_content(path: Path, ref: ArtifactRef) -> bool:
    """Whether the file holds the artifact, read from its first byte to its last.

    Audio is named by its samples: another encoder's file of them is the artifact as well. Without the engine's FLAC decoder,
    nothing but its file's hash can be compared.
    """
    return _judged.__wrapped__(None, path, ref.kind, ref.sha256, ref.meta.get(FILE_SHA256))


@lru_cache(maxsize=4096)
def _judged(version: Version | None, path: Path, kind: Kind, sha256: str, of_file: str | None) -> bool:
    digest = file_sha256(path)
    if digest in (sha256, of_file):
        return True
    if kind != "audio":
        return False
    try:
        from speech.flac import samples_sha256
    except ModuleNotFoundError:
        return of_file is None and path.stat().st_size > 0
    return samples_sha256(path) == sha256


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- records ----------------------------------------------------------------------------------------------------------


def sealed(name: str, content: bytes) -> bytes:
    """The record with a hash of its name and content behind it, in blanks.

    Blanks, because versions of Stenoflow that know of no seals read these records too: JSON may be followed by blanks, while
    a field that they do not know would make them refuse the whole record.
    """
    return content + b"\n" + _seal(name, content)


def unsealed(name: str, content: bytes) -> bytes:
    """The record as it was written; with `DAMAGED` before it when it is not what was written under this name.

    A record without a seal, which an earlier version wrote, is returned as it is.
    """
    body, newline, seal = content[: -_SEAL_BITS - 1], content[-_SEAL_BITS - 1 : -_SEAL_BITS], content[-_SEAL_BITS:]
    if newline != b"\n" or len(seal) != _SEAL_BITS or seal.strip(_MARKS):
        return content
    return body if seal == _seal(name, body) else DAMAGED + body


def _seal(name: str, content: bytes) -> bytes:
    digest = hashlib.sha256(name.encode() + b"\0" + content).digest()
    bits = int.from_bytes(digest[: _SEAL_BITS // 8], "big")
    return bytes(_MARKS[bits >> place & 1] for place in range(_SEAL_BITS))
