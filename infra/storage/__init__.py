"""Where files are kept: one class per kind of storage, found by the scheme of an address.

The artifact store, sources, listings and outputs know no kind by name: they ask here. To add one, write a module with a class
that derives from `infra.storage.remote.Remote` (or has the methods of `infra.storage.base.Storage`), and give it an entry below.
Modules are imported when an address of theirs is opened.
"""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from infra.storage.base import Lock, Locking, Storage, StoredFile

if TYPE_CHECKING:
    from infra.settings import S3Settings
    from infra.storage.remote import Remote

__all__ = [
    "KINDS",
    "SOURCES",
    "Kind",
    "Lock",
    "Locking",
    "Storage",
    "StoredFile",
    "canonical",
    "kind_of",
    "open_storage",
    "source_kind",
]


class Kind(NamedTuple):
    schemes: tuple[str, ...]
    """The first is the one that the others are other names of."""
    entry: str
    """`module:class`."""
    package: str
    """What an address of it needs, apart from the base installation."""
    in_containers: bool = False
    """Whether Modal's containers open it themselves: they have the package, and are given its settings."""


KINDS = (
    Kind(("s3", "s3a"), "infra.storage.s3:S3", "s3fs", in_containers=True),
    Kind(("gs", "gcs"), "infra.storage.google:Google", "gcsfs"),
    Kind(("az", "abfs", "abfss", "adl"), "infra.storage.azure:Azure", "adlfs"),
    Kind(("memory",), "infra.storage.remote:Remote", "fsspec"),
)
"""What recordings are read from as well. fsspec knows many more that reach other hosts or files (`ftp`, `sftp`, `smb`, `webhdfs`,
`http`, `local`) or chain URLs (`simplecache::`, `zip://`, `reference://`), all unguarded: no source is read over them, while an
operator may name them for the store and for outputs."""
SOURCES: dict[str, Kind] = {scheme: kind for kind in KINDS for scheme in kind.schemes}
_FOLDER = Kind(("file", "local"), "infra.storage.folder:Folder", "")
_OTHER = Kind((), "infra.storage.remote:Remote", "fsspec")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def kind_of(address: str) -> Kind:
    """The kind of storage that the address, or the path of this machine, leads to."""
    match = _SCHEME.match(address)
    scheme = match[1].lower() if match else ""
    if (not match and "::" not in address) or scheme in _FOLDER.schemes:
        return _FOLDER
    return SOURCES.get(scheme, _OTHER)


def open_storage(address: str, s3: S3Settings | None = None) -> Storage:
    """The folder at the address. Raises ImportError where its package is not installed, and what its filesystem raises."""
    storage: Storage = _class_of(kind_of(address)).at(address, s3)
    return storage


def source_kind(scheme: str) -> type[Remote]:
    """The class that recordings of that scheme, one of SOURCES, are read with."""
    found: type[Remote] = _class_of(SOURCES[scheme])
    return found


def canonical(address: str) -> str:
    """The address, the same for schemes that are names of one storage."""
    scheme, _, place = address.partition("://")
    kind = SOURCES.get(scheme.lower())
    return f"{kind.schemes[0] if kind else scheme.lower()}://{place}"


def _class_of(kind: Kind) -> Any:
    module, _, name = kind.entry.partition(":")
    return getattr(importlib.import_module(module), name)
