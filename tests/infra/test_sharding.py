"""Long recordings among several workers: what is divided, what an interrupted attempt leaves, and who is stopped."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra import usage
from infra.artifacts import ArtifactRef, Kind, StageOutcome, artifact_path
from infra.collect import Limits, collect
from infra.compute import shards_on_modal
from infra.jobs import ProgressSink, StageJob
from infra.removal import remove_run
from infra.settings import ModalSettings, RetentionSettings, ShardSettings, StenoSettings
from infra.sharding import ShardedCompute, shard_count
from infra.store import Store
from infra.usage import RunUse
from speech.asr import Transcribed
from speech.schema import AsrResult, RuntimeOptions
from stenoflow.errors import OutOfMemory, StenoError, TransientError, UnknownModel
from stenoflow.types import ModelInfo

X = hashlib.sha256(b"x").hexdigest()
MODEL = ModelInfo(name="double", revision="1", origin="folder")


def ref(kind: Any, **meta: Any) -> ArtifactRef:
    return ArtifactRef(kind=kind, path=artifact_path(kind, X), sha256=X, bytes=1, meta=meta)


def job(stage: Any = "asr", **changes: Any) -> StageJob:
    inputs = {"audio": ref("audio", duration=7200.0), "segmentation": ref("segmentation", speech_seconds=4000.0)}
    runtime = RuntimeOptions(threads=8)
    fields = {"stage": stage, "key": "k" * 64, "inputs": inputs, "params": {"model": "m"}, "runtime": runtime} | changes
    return StageJob(**fields)


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        (job("segment", inputs={"audio": ref("audio", duration=7200.0)}), 12),
        (job("segment", inputs={"audio": ref("audio", duration=1799.0)}), 1),
        (job("asr"), 6),
        (job("embed"), 6),
        (job("align", inputs={"audio": ref("audio", duration=7200.0), "asr": ref("asr", segments=150)}), 7),
        (job("align", inputs={"audio": ref("audio", duration=7200.0), "asr": ref("asr", segments=2)}), 1),
        (job("align", params={"model": "attention"}), 1),
        (job("cluster"), 1),
        (job("merge"), 1),
    ],
)
def test_what_is_long_is_divided_by_its_speech(asked: StageJob, count: int) -> None:
    assert shard_count(asked, ShardSettings()) == count


@pytest.mark.parametrize(("gpu", "counts"), [(("L4",), (1, 1, 4)), ((), (5, 11, 24))])
def test_on_gpus_a_shard_saves_more_than_its_container_costs_to_start(gpu: tuple[str, ...], counts: tuple[int, ...]) -> None:
    shards = shards_on_modal(StenoSettings(modal=ModalSettings(gpu=gpu)))
    hours = (0.9, 1.9, 4.0)
    jobs = [job("segment", inputs={"audio": ref("audio", duration=3600 * each)}) for each in hours]
    assert tuple(shard_count(each, shards) for each in jobs) == counts


def test_dividing_can_be_bounded_and_switched_off() -> None:
    assert shard_count(job(), ShardSettings(max_shards=4)) == 4
    assert shard_count(job(), ShardSettings(max_shards=1)) == 1


class Inner:
    """Leaves real shards of ASR; waits and fails where it is told to."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ran: list[StageJob] = []
        self.at_work = self.most_at_work = 0
        self.two_at_work = asyncio.Event()
        self.ended: list[int] = []
        self.cancelled: list[int] = []
        self.failures: dict[int, list[StenoError]] = {}
        self.languages: dict[int, str] = {}
        self.seconds: dict[int, float] = {}

    async def run(self, job: StageJob, progress: ProgressSink) -> StageOutcome:
        index = job.shard.index
        self.ran.append(job)
        self.at_work += 1
        if self.at_work == 2:
            self.two_at_work.set()
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            progress(0.5)
            await asyncio.sleep(self.seconds.get(index, 0.01))
            if self.failures.get(index):
                raise self.failures[index].pop(0)
            progress(1.0)
            self.ended.append(index)
            return self.left(job)
        except asyncio.CancelledError:
            self.cancelled.append(index)
            raise
        finally:
            self.at_work -= 1

    def left(self, job: StageJob) -> StageOutcome:
        language = job.params.get("language") or self.languages.get(job.shard.index, "en")
        part = Transcribed(segments=(), language=language, multilingual=True, model=MODEL)
        self.store.scratch.mkdir(parents=True, exist_ok=True)
        path = self.store.scratch / f"part-{job.shard.index}"
        path.write_text(part.model_dump_json() + " " * job.shard.index)
        artifact = self.store.put(path, job.output, meta={"language": language}, by=job.key)
        return StageOutcome(artifact=artifact, seconds=2.0, key=job.key, device="cuda")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    kinds: tuple[Kind, ...] = ("audio", "segmentation")
    for kind in kinds:
        path = tmp_path / "store" / artifact_path(kind, X)
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    return store


