"""Removing what one run left in the store, as far as no other run has to do with it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from infra import drafts, edits, usage, voices, waveform
from infra.collect import Collector, Inventory, Limits, Listed
from infra.jobs import SHARDS
from infra.settings import StenoSettings
from infra.storage import StoredFile
from infra.store import Store

_AT_ONCE = 8
_CLAIMED = 600.0
"""Seconds after which the claim of an artifact that was computed twice says nothing: its run has named it by then."""


def remove_run(store: Store, settings: StenoSettings, run: str) -> bool:
    """Remove the ended run's outcome, and its artifacts with the records that lead to them; False while garbage is collected.

    An artifact that any other run used stays, however long ago that was. Blocks: reads what every run uses.
    Raises the errors of `infra.storage_errors`.
    """
    lock = store.locks.try_acquire("collector")
    if lock is None:
        return False
    try:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="remove") as pool:
            collector = Collector(store, settings, Limits(), pool, lambda line: None)
            _remove(store, collector, run)
    finally:
        lock.release()
    store.delete_record(f"{usage.USES}/{run}")
    store.delete_record(f"runs/{run}")
    voices.forget_names(store, run)
    for name in edits.records_of(store, run):
        store.delete_record(name)
    return True


def _remove(store: Store, collector: Collector, run: str) -> None:
    use = usage.read_use(store, run)
    if use is None:
        return
    waveforms = [waveform.record_of(PurePosixPath(path).stem) for path in use.artifacts if path.startswith("artifacts/audio/")]
    for key in use.keys:
        store.delete_record(f"{drafts.FOLDER}/{key}")
    records = (*use.keys, *_shard_records(store, use), *waveforms, *edits.records_of(store, run))
    points_to = {record: collector.leads_to(record) for record in records}
    paths = sorted({*use.artifacts, *(path for led in points_to.values() for path in led)})
    found = {path: StoredFile(path, 0, 0.0) for path in paths if store.exists(path)}
    inventory = Inventory(found, points_to, _without_claims(store, use, collector.uses({})))
    mine = [path for path in found if all(other.run == run for other in inventory.users_of(path))]
    # What the run itself still holds by its retention must not spare anything.
    usage.write_use(store, use.model_copy(update={"ended": True, "retention": 0.0}))
    collector.remove(inventory, mine)


def _without_claims(store: Store, use: usage.Use, uses: dict[str, Listed]) -> dict[str, Listed]:
    """The uses, but for claims that say nothing any more, which are removed: the run's own, and those of runs that have named
    what they claimed by now."""
    since = time.time() - _CLAIMED
    spent = {name for name, (_, other) in uses.items() if other.claim and (other.by in use.keys or other.beat < since)}
    for name in spent:
        store.delete_record(f"{usage.USES}/{name}")
    return {name: listed for name, listed in uses.items() if name not in spent}


def _shard_records(store: Store, use: usage.Use) -> list[str]:
    """Of the stages that the run divided and did not finish."""
    found = (file.path.removeprefix("records/") for file in store.files(f"records/{SHARDS}"))
    return [record for record in found if record.split("/")[1] in use.keys]
