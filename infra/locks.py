"""Exclusive locks by name on the store, so that what several runs need is computed by one of them.

How they hold depends on the storage: flock(2) in a folder (`infra.storage.folder`), objects written on condition where a service
can (`infra.storage.leases`). Elsewhere locks hold within the process.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from infra.storage import Lock
from infra.storage_errors import storage_errors
from stenoflow.errors import TransientError

if TYPE_CHECKING:
    from infra.store import Store


_PATIENCE, _PAUSE = 10.0, 0.05
"""Seconds that a change waits for others', and between two attempts."""


class Locks:
    """The locks of one store, as this process takes them."""

    def __init__(self, store: Store, lease: float) -> None:
        self._store = store.storage.locks(lease)
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

    @contextlib.contextmanager
    def held(self, name: str, busy: str) -> Iterator[None]:
        """Hold the lock inside the block, for changes that take no time. Raises TransientError, which says `busy`, when others keep it."""
        end = time.monotonic() + _PATIENCE
        while (lock := self.try_acquire(name)) is None:
            if time.monotonic() > end:
                raise TransientError(busy)
            time.sleep(_PAUSE)
        try:
            yield
        finally:
            lock.release()

    def sweep(self, grace: float, *, dry_run: bool = False) -> int:
        """Delete abandoned locks: their holders were killed, and there was no attempt to acquire them in `grace` seconds."""
        with storage_errors("sweeping locks"):
            return self._store.sweep(grace, dry_run=dry_run)

    def _try_acquire(self, name: str) -> Lock | None:
        with storage_errors("locking in the store"):
            return self._store.try_acquire(name)

    def _unclaim(self, name: str) -> None:
        with self._guard:
            self._claims.pop(name, None)


class Claim:
    """A name claimed by this process, and its lock once acquired."""

    def __init__(self, locks: Locks, name: str) -> None:
        self._locks, self._name = locks, name
        self._lock: Lock | None = None
        self._guard = threading.Lock()
        self.released = False

    def try_acquire(self) -> bool:
        """Whether the lock is now held. Asks the store: call it from a thread.

        A lock that arrives after the claim was released, by a run that was cancelled meanwhile, is released immediately.
        """
        lock = self._locks._try_acquire(self._name)
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
