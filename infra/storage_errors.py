"""What storage says when it refuses, as our own errors."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from infra.remote_errors import RemoteFault, remote_fault
from stenoflow.errors import OutputNotWritable, StenoError, StorageFull, TransientError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""A full disk, a quota, and a limit on the size of files."""
_UNWRITABLE = (errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)


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
                f"No space left on the device while {doing}", cure="free some, or point STENO_STORE and STENO_SCRATCH elsewhere"
            ) from error
        fault = remote_fault(error)
        if fault in (RemoteFault.DENIED, RemoteFault.NO_CREDENTIALS) or (
            isinstance(error, OSError) and error.errno in _UNWRITABLE
        ):
            raise OutputNotWritable(
                f"Not permitted or not possible while {doing}",
                cure="check the place, permissions and credentials of STENO_STORE and STENO_SCRATCH",
            ) from error
        if fault is RemoteFault.TRANSIENT:
            raise TransientError(f"The storage did not answer while {doing}; try again later.") from error
        raise


@contextlib.contextmanager
def missing_is_unwritable() -> Iterator[None]:
    """Writing to an object store finds something missing only when it is the bucket."""
    try:
        yield
    except FileNotFoundError as error:
        raise OutputNotWritable(
            "The bucket of the store does not exist", cure="create it, or name another in STENO_STORE"
        ) from error