@pytest.fixture
def inner(store: Store) -> Inner:
    return Inner(store)


@pytest.fixture
def compute(store: Store, inner: Inner) -> Callable[..., ShardedCompute]:
    return lambda workers=2, **more: ShardedCompute(inner, store, ShardSettings(), workers=workers, **more)


def quiet(fraction: float) -> None:
    pass


async def test_shards_make_one_outcome_under_the_stages_own_key(
    compute: Callable[..., ShardedCompute], inner: Inner, store: Store
) -> None:
    told: list[float] = []
    outcome = await compute().run(job(), told.append)
    assert sorted(item.shard.index for item in inner.ran) == list(range(6))
    assert len({item.key for item in inner.ran}) == 6
    assert (outcome.key, outcome.shards, outcome.worker_seconds, outcome.device) == ("k" * 64, 6, 12.0, "cuda")
    assert (outcome.artifact.kind, outcome.artifact.meta["language"]) == ("asr", "und")
    with store.local(outcome.artifact) as path:
        assert AsrResult.model_validate_json(path.read_bytes()).model == MODEL
    assert told == sorted(told)
    assert told[-1] == 1.0


async def test_no_more_are_at_work_than_there_are_workers(compute: Callable[..., ShardedCompute], inner: Inner) -> None:
    await compute(workers=3).run(job(), quiet)
    assert inner.most_at_work == 3


async def test_the_next_attempt_computes_only_what_failed(compute: Callable[..., ShardedCompute], inner: Inner) -> None:
    """One that may pass lets those at work finish, but begins no others."""
    inner.failures = {1: [TransientError("a worker was lost")]}
    inner.seconds = {0: 0.2}
    with pytest.raises(TransientError):
        await compute().run(job(), quiet)
    assert inner.ended == [0]
    inner.ran.clear()
    assert (await compute().run(job(), quiet)).shards == 6
    assert sorted(item.shard.index for item in inner.ran) == [1, 2, 3, 4, 5]


def files(store: Store, *folders: str) -> list[str]:
    return [file.path for folder in folders for file in store.files(folder)]


async def interrupted(compute: Callable[..., ShardedCompute], inner: Inner, store: Store, run: str = "run") -> RunUse:
    """A run of which two shards are done and the third failed, as the store knows it."""
    use = RunUse(store, run, None)
    await use.name("k" * 64)
    inner.failures = {2: [UnknownModel("no such model")]}
    with pytest.raises(UnknownModel):
        await compute(workers=1).run(job(), quiet)
    assert len(files(store, "artifacts/shard")) == len(files(store, "records/shards")) == 2
    return use


async def test_what_shards_held_goes_when_the_stage_has_it(
    compute: Callable[..., ShardedCompute], inner: Inner, store: Store
) -> None:
    """Text and voices are not kept a second time, nor those of an attempt that was divided otherwise."""
    await interrupted(compute, inner, store)
    divided = ShardedCompute(inner, store, ShardSettings(max_shards=3), workers=1)
    assert (await divided.run(job(), quiet)).shards == 3
    assert files(store, "artifacts/shard", "records/shards") == []


async def test_a_shard_that_another_stage_came_to_as_well_stays_until_that_one_ends(
    compute: Callable[..., ShardedCompute], inner: Inner, store: Store
) -> None:
    await interrupted(compute, inner, store)
    assert (await compute().run(job(key="l" * 64, params={"model": "another"}), quiet)).shards == 6
    assert len(files(store, "artifacts/shard")) == 2
    inner.ran.clear()
    assert (await compute().run(job(), quiet)).shards == 6
    assert len(inner.ran) == 4


