"""What the errors of fsspec and the cloud SDKs under it mean, told without importing any of them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from enum import Enum

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
