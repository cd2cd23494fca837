"""Long recordings divided: a stage's shards mapped over the workers of any backend, and put together here.

A shard is a stage job like any other, with an artifact and a record of its own (`infra.jobs.shard_record`), so that a run that
was killed computes only the shards that were not finished. Together they give the artifact of the undivided stage, under the
same key: on CPUs byte for byte; in the half precision of a GPU a number's last bits depend on what else was in its batch, which
may decide a close call differently. Then the shards are removed.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from infra.artifacts import SUFFIXES, StageOutcome
from infra.jobs import SHARDS, Compute, ProgressSink, StageJob, engine_required, in_thread, shard_record, shards_folder
from infra.on_modal import copies
from infra.settings import ShardSettings
from infra.store import Store
from infra.usage import claim_of, noted, paths_in
from speech.runtime import cpu_threads
from speech.schema import RuntimeOptions, Shard
from speech.stages import STAGES, combine_shards
from speech.stored import parsed
from stenoflow.errors import Retry, StenoError

CHUNK_SECONDS = 28.0
"""About the longest that one segment of ASR's spans."""
_COMBINING = 0.01
"""The part of the progress that is left for putting the shards together."""


class ShardedCompute:
    """Divides the long stages among at most `workers` concurrent jobs of another backend; passes on all others as they are."""

    def __init__(
        self, inner: Compute, store: Store, settings: ShardSettings, *, workers: int, one_machine: bool = False
    ) -> None:
        self.inner = inner
        self.store = store
        self.settings = settings
        self.workers = workers
        self.one_machine = one_machine
        """Whether the workers share this machine's threads, and one loaded model."""

    async def run(self, job: StageJob, progress: ProgressSink) -> StageOutcome:
        """As the inner backend does. Raises the first shard's error that cannot pass, else the first error; the shards that
        finished are kept for the next attempt.
        """
        count = shard_count(job, self.settings)
        if count == 1:
            return await self.inner.run(job, progress)
        began = time.perf_counter()
        shared = job.model_copy(update={"runtime": self._runtime(job.runtime)})
        jobs = [shard_job(shared, Shard(index=i, count=count)) for i in range(count)]
        first = await self._all(job.key, jobs, progress)
        outcomes = await self._in_one_language(job, jobs, first)
        artifact = await in_thread(lambda report: self._combined(job, outcomes), lambda _: None, job.stage)
        noted(*await asyncio.to_thread(self._remove_shards, job.key, jobs, [*first, *outcomes]))
        progress(1.0)
        return artifact.model_copy(
            update={
                "seconds": round(time.perf_counter() - began, 3),
                "worker_seconds": round(sum(outcome.seconds for outcome in outcomes), 3),
            }
        )

    def _runtime(self, runtime: RuntimeOptions) -> RuntimeOptions:
        if not self.one_machine or self.workers == 1:
            return runtime
        threads = max(1, cpu_threads(runtime) // self.workers)
        return runtime.model_copy(update={"threads": threads, "workers": self.workers})

    async def _all(self, stage: str, jobs: Sequence[StageJob], progress: ProgressSink) -> list[StageOutcome]:
        """Every shard's outcome, in order. An error that may pass lets those at work finish, any other cancels them."""
        free = asyncio.Semaphore(self.workers)
        done = [0.0] * len(jobs)
        stopped = asyncio.Event()

        async def one(index: int, job: StageJob) -> StageOutcome | None:
            def report(fraction: float) -> None:
                done[index] = fraction
                progress((1 - _COMBINING) * sum(done) / len(done))

            async with free:
                if stopped.is_set():
                    return None
                try:
                    return await self._shard(stage, job, report)
                except StenoError:
                    stopped.set()
                    raise

        tasks = [asyncio.create_task(one(index, job)) for index, job in enumerate(jobs)]
        passing: StenoError | None = None
        try:
            for finished in asyncio.as_completed(tasks):
                try:
                    await finished
                except StenoError as error:
                    if error.retry is Retry.NEVER:
                        raise
                    passing = passing or error
            if passing is not None:
                raise passing
            return [outcome for task in tasks if (outcome := task.result()) is not None]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _shard(self, stage: str, job: StageJob, report: ProgressSink) -> StageOutcome:
        """The shard's outcome, from its record where an earlier attempt left one."""
        record = shard_record(stage, job.shard.index, job.shard.count)
        kept = None if job.fresh else await asyncio.to_thread(self._stored_outcome, record, job)
        if kept is not None:
            report(1.0)
            return kept
        outcome = await self.inner.run(job, report)
        await asyncio.to_thread(self.store.write_record, record, outcome.model_dump_json().encode())
        return outcome

    def _stored_outcome(self, record: str, job: StageJob) -> StageOutcome | None:
        """What an earlier attempt left of the shard; None where there is nothing, or nothing that can be read."""
        content = self.store.read_record(record)
        try:
            kept = parsed(StageOutcome, content) if content else None
        except ValueError:
            return None  # damaged; it is written anew
        return kept if kept is not None and kept.key == job.key and self.store.holds(kept.artifact) else None

    async def _in_one_language(
        self, job: StageJob, jobs: Sequence[StageJob], outcomes: list[StageOutcome]
    ) -> list[StageOutcome]:
        """Every shard detects the language on the same audio, but two kinds of GPU may decide a close call differently: those
        that differ from most are decoded again in the language of most."""
        heard = Counter(language for outcome in outcomes if (language := outcome.artifact.meta.get("language")))
        if job.stage != "asr" or len(heard) < 2:
            return outcomes
        language = heard.most_common(1)[0][0]
        told = {"params": {**job.params, "usual": language}}
        outcomes = list(outcomes)
        for i, outcome in enumerate(outcomes):
            if outcome.artifact.meta.get("language") not in (None, language):
                outcomes[i] = await self.inner.run(jobs[i].model_copy(update=told), lambda _: None)
        return outcomes

    def _combined(self, job: StageJob, outcomes: Sequence[StageOutcome]) -> StageOutcome:
        self.store.scratch.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{job.stage}-", dir=self.store.scratch))
            inputs = {name: stack.enter_context(self.store.local(ref)) for name, ref in job.inputs.items()}
            parts = [stack.enter_context(self.store.local(outcome.artifact)) for outcome in outcomes]
            output = Path(folder, f"output{SUFFIXES[job.output]}")
            with engine_required():
                meta = combine_shards(job.stage, inputs, job.params, job.runtime, parts, output)
            artifact = self.store.put(output, job.output, meta=meta, by=job.key)
        first = outcomes[0]
        loads = max(outcome.load_seconds for outcome in outcomes)
        return first.model_copy(update={"artifact": artifact, "key": job.key, "shards": len(outcomes), "load_seconds": loads})

    def _remove_shards(self, stage: str, jobs: Sequence[StageJob], outcomes: Iterable[StageOutcome]) -> list[str]:
        """Remove what the stage's own artifact now holds; the shards that stay, since another stage came to the same.

        Those of an earlier attempt that was divided otherwise go, too.
        """
        paths = {outcome.artifact.path for outcome in outcomes}
        named_by_others: set[str] = set()
        for file in list(self.store.files(f"records/{SHARDS}")):
            record = file.path.removeprefix("records/")
            if record.startswith(f"{shards_folder(stage)}/"):
                paths |= paths_in(self.store.read_record(record))
                self.store.delete_record(record)
            else:
                named_by_others |= paths_in(self.store.read_record(record))
        ours = {job.key for job in jobs}
        claims = {path: claim_of(self.store, path) for path in paths}
        shared = {path for path, claim in claims.items() if claim is not None and claim.by not in ours}
        shared |= paths & named_by_others
        for path in paths - shared:
            self.store.delete(path)
        copies.remove(self.store, paths - shared)
        return sorted(shared)


def shard_count(job: StageJob, settings: ShardSettings) -> int:
    """Into how many shards the job is divided; 1 for what is short, or cannot be divided."""
    seconds = _work_seconds(job)
    if not STAGES[job.stage].divisible or seconds < settings.threshold or job.is_cheap:
        return 1
    return max(1, min(settings.max_shards, int(seconds // settings.min_seconds)))


def shard_job(job: StageJob, shard: Shard) -> StageJob:
    """The job of one shard, under a key of its own."""
    key = hashlib.sha256(f"{job.key}:{shard.index}/{shard.count}".encode()).hexdigest()
    return job.model_copy(update={"shard": shard, "key": key})


def _work_seconds(job: StageJob) -> float:
    """Seconds of audio that the stage goes through: of speech, where that is known."""
    facts = {name: ref.meta for name, ref in job.inputs.items()}
    duration = float(facts.get("audio", {}).get("duration", 0.0))
    if "segmentation" in facts:
        return float(facts["segmentation"].get("speech_seconds", duration))
    if "asr" in facts:
        return min(duration, CHUNK_SECONDS * float(facts["asr"].get("segments", 0)))
    return duration