async def test_deleting_a_run_deletes_the_shards_of_what_it_did_not_finish(
    compute: Callable[..., ShardedCompute], inner: Inner, store: Store, tmp_path: Path
) -> None:
    use = await interrupted(compute, inner, store)
    await use.end()
    assert remove_run(store, StenoSettings(home=tmp_path), "run")
    assert files(store, "artifacts/shard", "records") == []


async def test_shards_that_a_run_uses_are_not_collected_and_others_go_soon(
    compute: Callable[..., ShardedCompute], inner: Inner, store: Store, tmp_path: Path
) -> None:
    use = await interrupted(compute, inner, store)
    settings = StenoSettings(home=tmp_path, retention=RetentionSettings(grace_hours=1))
    collect(store, settings, Limits(older_than=0, max_bytes=0))
    assert len(files(store, "artifacts/shard")) == 2
    await use.end()
    collect(store, settings, Limits())
    assert len(files(store, "artifacts/shard")) == 2  # it may be retried yet
    ended = usage.read_use(store, "run")
    assert ended is not None
    usage.write_use(store, ended.model_copy(update={"beat": time.time() - 7200}))
    for path in files(store, "artifacts/shard"):
        os.utime(Path(store.root, path), (time.time() - 7200,) * 2)
    collect(store, settings, Limits())
    assert files(store, "artifacts/shard", "records/shards") == []


async def test_half_the_batch_keeps_the_shards_that_fitted(compute: Callable[..., ShardedCompute], inner: Inner) -> None:
    inner.failures = {5: [OutOfMemory("too large")]}
    with pytest.raises(OutOfMemory):
        await compute().run(job(), quiet)
    inner.ran.clear()
    await compute().run(job(runtime=RuntimeOptions(batch_size=4)), quiet)
    assert [(item.shard.index, item.runtime.batch_size) for item in inner.ran] == [(5, 4)]


async def test_an_error_that_stays_stops_the_others(compute: Callable[..., ShardedCompute], inner: Inner) -> None:
    inner.failures = {1: [UnknownModel("no such model")]}
    inner.seconds = {0: 60.0}
    with pytest.raises(UnknownModel):
        await compute().run(job(), quiet)
    assert inner.cancelled == [0]
    assert len(inner.ran) == 2


async def test_cancelling_the_stage_cancels_every_shard(compute: Callable[..., ShardedCompute], inner: Inner) -> None:
    inner.seconds = dict.fromkeys(range(6), 60.0)
    task = asyncio.create_task(compute().run(job(), quiet))
    await inner.two_at_work.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(inner.cancelled) == [0, 1]


async def test_a_stage_asked_for_again_is_computed_again(compute: Callable[..., ShardedCompute], inner: Inner) -> None:
    """Its shards are kept for an attempt that did not end, not as a cache of their own."""
    await compute().run(job(), quiet)
    await compute().run(job(), quiet)
    assert len(inner.ran) == 12


async def test_a_shard_whose_artifact_is_gone_is_computed_again(
    compute: Callable[..., ShardedCompute], inner: Inner, store: Store
) -> None:
    inner.failures = {5: [TransientError("a worker was lost")]}
    with pytest.raises(TransientError):
        await compute().run(job(), quiet)
    gone = next(iter(Path(store.root, "artifacts/shard").rglob("*.part")))
    gone.unlink()
    inner.ran.clear()
    await compute().run(job(), quiet)
    assert len(inner.ran) == 2


async def test_one_worker_on_this_machine_keeps_its_threads_and_several_share_them(
    compute: Callable[..., ShardedCompute], inner: Inner
) -> None:
    await compute(workers=1, one_machine=True).run(job(), quiet)
    assert {(item.runtime.threads, item.runtime.workers) for item in inner.ran} == {(8, 1)}
    inner.ran.clear()
    await compute(workers=4, one_machine=True).run(job(), quiet)
    assert {(item.runtime.threads, item.runtime.workers) for item in inner.ran} == {(2, 4)}


async def test_a_shard_that_heard_another_language_is_decoded_in_that_of_most(
    compute: Callable[..., ShardedCompute], inner: Inner
) -> None:
    inner.languages = {3: "fr"}
    outcome = await compute().run(job(), quiet)
    assert [(item.shard.index, item.params["usual"]) for item in inner.ran if "usual" in item.params] == [(3, "en")]
    assert not any(item.params.get("language") for item in inner.ran), "what is in other languages stays in them"
    assert outcome.artifact.kind == "asr"
