"""What the collector removes and what it leaves, by age, size, retention and use; on a folder and on S3."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import cast

import pytest

from infra import usage
from infra.artifacts import ArtifactRef, Kind
from infra.collect import DAY, Limits, collect
from infra.collected import Collected
from infra.jobs import shard_record
from infra.settings import RetentionSettings, StenoSettings
from infra.storage.remote import Remote
from infra.storage.s3 import S3
from infra.store import Store
from infra.usage import RunUse, Use
from tests.s3_faults import FaultyS3

EVERYTHING = Limits(older_than=0)
SIZE = 1000


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store(str(tmp_path / "store"), tmp_path / "scratch")
    service: FaultyS3 = request.getfixturevalue("faulty_s3")
    return Store(f"s3://{service.bucket()}/store", tmp_path / "scratch", service.settings)


@pytest.fixture
def folder(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), tmp_path / "scratch")


def settings(tmp_path: Path, **retention: float) -> StenoSettings:
    return StenoSettings(home=tmp_path, retention=RetentionSettings(**retention))


def gc(store: Store, tmp_path: Path, limits: Limits = EVERYTHING, **retention: float) -> Collected:
    return collect(store, settings(tmp_path, **retention), limits)


class Made:
    """A stage's record and its artifact."""

    def __init__(self, store: Store, number: int, kind: Kind = "asr", days_old: float = 0.0) -> None:
        self.store, self.key = store, f"{number:064x}"
        path = store.scratch / f"made-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]) * SIZE)
        self.ref: ArtifactRef = store.put(path, kind)
        path.unlink()
        store.write_record(self.key, json.dumps({"result": {"artifact": self.ref.model_dump()}}).encode())
        if days_old:
            old = time.time() - days_old * DAY
            os.utime(Path(store.root, self.ref.path), (old, old))

    @property
    def there(self) -> bool:
        artifact, record = self.store.exists(self.ref.path), self.store.read_record(self.key) is not None
        assert artifact == record, "an artifact and its record go together"
        return artifact

    def used(self, run: str, *, ended_days_ago: float | None = None, retention_days: float | None = None) -> None:
        beat = time.time() - (ended_days_ago or 0.0) * DAY
        retention = None if retention_days is None else retention_days * DAY
        use = Use(run=run, keys=(self.key,), beat=beat, ended=ended_days_ago is not None, retention=retention)
        usage.write_use(self.store, use)


def test_what_a_run_uses_stays_whatever_is_asked_for(store: Store, tmp_path: Path) -> None:
    by_key, free = Made(store, 1), Made(store, 2)
    by_path = Made(store, 3)
    by_key.used("run")
    usage.write_use(store, Use(run="other", artifacts=(by_path.ref.path,), beat=time.time()))
    done = gc(store, tmp_path, Limits(older_than=0, max_bytes=0))
    assert [made.there for made in (by_key, free, by_path)] == [True, False, True]
    assert (done.artifacts, done.bytes, done.records) == (1, SIZE, 1)
    assert (done.kept, done.kept_bytes, done.in_use, done.in_use_bytes) == (2, 2 * SIZE, 2, 2 * SIZE)


def test_retention_of_a_run_is_a_promise_and_an_end(store: Store, tmp_path: Path) -> None:
    promised, over, forever = Made(store, 1), Made(store, 2), Made(store, 3)
    promised.used("a", ended_days_ago=1, retention_days=7)
    over.used("b", ended_days_ago=8, retention_days=7)
    forever.used("c", ended_days_ago=400)
    gc(store, tmp_path, Limits())
    assert [made.there for made in (promised, over, forever)] == [True, False, True]
    gc(store, tmp_path)
    assert [made.there for made in (promised, over, forever)] == [True, False, False]
    assert [file.path for file in store.files("records/uses")] == ["records/uses/a"]


def test_a_claim_holds_until_the_record_is_there_that_it_stands_for(store: Store, tmp_path: Path) -> None:
    made = Made(store, 1)
    path = tmp_path / "again"
    path.write_bytes(bytes([1]) * SIZE)
    store.put(path, "asr", by=f"{2:064x}")
    gc(store, tmp_path)
    assert made.there, "another stage came to the same, and is about to say so"
    store.write_record(f"{2:064x}", json.dumps({"result": {"artifact": made.ref.model_dump()}}).encode())
    gc(store, tmp_path)
    assert not store.exists(made.ref.path)


def test_the_longest_promise_counts(folder: Store, tmp_path: Path) -> None:
    shared, kept = Made(folder, 1), Made(folder, 2)
    shared.used("a", ended_days_ago=8, retention_days=7)
    shared.used("b", ended_days_ago=8, retention_days=30)
    kept.used("c", ended_days_ago=8, retention_days=7)
    kept.used("d", ended_days_ago=400)
    gc(folder, tmp_path, Limits())
    assert (shared.there, kept.there) == (True, True)


