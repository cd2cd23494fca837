"""Locks on storage that has no locks but writes on condition: an object that is renewed while its lock is held.

It is written on condition that there is none, and taken over by a conditional write once its holder was seen to be gone, on the
holder's machine, or it was not renewed for the lease. The service's clock decides what has expired, so that those of the machines
may differ. A holder that was paused for longer than the lease has lost the lock: it touches the object no more, and its work is
content-addressed, so the worst that happens is that a stage is computed twice.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple, Protocol

from infra.processes import has_exited, this_process
from infra.storage.base import Lock, StoredFile
from infra.storage_errors import remote_status

LOCKS = "locks"
"""The folder of a store's locks."""
_SAFE = 0.7
"""Share of the lease after its renewal within which nobody else can have taken the lock, slow requests included."""

_log = logging.getLogger(__name__)


class Seen(NamedTuple):
    """An object as it was found."""

    version: str
    """What changes with every write: an ETag, a generation."""
    labels: dict[str, str]
    age: float
    """Seconds since it was written, by the clock of the service."""


class Conditional(Protocol):
    """Storage that writes on condition. Labels are kept beside an object, as what each service calls metadata."""

    def create(self, path: str, content: bytes, labels: dict[str, str]) -> str | None:
        """The version that was written; None when something is there already, or just being written."""

    def replace(self, path: str, content: bytes, labels: dict[str, str], version: str) -> str | None:
        """The new version; None when what is there is another one than `version`, or nothing."""

    def look(self, path: str) -> Seen | None:
        """What is there; None when nothing is."""

    def files(self, folder: str, *, parts: bool = False) -> Iterator[StoredFile]: ...

    def delete(self, path: str) -> None: ...


class Leases:
    """The lock objects that this process holds, which one thread renews."""

    def __init__(self, storage: Conditional, lease: float) -> None:
        self._storage, self.lease = storage, lease
        self._held: set[_Lease] = set()
        self._guard = threading.Lock()
        self._keeper: threading.Thread | None = None
        # Python waits for it at exit, so that a lock is not left behind by a process that ends right after a stage.
        self._releasing = ThreadPoolExecutor(4, thread_name_prefix="locks")

    def try_acquire(self, name: str) -> Lock | None:
        lease = _Lease(self, f"{LOCKS}/{name}")
        began = time.monotonic()
        try:
            version = self._storage.create(lease.path, _body(), lease.labels)
        except Exception as error:
            if remote_status(error) != 501:
                raise
            warn_once(
                "The storage service does not support conditional writes: concurrent runs of the same recording may compute it twice."
            )
            return NoLock()
        if version is None:
            seen = self._storage.look(lease.path)
            if seen is not None and seen.labels.get("token") == lease.labels["token"]:
                version = seen.version  # it was written here: only the answer was lost
            elif seen is not None and (seen.age > self.lease or has_exited(seen.labels.get("process", ""))):
                version = self._storage.replace(lease.path, _body(), lease.labels, seen.version)
            if version is None:
                return None
        lease.renewed(version, began)
        with self._guard:
            self._held.add(lease)
            if self._keeper is None or not self._keeper.is_alive():
                self._keeper = threading.Thread(target=self._keep, name="lock keeper", daemon=True)
                self._keeper.start()
        return lease

    def sweep(self, grace: float, *, dry_run: bool) -> int:
        stale = [file.path for file in self._storage.files(LOCKS) if time.time() - file.modified > grace]
        for path in stale if not dry_run else ():
            with contextlib.suppress(FileNotFoundError):
                self._storage.delete(path)
        return len(stale)

    def renew(self, lease: _Lease) -> None:
        began = time.monotonic()
        version = self._storage.replace(lease.path, _body(), lease.labels, lease.version)
        if version is None:
            seen = self._storage.look(lease.path)
            if seen is None or seen.labels.get("token") != lease.labels["token"]:
                self.drop(lease)
                _log.warning("A lock expired before it could be renewed; its stage may be computed twice.")
                return
            version = seen.version
        lease.renewed(version, began)

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
                self._storage.delete(lease.path)

    def _keep(self) -> None:
        while True:
            time.sleep(self.lease / 6)
            with self._guard:
                due = [lease for lease in self._held if time.monotonic() > lease.renewed_at + self.lease / 3]
            for lease in due:
                with contextlib.suppress(Exception), lease.guard:
                    if lease in self._held:
                        self.renew(lease)


class _Lease:
    def __init__(self, leases: Leases, path: str) -> None:
        self._leases, self.path = leases, path
        self.labels = {"token": uuid.uuid4().hex, "process": this_process()}
        self.guard = threading.Lock()
        self.version, self.renewed_at = "", 0.0

    def renewed(self, version: str, at: float) -> None:
        self.version, self.renewed_at = version, at

    def release(self) -> None:
        self._leases.release(self)


class NoLocks:
    """Of storage that has neither locks nor writes on condition: what `infra.locks` does within a process is all there is."""

    def try_acquire(self, name: str) -> Lock | None:
        return NoLock()

    def sweep(self, grace: float, *, dry_run: bool) -> int:
        return 0


class NoLock:
    def release(self) -> None:
        pass


def _body() -> bytes:
    """Another one for every write, so that every write has another ETag."""
    return uuid.uuid4().hex.encode()


@cache
def warn_once(message: str) -> None:
    _log.warning("%s", message)
