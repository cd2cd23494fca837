"""What storage says when it refuses: which fault the errors of fsspec and the cloud SDKs stand for, told without importing any of
them, and the same as our own errors."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from enum import Enum

from stenoflow.errors import OutputNotWritable, StenoError, StorageFull, TransientError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""A full disk, a quota, and a limit on the size of files."""
_UNWRITABLE = (errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)
_TRANSIENT_ERRNOS = {errno.EIO, errno.EBUSY, errno.ETIMEDOUT, getattr(errno, "EREMOTEIO", errno.EIO)}
# botocore, aiohttp, azure-core and fsspec each have their own.
_TRANSIENT_TYPES = {
    "ConnectionError",
    "HTTPClientError",
    "ResponseStreamingError",
    "ClientConnectionError",
    "ClientPayloadError",
    "IncompleteRead",
    "FSTimeoutError",
    "ServiceRequestError",
    "ServiceResponseError",
}


class RemoteFault(Enum):
    MISSING = "missing"
    FOLDER = "folder"
    NO_CREDENTIALS = "no credentials"
    DENIED = "denied"
    CHANGED = "changed"
    TRANSIENT = "transient"
    OTHER = "other"


def remote_fault(error: BaseException) -> RemoteFault:
    """Which fault an exception from a remote filesystem stands for."""
    status = remote_status(error)
    name = type(error).__name__
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return RemoteFault.MISSING
    if isinstance(error, IsADirectoryError):
        return RemoteFault.FOLDER
    if name == "NoCredentialsError":
        return RemoteFault.NO_CREDENTIALS
    if isinstance(error, PermissionError) or status in (401, 403) or "Credential" in name:
        return RemoteFault.DENIED
    if name == "FileExpired" or status == 412:
        return RemoteFault.CHANGED
    if any(kind.__name__ in _TRANSIENT_TYPES for cause in _chain(error) for kind in type(cause).__mro__):
        # Before the status: aiohttp gives a body that broke off the code 400.
        return RemoteFault.TRANSIENT
    if status is not None:
        return RemoteFault.TRANSIENT if status >= 500 or status in (408, 429) else RemoteFault.OTHER
    return RemoteFault.TRANSIENT if _is_transient(error) else RemoteFault.OTHER


def remote_status(error: BaseException) -> int | None:
    """The HTTP status that the error, or what caused it, carries."""
    return next(filter(None, map(_own_status, _chain(error))), None)


@contextlib.contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Have storage that is full, closed to us or out of reach say so; a missing file stays FileNotFoundError."""
    try:
        yield
    except (StenoError, FileNotFoundError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise StorageFull(
                f"No space left on the device while {doing}",
                cure="free some, or set STENO_STORE and STENO_SCRATCH to another disk",
            ) from error
        fault = remote_fault(error)
        if fault in (RemoteFault.DENIED, RemoteFault.NO_CREDENTIALS) or (
            isinstance(error, OSError) and error.errno in _UNWRITABLE
        ):
            raise OutputNotWritable(
                f"The storage rejected the operation while {doing}",
                cure="check the location, permissions and credentials of STENO_STORE and STENO_SCRATCH",
            ) from error
        if fault is RemoteFault.TRANSIENT:
            raise TransientError(f"The storage did not respond while {doing}; try again later.") from error
        raise


@contextlib.contextmanager
def missing_is_unwritable() -> Iterator[None]:
    """Writing to an object store finds something missing only when it is the bucket."""
    try:
        yield
    except FileNotFoundError as error:
        raise OutputNotWritable(
            "The bucket of the store does not exist", cure="create it, or set another in STENO_STORE"
        ) from error


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, TimeoutError | ConnectionError) or (
        isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _own_status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        value = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        value = next(filter(None, (getattr(error, name, None) for name in ("status", "status_code", "code"))), None)
    return int(value) if isinstance(value, int | str) and str(value).isdecimal() and 400 <= int(value) < 600 else None
