"""Sources in object stores: s3, Google Cloud Storage, Azure, and memory, as `infra.storage` lists them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from infra.connections import Broken, back_off
from infra.names import full_address
from infra.partfile import PartFile, Report
from infra.settings import StenoSettings
from infra.storage import SOURCES, source_kind
from infra.storage_errors import RemoteFault, remote_fault, remote_status
from stenoflow.errors import DownloadFailed, SourceDenied, SourceError, SourceForbidden, SourceNotFound, StenoError

BLOCK_BYTES = 8 << 20

_IDENTITY = ("ETag", "etag", "VersionId", "generation", "LastModified", "last_modified", "updated", "mtime", "created", "size")

T = TypeVar("T")


class _NoCredentials(SourceDenied):
    """This machine has none at all."""


def fetch_object(url: str, part: PartFile, settings: StenoSettings, report: Report) -> str | None:
    """Stream the object into `part` in blocks, resuming where reading breaks, and return its content type.

    Raises SourceForbidden (protocol), SourceNotFound, SourceDenied, SourceError, SourceTooLarge, StorageFull,
    DownloadFailed (after `settings.net.resumes` resumes), and whatever `report` raises.
    """
    where = _where(url)
    fs, path = open_filesystem(url, settings, where)
    began, seen = time.monotonic(), None
    for attempt in range(settings.net.resumes + 1):
        try:
            try:
                info = call(where, fs.info, path)
            except _NoCredentials:
                # A public bucket needs none.
                fs, path = open_filesystem(url, settings, where, anonymous=True)
                info = call(where, fs.info, path)
            seen = _same_or_restart(info, seen, part)
            _receive(fs, path, info, part, report, where=where, end=began + settings.net.max_seconds)
            return _content_type(info)
        except Broken as broken:
            if attempt >= settings.net.resumes:
                raise DownloadFailed(f"The {where} {broken}after {part.size} bytes; try again later.") from None
            back_off(attempt, lambda: report(part.size, None))
    raise AssertionError("the last attempt returns or raises")


def _receive(fs: Any, path: str, info: dict[str, Any], part: PartFile, report: Report, *, where: str, end: float) -> None:
    total = info.get("size")
    if total is not None:
        part.expect(total)
    with call(where, fs.open, path, "rb", block_size=BLOCK_BYTES, cache_type="none") as file:
        call(where, file.seek, part.size)
        while True:
            report(part.size, total)
            if time.monotonic() > end:
                raise DownloadFailed(f"Reading the {where} took too long and was stopped", cure="raise STENO_NET__MAX_SECONDS")
            block = call(where, file.read, BLOCK_BYTES)
            if not block:
                break
            part.write(block)
    report(part.size, total)
    if total is not None and part.size < total:
        raise Broken("ended before its announced length")


def _same_or_restart(info: dict[str, Any], seen: dict[str, Any] | None, part: PartFile) -> dict[str, Any]:
    """What identifies the object's content; what was received of another one is dropped."""
    if info.get("type") == "directory":
        raise SourceError("The source is a folder, not a recording; give one of the objects in it.")
    identity = {name: info[name] for name in _IDENTITY if info.get(name) is not None}
    if seen is not None and identity != seen:
        part.restart()
    return identity


def open_filesystem(
    url: str, settings: StenoSettings, where: str, *, folder: bool = False, anonymous: bool = False
) -> tuple[Any, str]:
    """The fsspec filesystem and the path in it, which a `folder` may lack: a whole bucket. `where` names it in messages."""
    scheme, _, place = url.partition("://")
    scheme = scheme.lower()
    if scheme not in SOURCES:
        known = ", ".join(f"{name}://" for name in SOURCES)
        raise SourceForbidden(f"{scheme}:// is not supported; use a path, https://, http:// or one of {known}.")
    kind = source_kind(scheme)
    authority, _, key = place.partition("/")
    if kind.authority is not None and not (kind.authority.fullmatch(authority) and (key or folder)):
        raise SourceError(f"Write a {scheme}:// source as {scheme}://bucket/path/to/recording, without credentials.")

    def opened() -> tuple[Any, str]:
        try:
            return kind.source(f"{scheme}://{authority}/{key}", settings.s3, anonymous=anonymous)
        except ImportError:
            package = SOURCES[scheme].package
            raise SourceError(f"Reading {scheme}:// requires the package {package}; install it on this machine.") from None

    return call(where, opened)


def call(where: str, function: Callable[..., T], *args: Any, **options: Any) -> T:
    """Call fsspec, with its errors as ours; Broken where asking again may help."""
    try:
        return function(*args, **options)
    except StenoError:
        raise
    except Exception as error:
        raise _translated(error, where) from None


def _translated(error: Exception, where: str) -> Exception:
    status = remote_status(error)
    fault = remote_fault(error)
    if fault is RemoteFault.MISSING:
        return SourceNotFound(f"There is no {where}; check the bucket and the path.")
    if fault is RemoteFault.FOLDER:
        return SourceError("The source is a folder, not a recording; give one of the objects in it.")
    if fault is RemoteFault.NO_CREDENTIALS:
        return _NoCredentials(
            f"Reading {where} requires credentials, and this machine has none", cure="set the STENO_S3__ or AWS_ variables"
        )
    if fault is RemoteFault.DENIED:
        return SourceDenied(f"The {where} is not readable with this machine's credentials, or does not exist; check both.")
    if fault is RemoteFault.CHANGED:
        return Broken("changed while it was read")
    if fault is RemoteFault.TRANSIENT:
        return Broken(f"answered {status}" if status else "cannot be reached")
    detail = f"{type(error).__name__}, {status}" if status else type(error).__name__
    return SourceError(f"The {where} could not be read ({detail}); check the address.")


def _content_type(info: dict[str, Any]) -> str | None:
    value = info.get("ContentType") or info.get("contentType") or info.get("content_type")
    return value if isinstance(value, str) else None


def _where(url: str) -> str:
    """The source for messages, never with a query or credentials."""
    return f"object {full_address(url)}"
