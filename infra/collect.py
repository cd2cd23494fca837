"""Collecting garbage: artifacts by age and size, never one in use, and what points to them.

Beside runs: see `infra.usage` for why a run never loses what it uses. Beside another collector: one is at work at a time.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

from infra import drafts, edits, usage
from infra.collected import Collected
from infra.jobs import SHARDS
from infra.on_modal import copies
from infra.scratch import sweep
from infra.settings import StenoSettings
from infra.storage import StoredFile
from infra.store import Store
from infra.usage import Use
from stenoflow.types import Frozen

DAY = 86_400.0
_AT_ONCE = 16
_BATCH = 200
"""Artifacts that are condemned together: a run that needs one of them waits until the batch is through."""
_DATED = ("runs", "done", "handles")
"""Folders of records that STENO_RETENTION__RECORD_DAYS is about."""

A = TypeVar("A")
T = TypeVar("T")


class Limits(Frozen):
    """What may go, beside what runs said may go (`retention_days`)."""

    older_than: float | None = None
    """Seconds since an artifact was last used."""
    max_bytes: int | None = None
    """Bytes of artifacts to come down to, least recently used first."""
    dry_run: bool = False


class Listed(NamedTuple):
    """A use as it was when it was read."""

    file: StoredFile
    use: Use


@dataclass
class Inventory:
    """All that is in the store, and how it hangs together."""

    artifacts: dict[str, StoredFile]
    points_to: dict[str, frozenset[str]]
    """Record → artifacts."""
    uses: dict[str, Listed]

    @cached_property
    def records_of(self) -> dict[str, set[str]]:
        """Artifact → records."""
        found: dict[str, set[str]] = defaultdict(set)
        for record, paths in self.points_to.items():
            for path in paths:
                found[path].add(record)
        return dict(found)

    @cached_property
    def led_to(self) -> dict[str, set[str]]:
        """Stage's key, or another record's name → artifacts, those of its shards included."""
        found: dict[str, set[str]] = defaultdict(set)
        for record, paths in self.points_to.items():
            for part in record.split("/"):
                found[part] |= paths
        return dict(found)

    def named_by(self, use: Use) -> set[str]:
        """The artifacts that it names, or the key of a record that leads to them."""
        return {*use.artifacts, *(path for key in use.keys for path in self.led_to.get(key, ()))}

    @cached_property
    def users(self) -> dict[str, list[Use]]:
        """Artifact → uses that name it; claims no longer than until the record is there that they stand for."""
        found: dict[str, list[Use]] = defaultdict(list)
        for _, use in self.uses.values():
            for path in self.named_by(use):
                if not (use.claim and path in self.points_to.get(use.by, ())):
                    found[path].append(use)
        return dict(found)

    def users_of(self, path: str) -> list[Use]:
        return self.users.get(path, [])


def collect(
    store: Store, settings: StenoSettings, limits: Limits, report: Callable[[str], None] = lambda line: None
) -> Collected:
    """Delete expired artifacts. Blocks for minutes on a large store; `report` receives progress lines.

    Raises the errors of `infra.storage_errors`; what was removed until then stays removed, and that is harmless.
    """
    lock = store.locks.try_acquire("collector") if not limits.dry_run else None
    if lock is None and not limits.dry_run:
        return Collected(busy=True)
    try:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="collect") as pool:
            return Collector(store, settings, limits, pool, report).collect()
    finally:
        if lock is not None:
            lock.release()


class Collector:
    def __init__(
        self, store: Store, settings: StenoSettings, limits: Limits, pool: ThreadPoolExecutor, report: Callable[[str], None]
    ) -> None:
        self.store, self.settings, self.limits, self.pool, self.report = store, settings, limits, pool, report
        self.grace = settings.retention.grace_hours * 3600
        self.now = time.time()

    def collect(self) -> Collected:
        self.report("listing the store")
        inventory = self._inventory()
        victims = self._victims(inventory)
        dry = self.limits.dry_run
        self.report(f"{'would remove' if dry else 'removing'} {len(victims)} of {len(inventory.artifacts)} artifacts")
        removed, records = (set(victims), self._records_only_of(inventory, victims)) if dry else self.remove(inventory, victims)
        left = {path: file for path, file in inventory.artifacts.items() if path not in removed}
        records += self._obsolete_records(inventory, left)
        uploads = self.store.abort_uploads(self.grace, dry_run=dry)
        leftovers = self.store.remove_parts(self.grace, dry_run=dry)
        leftovers += self.store.locks.sweep(self.grace, dry_run=dry)
        if not dry:
            leftovers += sweep(self.settings.scratch_path)
            copies.remove_left(self.store)
        held = [path for path in left if self._in_use(inventory, path)]
        return Collected(
            artifacts=len(removed),
            bytes=sum(inventory.artifacts[path].bytes for path in removed),
            records=records,
            uploads=uploads,
            leftovers=leftovers,
            kept=len(left),
            kept_bytes=sum(file.bytes for file in left.values()),
            in_use=len(held),
            in_use_bytes=sum(left[path].bytes for path in held),
            dry_run=dry,
        )

    # -- what there is ------------------------------------------------------------------------------------------------

    def _inventory(self) -> Inventory:
        # Artifacts first: one that is written from now on is not among those that may go.
        artifacts = {file.path: file for file in self.store.files("artifacts")}
        records = [file.path.removeprefix("records/") for file in self.store.files("records")]
        records = [name for name in records if "/" not in name or name.startswith((f"{SHARDS}/", f"{edits.FOLDER}/"))]
        points_to = dict(zip(records, self._each(self.leads_to, records), strict=True))
        return Inventory(artifacts, points_to, self.uses({}))

    def leads_to(self, record: str) -> frozenset[str]:
        """The artifacts that the record names."""
        return usage.paths_in(self.store.read_record(record))

    def uses(self, known: dict[str, Listed]) -> dict[str, Listed]:
        """All uses; those that have not changed since they were `known` are not read again."""
        files = {file.path.rpartition("/")[2]: file for file in self.store.files(f"records/{usage.USES}")}
        # Times of object stores are in seconds: what was written just now may have changed within the same one.
        old = {
            name: known[name]
            for name, file in files.items()
            if name in known and known[name].file == file and file.modified < self.now - 5
        }
        new = [name for name in files if name not in old]
        read = zip(new, self._each(lambda name: usage.read_use(self.store, name), new), strict=True)
        return old | {name: Listed(files[name], use) for name, use in read if use is not None}

    def _each(self, work: Callable[[A], T], items: Iterable[A]) -> list[T]:
        return list(self.pool.map(work, items))

    # -- what may go --------------------------------------------------------------------------------------------------

    def _in_use(self, inventory: Inventory, path: str) -> bool:
        return any(use.active(self.now, self.grace) for use in inventory.users_of(path))

    def _victims(self, inventory: Inventory) -> list[str]:
        """Least recently used first."""
        free = [path for path in inventory.artifacts if not self._in_use(inventory, path)]
        last_used = {path: self._last_used(inventory, path) for path in free}
        free.sort(key=lambda path: last_used[path])
        victims = [path for path in free if self._may_go(inventory, path, self.now - last_used[path])]
        if self.limits.max_bytes is None:
            return victims
        total = sum(file.bytes for file in inventory.artifacts.values())
        total -= sum(inventory.artifacts[path].bytes for path in victims)
        chosen = set(victims)
        for path in free:
            if total <= self.limits.max_bytes:
                break
            if path not in chosen and not self._fresh_orphan(inventory, path):
                victims.append(path)
                total -= inventory.artifacts[path].bytes
        return victims

    def _last_used(self, inventory: Inventory, path: str) -> float:
        return max([inventory.artifacts[path].modified, *(use.beat for use in inventory.users_of(path))])

    def _may_go(self, inventory: Inventory, path: str, unused_for: float) -> bool:
        users = inventory.users_of(path)
        if not users and path not in inventory.records_of:
            return not self._fresh_orphan(inventory, path)
        if users and all(use.expired(self.now, self.grace) for use in users):
            return not self._fresh_orphan(inventory, path)
        if unused_for >= self.grace and all(
            record.startswith(f"{SHARDS}/") for record in inventory.records_of.get(path, ("",))
        ):
            return True  # of a stage that has not ended: it is retried soon, or not at all
        older_than = self.limits.older_than
        return older_than is not None and unused_for >= older_than and not self._fresh_orphan(inventory, path)

    def _fresh_orphan(self, inventory: Inventory, path: str) -> bool:
        """Whether it may be of a stage at work that has written its artifact and not yet the record that leads to it."""
        return path not in inventory.records_of and self.now - inventory.artifacts[path].modified < self.grace

    # -- removing -----------------------------------------------------------------------------------------------------

    def remove(self, inventory: Inventory, victims: list[str]) -> tuple[set[str], int]:
        """The artifacts that were removed, and how many records with them."""
        removed: set[str] = set()
        records = 0
        for start in range(0, len(victims), _BATCH):
            batch = victims[start : start + _BATCH]
            usage.mark_for_deletion(self.store, batch)
            try:
                taken = self._take_records(inventory, batch)
                self.now = time.time()
                inventory = Inventory(inventory.artifacts, inventory.points_to, self.uses(inventory.uses))
                spared = {path for path in batch if self._in_use(inventory, path)}
                restored = {name for name in taken if inventory.points_to[name] & spared}
                self._each(lambda record: self._restore(*record), [(name, taken[name]) for name in restored])
                gone = [path for path in batch if path not in spared]
                self._each(self.store.delete, gone)
                copies.remove(self.store, gone)
            finally:
                usage.clear_deletion_marks(self.store)
            removed |= set(gone)
            records += len(taken) - len(restored)
            self.report(f"removed {len(removed)} of {len(victims)} artifacts")
        return removed, records

    def _take_records(self, inventory: Inventory, batch: list[str]) -> dict[str, bytes]:
        """Delete the records that lead to these artifacts; what was in them."""
        doomed = set(batch)
        taken: dict[str, bytes] = {}
        guard = threading.Lock()

        def take(name: str) -> None:
            content = self.store.read_record(name)
            if content and doomed & usage.paths_in(content):
                self.store.delete_record(name)
                with guard:
                    taken[name] = content

        self._each(take, {name for path in batch for name in inventory.records_of.get(path, ())})
        return taken

    def _restore(self, name: str, content: bytes) -> None:
        """A run found this record before it was deleted; other runs shall find it too."""
        if self.store.read_record(name) is None:
            self.store.write_record(name, content)

    def _records_only_of(self, inventory: Inventory, victims: list[str]) -> int:
        return len({name for path in victims for name in inventory.records_of.get(path, ())})

    def _obsolete_records(self, inventory: Inventory, left: dict[str, StoredFile]) -> int:
        """Delete records whose artifact is missing, usage records without artifacts, and what STENO_RETENTION__RECORD_DAYS ends."""
        lost = [name for name, paths in inventory.points_to.items() if paths and not paths & inventory.artifacts.keys()]
        led = self._each(lambda name: any(map(self.store.exists, self.leads_to(name))), lost)
        doomed = [name for name, there in zip(lost, led, strict=True) if not there]
        for name, (_, use) in inventory.uses.items():
            if not use.active(self.now, self.grace) and (use.claim or not left.keys() & inventory.named_by(use)):
                doomed.append(f"{usage.USES}/{name}")
        if (days := self.settings.retention.record_days) is not None:
            for folder in _DATED:
                old = (file for file in self.store.files(f"records/{folder}") if file.modified < self.now - days * DAY)
                doomed += [file.path.removeprefix("records/") for file in old]
        doomed += [file.path.removeprefix("records/") for file in drafts.abandoned(self.store, self.now)]
        if not self.limits.dry_run:
            self._each(self.store.delete_record, doomed)
        return len(doomed)
