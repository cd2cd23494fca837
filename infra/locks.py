"""Exclusive locks by name on the store, so that what several runs need is computed by one of them.

On a folder a lock is flock(2) on a file: the kernel releases it when its holder dies, whichever way. (On NFS Linux turns
it into a lock of the file server; mounted with `nolock` it holds on one machine only.) On S3 it is an object written on
condition that there is none, renewed while it is held, and taken over by a conditional write once its holder was seen to be
gone, on the holder's machine, or it was not renewed for the lease. A holder that was paused for longer than that has lost it: it touches the object no more, and its work is
content-addressed, so the worst that happens is that a stage is computed twice. Elsewhere locks hold within the process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from infra.processes import is_gone, this_process
from infra.remote_errors import remote_status
from infra.storage_errors import storage_errors
from infra.store import Store

if TYPE_CHECKING:
    from infra.settings import StenoSettings

LOCKS = "locks"
_SAFE = 0.7
"""Share of the lease after its renewal within which nobody else can have taken the lock, slow requests included."""

_log = logging.getLogger(__name__)


class Lock(Protocol):
    def release(self) -> None:
        """Give the lock up; returns at once, and may be called again."""


class Locks:
    """The locks of one store, as this process takes them."""

    def __init__(self, store: Store, lease: float) -> None:
        self._leases = _Leases(store, lease) if store.is_s3 else None
        self._folder = Path(store.root, LOCKS) if store.is_local else None
        self._claims: dict[str, Claim] = {}
        self._guard = threading.Lock()

    def claim(self, name: str) -> tuple[Claim, bool]:
        """The right to ask the store for the lock, which one in this process has at a time, and whether it is new.

        So a hundred runs of one process that wait for the same lock cost the store no more than one; those that get the
        claim of another look at its `released`.
        """
        with self._guard:
            if (there := self._claims.get(name)) is not None:
                return there, False
            claim = self._claims[name] = Claim(self, name)
            return claim, True

    def try_acquire(self, name: str) -> Lock | None:
        """The lock, or None when another run holds it. Raises the errors of `infra.storage_errors`."""
        claim, new = self.claim(name)
        if not new:
            return None
        try:
            if claim.try_acquire():
                return claim
        except BaseException:
            claim.release()
            raise
        claim.release()
        return None

    def _held(self, name: str) -> Lock | None:
        with storage_errors("locking in the store"):
            if self._leases is not None:
                return self._leases.try_acquire(name)
            if self._folder is not None:
                return _FileLock.try_acquire(self._folder / name)
            return _NoLock()

    def _unclaim(self, name: str) -> None:
        with self._guard:
            self._claims.pop(name, None)


class Claim:
    """A name that nobody else in this process asks the store for, and the lock once there is one."""

    def __init__(self, locks: Locks, name: str) -> None:
        self._locks, self._name = locks, name
        self._lock: Lock | None = None
        self._guard = threading.Lock()
        self.released = False

    def try_acquire(self) -> bool:
        """Whether the lock is now held. Asks the store: call it from a thread.

        A lock that arrives after the claim was released, by a run that was cancelled meanwhile, is given up at once.
        """
        lock = self._locks._held(self._name)
        with self._guard:
            if not self.released:
                self._lock = lock
                return lock is not None
        if lock is not None:
            lock.release()
        return False

    def release(self) -> None:
        with self._guard:
            released, self.released = self.released, True
        if released:
            return
        try:
            if self._lock is not None:
                self._lock.release()
        finally:
            self._locks._unclaim(self._name)


_opened: tuple[Store, Locks] | None = None
_opening = threading.Lock()


def get_locks(store: Store, settings: StenoSettings) -> Locks:
    """The locks of the store; the same object for the same store, since it knows what this process holds."""
    global _opened  # noqa: PLW0603
    with _opening:
        if _opened is None or _opened[0] is not store:
            _opened = (store, Locks(store, settings.locks.lease))
        return _opened[1]


class _NoLock:
    def release(self) -> None:
        pass


# -- folders ------------------------------------------------------------------------------------------------------------


class _FileLock:
    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor

    @classmethod
    def try_acquire(cls, path: Path) -> Lock | None:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_ino == path.stat().st_ino:
                    return cls(path, descriptor)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except FileNotFoundError:
                pass  # its last holder removed it after it was opened here
            except OSError as error:
                os.close(descriptor)
                if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
                    _warn_once("The store's file system has no locks: runs of the same recording may compute it twice.")
                    return _NoLock()
                raise
            os.close(descriptor)

    def release(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            # Removed while it is held: whoever opened it meanwhile sees that it is not the file of that name any more.
            with contextlib.suppress(OSError):
                self._path.unlink()
            os.close(descriptor)


# -- object stores ------------------------------------------------------------------------------------------------------


class _Seen(NamedTuple):
    """A lock object as it was found."""

    etag: str
    token: str
    process: str
    age: float
    """Seconds since it was written, by the clock of the service."""


class _Leases:
    """Lock objects on S3. The service's clock decides what has expired, so that those of the machines may differ."""

    def __init__(self, store: Store, lease: float) -> None:
        self._fs: Any = store.fs
        self._root, self.lease = store.root, lease
        self._held: set[_Lease] = set()
        self._guard = threading.Lock()
        self._keeper: threading.Thread | None = None
        # Python waits for it at exit, so that a lock is not left behind by a process that ends right after a stage.
        self._releasing = ThreadPoolExecutor(4, thread_name_prefix="locks")

    def try_acquire(self, name: str) -> Lock | None:
        key = f"{self._root}/{LOCKS}/{name}"
        lease = _Lease(self, key)
        began = time.monotonic()
        try:
            etag = self._write(lease, IfNoneMatch="*")
        except Exception as error:
            if remote_status(error) != 501:
                raise
            _warn_once("This S3 service has no conditional writes: runs of the same recording may compute it twice.")
            return _NoLock()
        if etag is None:
            seen = self._look(key)
            if seen is not None and seen.token == lease.token:
                etag = seen.etag  # it was written here: only the answer was lost
            elif seen is not None and (seen.age > self.lease or is_gone(seen.process)):
                etag = self._write(lease, IfMatch=seen.etag)
            if etag is None:
                return None
        lease.renewed(etag, began)
        with self._guard:
            self._held.add(lease)
            if self._keeper is None or not self._keeper.is_alive():
                self._keeper = threading.Thread(target=self._keep, name="lock keeper", daemon=True)
                self._keeper.start()
        return lease

    def renew(self, lease: _Lease) -> None:
        began = time.monotonic()
        etag = self._write(lease, IfMatch=lease.etag)
        if etag is None:
            seen = self._look(lease.key)
            if seen is None or seen.token != lease.token:
                self.drop(lease)
                _log.warning("A lock was lost because it could not be renewed in time; its stage may be computed twice.")
                return
            etag = seen.etag
        lease.renewed(etag, began)

    def drop(self, lease: _Lease) -> None:
        with self._guard:
            self._held.discard(lease)

    def release(self, lease: _Lease) -> None:
        self.drop(lease)
        with contextlib.suppress(RuntimeError):  # the interpreter is ending: the lease runs out
            self._releasing.submit(self._delete, lease)

    def _delete(self, lease: _Lease) -> None:
        with contextlib.suppress(Exception), lease.guard:
            if time.monotonic() < lease.renewed_at + _SAFE * self.lease:
                self._fs.rm_file(lease.key)

    def _keep(self) -> None:
        while True:
            time.sleep(self.lease / 6)
            with self._guard:
                due = [lease for lease in self._held if time.monotonic() > lease.renewed_at + self.lease / 3]
            for lease in due:
                with contextlib.suppress(Exception), lease.guard:
                    if lease in self._held:
                        self.renew(lease)

    def _write(self, lease: _Lease, **condition: str) -> str | None:
        """Its new ETag; None when the condition does not hold. Every write has another body, hence another ETag."""
        bucket, key, _ = self._fs.split_path(lease.key)
        told = {"token": lease.token, "process": lease.process}
        try:
            answer = self._fs.call_s3(
                "put_object", Bucket=bucket, Key=key, Body=uuid.uuid4().hex.encode(), Metadata=told, **condition
            )
        except Exception as error:
            gone = isinstance(error, FileNotFoundError) and "IfMatch" in condition
            # 409: somebody else's conditional write was under way.
            if gone or isinstance(error, FileExistsError) or remote_status(error) in (409, 412):
                return None
            raise
        return str(answer["ETag"])

    def _look(self, lock: str) -> _Seen | None:
        bucket, key, _ = self._fs.split_path(lock)
        try:
            head = self._fs.call_s3("head_object", Bucket=bucket, Key=key)
        except FileNotFoundError:
            return None
        now = parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"]["date"])
        age = (now - head["LastModified"]).total_seconds()
        told = head.get("Metadata", {})
        return _Seen(head["ETag"], told.get("token", ""), told.get("process", ""), age)


class _Lease:
    def __init__(self, leases: _Leases, key: str) -> None:
        self._leases, self.key = leases, key
        self.token = uuid.uuid4().hex
        self.process = this_process()
        self.guard = threading.Lock()
        self.etag, self.renewed_at = "", 0.0

    def renewed(self, etag: str, at: float) -> None:
        self.etag, self.renewed_at = etag, at

    def release(self) -> None:
        self._leases.release(self)


_warned: set[str] = set()


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        _log.warning("%s", message)