def test_a_run_that_died_holds_what_it_used_for_the_grace(folder: Store, tmp_path: Path) -> None:
    fresh, stale = Made(folder, 1, days_old=9), Made(folder, 2, days_old=9)
    for made, hours in ((fresh, 23), (stale, 25)):
        usage.write_use(folder, Use(run=made.key, keys=(made.key,), beat=time.time() - hours * 3600))
    gc(folder, tmp_path)
    assert (fresh.there, stale.there) == (True, False)


def test_age_is_counted_from_the_last_use(folder: Store, tmp_path: Path) -> None:
    unused, recently, new = Made(folder, 1, days_old=40), Made(folder, 2, days_old=40), Made(folder, 3)
    recently.used("a", ended_days_ago=5)
    gc(folder, tmp_path, Limits(older_than=30 * DAY))
    assert [made.there for made in (unused, recently, new)] == [False, True, True]


def test_size_takes_the_least_recently_used_first(folder: Store, tmp_path: Path) -> None:
    made = [Made(folder, number, days_old=number) for number in range(1, 6)]
    made[4].used("a", ended_days_ago=0)  # the oldest file, and the last to be used
    made[3].used("b")
    done = gc(folder, tmp_path, Limits(max_bytes=3 * SIZE))
    assert [one.there for one in made] == [True, False, False, True, True]
    assert done.kept_bytes == 3 * SIZE


def test_an_artifact_without_a_record_may_be_of_a_stage_at_work(folder: Store, tmp_path: Path) -> None:
    fresh, old = Made(folder, 1), Made(folder, 2, days_old=2)
    for made in (fresh, old):
        folder.delete_record(made.key)
    gc(folder, tmp_path, Limits(older_than=0, max_bytes=0))
    assert folder.exists(fresh.ref.path)
    assert not folder.exists(old.ref.path)


def test_a_dry_run_only_says(store: Store, tmp_path: Path) -> None:
    made = Made(store, 1)
    said = gc(store, tmp_path, Limits(older_than=0, dry_run=True))
    assert made.there
    done = gc(store, tmp_path)
    assert not made.there
    assert said == done.model_copy(update={"dry_run": True})


def test_other_records_stay_until_their_own_time_is_over(folder: Store, tmp_path: Path) -> None:
    made = Made(folder, 1)
    for name in ("runs/a", "done/a", "evaluations/set/a"):
        folder.write_record(name, json.dumps({"artifact": made.ref.path}).encode())
        old = time.time() - 40 * DAY
        os.utime(Path(folder.root, "records", name), (old, old))
    gc(folder, tmp_path)
    assert all(folder.read_record(name) for name in ("runs/a", "done/a", "evaluations/set/a"))
    gc(folder, tmp_path, record_days=30)
    assert [folder.read_record(name) is not None for name in ("runs/a", "done/a", "evaluations/set/a")] == [False, False, True]


def test_records_that_lead_nowhere_and_halves_of_writes_go(folder: Store, tmp_path: Path) -> None:
    made = Made(folder, 1)
    Path(folder.root, made.ref.path).unlink()
    half = Path(folder.root, "artifacts", "asr", ".half.part")
    half.write_bytes(b"x")
    os.utime(half, (1, 1))
    young = half.with_name(".young.part")
    young.write_bytes(b"x")
    done = gc(folder, tmp_path)
    assert folder.read_record(made.key) is None
    assert (done.records, done.leftovers) == (1, 1)
    assert (half.exists(), young.exists()) == (False, True)


def test_halves_of_every_folder_go(folder: Store, tmp_path: Path) -> None:
    halves = [Path(folder.root, place, "aa", ".half.wav.0123.part") for place in ("artifacts/audio", "records", "uploads")]
    for half in halves:
        half.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(b"somebody speaks")
        os.utime(half, (1, 1))
    upload = halves[-1].with_name(f"{'0' * 64}.part")
    upload.write_bytes(b"a whole one, whose name ends so")
    os.utime(upload, (1, 1))
    assert gc(folder, tmp_path).leftovers == 3
    assert not any(half.exists() for half in halves)
    assert upload.exists()


