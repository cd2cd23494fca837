"""What killed processes leave in the store: halves of writes, parted uploads, locks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra.locks import LOCKS
from infra.storage_errors import storage_errors
from infra.store import Store

FOLDERS = ("artifacts", "records", "uploads")
"""Where a store's files are written, beside its locks."""
_PART = re.compile(r"\..*\.part")


def abort_uploads(store: Store, grace: float, *, dry_run: bool = False) -> int:
    """Abort parted uploads to S3 that were begun more than `grace` seconds ago: they cost as stored bytes do."""
    if not store.is_s3:
        return 0
    bucket, prefix, _ = store.fs.split_path(store.root)
    stale = []
    with storage_errors("listing unfinished uploads"):
        for folder in FOLDERS:
            for upload in _uploads(store, bucket, f"{prefix}/{folder}/".lstrip("/")):
                if time.time() - upload["Initiated"].timestamp() > grace:
                    stale.append(upload)
        for upload in stale if not dry_run else ():
            with contextlib.suppress(FileNotFoundError):
                store.fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    return len(stale)


def _uploads(store: Store, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    markers: dict[str, str] = {}
    while True:
        page = store.fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **markers)
        yield from page.get("Uploads", ())
        if not page.get("IsTruncated"):
            return
        markers = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def stale_parts(store: Store, grace: float, *, dry_run: bool = False) -> int:
    """Remove files that were being written aside when their process died."""
    if store.is_s3:
        return 0  # an object is there whole or not at all
    stale = [
        file.path
        for folder in FOLDERS
        for file in store.files(folder, parts=True)
        if _PART.fullmatch(file.path.rpartition("/")[2]) and 0 < file.modified < time.time() - grace
    ]
    for path in stale if not dry_run else ():
        store.delete(path)
    return len(stale)


def expired_locks(store: Store, grace: float, *, dry_run: bool = False) -> int:
    """Remove locks that nobody holds: their holders were killed, and nobody has asked for them since."""
    stale = [file for file in store.files(LOCKS) if time.time() - file.modified > grace]
    if store.is_local:
        return sum(_remove_unheld(Path(store.root, file.path), dry_run) for file in stale)
    for file in stale if not dry_run else ():
        store.delete(file.path)
    return len(stale)


def _remove_unheld(path: Path, dry_run: bool) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not dry_run and os.fstat(descriptor).st_ino == path.stat().st_ino:
            path.unlink()
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
