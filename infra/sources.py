"""Sources: whatever names a recording, brought to a local file.

A path (or `file://` URL) is read where it is; `-` is standard input; http(s) goes through `infra.net`, object stores
through `infra.objects`. Everything else is refused.
"""

from __future__ import annotations

import errno
import hashlib
import os
import select
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, BinaryIO
from urllib.parse import urlsplit

from infra.names import STDIN, display_name, expanded, file_suffix, full_address, output_stem, path_of, readable, scheme_of
from infra.partfile import BLOCK, TICK_SECONDS, PartFile, Report, Served
from infra.settings import StenoSettings
from stenoflow.errors import EmptyMedia, SourceDenied, SourceError, SourceForbidden, SourceNotFound, SourceTooLarge
from stenoflow.types import Frozen

__all__ = ["Fetched", "display_name", "fetch_source", "output_stem"]


class Fetched(Frozen):
    """A source as a local file."""

    path: Path
    sha256: str
    """Hex, of the file's bytes."""
    bytes: int
    name: str
    """Safe to show and log."""
    content_type: str | None = None
    """What the server called it; not to be trusted."""
    served_name: str | None = None
    """The file name that the server gave it, safe to show; its address may say less (`download?id=5`)."""


def _silent(_done: int, _total: int | None) -> None:
    pass


def fetch_source(
    source: str,
    folder: Path,
    settings: StenoSettings,
    report: Report = _silent,
    stdin: BinaryIO | None = None,
) -> Fetched:
    """Bring the source to a local file: a local one stays where it is, others are written into `folder`.

    `folder` is the caller's alone. `report` receives bytes done and the total, if known, and may raise to stop; nothing
    half-received stays behind. Raises SourceNotFound, SourceDenied, SourceForbidden, SourceTooLarge, SourceError,
    EmptyMedia, DownloadFailed and StorageFull. Blocks: call it from a worker thread.
    """
    scheme = scheme_of(source)
    if source == STDIN:
        return _received(source, folder, settings, lambda part: _read_stdin(part, stdin, report))
    if scheme is None:
        return _fetch_local(source, _local_path(source), folder, settings, report)
    if scheme == "file":
        return _fetch_local(source, _file_url_path(source), folder, settings, report)
    # Imported where something is fetched: each takes a tenth of a second, and most recordings are files.
    if scheme in ("http", "https"):
        from infra.net import download

        return _received(source, folder, settings, lambda part: download(source, part, settings.net, report))
    from infra.objects import fetch_object

    return _received(source, folder, settings, lambda part: Served(fetch_object(source, part, settings, report)))


def _received(source: str, folder: Path, settings: StenoSettings, receive: Callable[[PartFile], Served]) -> Fetched:
    with PartFile(folder, f"source{file_suffix(source)}", settings.limits.max_bytes) as part:
        served = receive(part)
        if part.size == 0:
            raise _empty(source)
        path = part.finish()
        if served.name and file_suffix(served.name):  # of bare samples, only the extension says which
            path = path.rename(path.with_name(f"source{file_suffix(served.name)}"))
        return Fetched(
            path=path,
            sha256=part.sha256,
            bytes=part.size,
            name=display_name(source),
            content_type=_plain_type(served.content_type),
            served_name=served.name,
        )


def _empty(source: str) -> EmptyMedia:
    return EmptyMedia(f"{display_name(source)} is empty (0 bytes); check that the recording was saved or sent completely.")


def _plain_type(value: str | None) -> str | None:
    plain = (value or "").partition(";")[0].strip().lower()
    return plain if plain and len(plain) <= 100 and plain.isascii() and plain.isprintable() else None


# -- local files --------------------------------------------------------------------------------------------------------


def _local_path(source: str) -> Path:
    return expanded(source)


def _file_url_path(source: str) -> Path:
    parts = urlsplit(source, allow_fragments=False)
    if parts.netloc not in ("", "localhost"):
        raise SourceForbidden("A file:// source must name a file on this machine, such as file:///folder/recording.wav.")
    return Path(path_of(source))


def _fetch_local(source: str, path: Path, folder: Path, settings: StenoSettings, report: Report) -> Fetched:
    try:
        # Not blocking, since opening a named pipe would otherwise wait for its writer beyond any cancel.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise _open_failure(source, path, error) from None
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        os.close(descriptor)
        kind = "folder, not a recording; give the files in it" if stat.S_ISDIR(mode) else "device, not a recording"
        raise SourceError(f"{readable(str(path))} is a {kind}.")
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if stat.S_ISFIFO(mode):
            return _received(source, folder, settings, lambda part: _read_pipe(part, file, report))
        digest, size = _hashed(file, settings.limits.max_bytes, report, path)
    if size == 0:
        raise _empty(source)
    return Fetched(path=path.absolute(), sha256=digest, bytes=size, name=display_name(source))


def _open_failure(source: str, path: Path, error: OSError | ValueError) -> SourceError:
    number, shown = error.errno if isinstance(error, OSError) else None, readable(str(path))
    if number in (errno.EACCES, errno.EPERM):
        return SourceDenied(f"{shown} is not readable by this user; check its permissions.")
    if number in (errno.ENXIO, errno.ENODEV):
        return SourceError(f"{shown} is a socket or a device, not a recording.")
    if number in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, None):
        if "::" in source:
            return SourceForbidden(
                "There is no such file, and chained URLs (`one::two`) are not supported; give the inner URL or a path."
            )
        return SourceNotFound(f"There is no file {full_address(str(path))}; check its spelling.")
    return SourceError(f"{shown} could not be opened: {os.strerror(number or 0)}.")


def _hashed(file: IO[bytes], max_bytes: int, report: Report, path: Path) -> tuple[str, int]:
    """SHA-256 and size of an open regular file, up to the cap."""
    total = os.fstat(file.fileno()).st_size
    digest, size = hashlib.sha256(), 0
    while True:
        if max(size, total) > max_bytes:
            raise SourceTooLarge(
                f"{readable(str(path))} exceeds the limit of {max_bytes} bytes",
                cure="give a smaller one, or raise STENO_LIMITS__MAX_BYTES",
            )
        report(size, total)
        try:
            block = file.read(BLOCK)
        except OSError as error:
            raise SourceError(f"{readable(str(path))} could not be read: {os.strerror(error.errno or 0)}.") from None
        if not block:
            return digest.hexdigest(), size
        digest.update(block)
        size += len(block)


# -- pipes --------------------------------------------------------------------------------------------------------------


def _read_stdin(part: PartFile, stdin: BinaryIO | None, report: Report) -> Served:
    stream = stdin or getattr(sys.stdin, "buffer", None)
    if stream is None or stream.closed:
        raise SourceError("Standard input is closed; pipe a recording into the command, or give a file.")
    if stream.isatty():
        raise SourceError("Standard input is a terminal; pipe a recording into the command, or give a file.")
    read = getattr(stream, "read1", stream.read)
    while block := read(BLOCK):
        part.write(block)
        report(part.size, None)
    return Served()


def _read_pipe(part: PartFile, file: IO[bytes], report: Report) -> Served:
    poll = select.poll()
    poll.register(file.fileno(), select.POLLIN | select.POLLHUP)
    while True:
        report(part.size, None)
        if not poll.poll(TICK_SECONDS * 1000):
            continue
        block = file.read(BLOCK)
        if not block:
            return Served()
        part.write(block)