def test_halves_go_where_a_file_system_has_no_atomic_uploads(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    store.storage = Remote.at(store.url)  # as one that is reached over a network
    half = Path(store.root, "uploads", "aa", ".half.wav.0123.part")
    half.parent.mkdir(parents=True)
    half.write_bytes(b"somebody speaks")
    os.utime(half, (1, 1))
    assert list(store.files("uploads")) == []
    assert store.remove_parts(60.0) == 1
    assert not half.exists()


@pytest.mark.slow
def test_multipart_uploads_of_every_folder_are_aborted(faulty_s3: FaultyS3, tmp_path: Path) -> None:
    store = Store(f"s3://{faulty_s3.bucket()}/store", tmp_path / "scratch", faulty_s3.settings)
    fs = cast(S3, store.storage).fs
    bucket, prefix, _ = fs.split_path(store.root)
    keys = [f"{prefix}/{place}/aa/half" for place in ("artifacts/audio", "uploads", "records")]
    for key in (*keys, "another/half"):
        fs.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
    assert store.abort_uploads(-60.0) == 3
    left = fs.call_s3("list_multipart_uploads", Bucket=bucket)["Uploads"]
    assert [upload["Key"] for upload in left] == ["another/half"], "what is not ours is left alone"


def test_parts_of_a_stage_stay_and_go_with_its_use(folder: Store, tmp_path: Path) -> None:
    kept, gone = Made(folder, 1), Made(folder, 2)
    for made in (kept, gone):
        content = folder.read_record(made.key)
        assert content
        folder.delete_record(made.key)
        folder.write_record(shard_record(made.key, 0, 2), content)
    kept.used("run")
    gc(folder, tmp_path)
    assert folder.exists(kept.ref.path)
    assert not folder.exists(gone.ref.path)
    assert [file.path for file in folder.files("records/shards")] == [f"records/shards/{kept.key}/0-of-2"]


def test_a_second_collector_leaves_the_store_to_the_first(store: Store, tmp_path: Path) -> None:
    made, options = Made(store, 1), settings(tmp_path)
    lock = store.locks.try_acquire("collector")
    assert lock is not None
    assert collect(store, options, EVERYTHING).busy
    assert made.there
    lock.release()


# -- a run that begins to use what is being removed -------------------------------------------------------------------


def test_a_run_that_found_the_record_keeps_the_artifact(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It named the key and read the record after the collector had decided, before the record was deleted."""
    made = Made(store, 1)
    delete = Store.delete_record

    def found_just_before(self: Store, name: str) -> None:
        if name == made.key:
            asyncio.run(RunUse(self, "run", None).name(made.key))
            assert self.read_record(made.key) is not None
        delete(self, name)

    monkeypatch.setattr(Store, "delete_record", found_just_before)
    done = gc(store, tmp_path)
    assert (done.artifacts, done.records) == (0, 0)
    assert made.there, "other runs find it again, too"


def test_what_is_computed_again_while_it_is_removed_is_written_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another stage comes to the same artifact after the collector has looked at the uses for the last time."""
    made = Made(store, 1)
    delete = Store.delete
    waiting: list[asyncio.Future[ArtifactRef]] = []

    def computed_just_before(self: Store, path: str) -> None:
        if path == made.ref.path and not waiting:
            waiting.append(pool.submit(again))  # type: ignore[arg-type]
            while store.read_record(f"uses/claim-{made.ref.sha256}") is None:
                time.sleep(0.01)
        delete(self, path)

    def again() -> ArtifactRef:
        path = tmp_path / "again"
        path.write_bytes(bytes([1]) * SIZE)
        return store.put(path, "asr")

    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(Store, "delete", computed_just_before)
        gc(store, tmp_path)
        assert waiting[0].result() == made.ref  # type: ignore[call-arg]
    assert store.exists(made.ref.path)


def test_a_collector_that_was_killed_blocks_nobody_for_long(
    folder: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made(folder, 1)
    monkeypatch.setattr(usage, "CONDEMNED_SECONDS", 0.5)
    usage.mark_for_deletion(folder, [made.ref.path])
    path = tmp_path / "again"
    path.write_bytes(bytes([1]) * SIZE)
    assert folder.put(path, "asr") == made.ref


async def test_what_two_branches_name_at_once_is_one_write(folder: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[Use] = []
    write = usage.write_use
    monkeypatch.setattr(usage, "write_use", lambda store, use: (writes.append(use), write(store, use)))
    use = RunUse(folder, "run", None)
    await asyncio.gather(use.name("a"), use.name("b"), use.name("c"))
    assert len(writes) <= 2
    stored = usage.read_use(folder, "run")
    assert stored is not None
    assert set(stored.keys) == {"a", "b", "c"}


async def test_a_retried_run_still_uses_what_it_used(folder: Store) -> None:
    first = RunUse(folder, "run", None)
    await first.name("a", artifacts=("p",))
    await first.end()
    second = RunUse(folder, "run", 7)
    await second.begin()
    await second.name("b")
    use = usage.read_use(folder, "run")
    assert use is not None
    assert (use.keys, use.artifacts, use.ended, use.retention) == (("a", "b"), ("p",), False, 7 * DAY)
