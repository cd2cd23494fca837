"""The seam: one stage to run, the key it goes by, and what runs it, here or on a remote worker, the same way.

`Compute.run` is awaitable and takes references, never audio. It computes: whether a stage needs computing at all is
the orchestrator's question (its cache), and so are retries.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from infra.artifacts import ArtifactRef, Kind, StageOutcome
from speech.schema import WHOLE, RuntimeOptions, Shard
from speech.stages import STAGES, StageName
from stenoflow.errors import StageCancelled
from stenoflow.types import Frozen

ProgressSink = Callable[[float], None]
"""Receives the fraction done, 0…1; called from worker threads."""

T = TypeVar("T")

_OF_GPU = ("torch", "torchaudio", "whisperx", "pyannote", "transformers")
"""What the extra `gpu` brings; everything else that a stage imports is of `cpu`."""

STOP_GRACE = 30.0
"""Seconds that a cancelled stage is given to reach its next batch before it is no longer waited for."""

# Stages keep their own threads: the event loop's default pool also resolves host names and reads records.
_threads = ThreadPoolExecutor(max_workers=32, thread_name_prefix="stage")


class Following(Frozen):
    """A stage that follows another, as far as it is known before that has ended."""

    stage: StageName
    params: dict[str, Any]
    models: dict[str, str]
    """As in the stage's key."""
    batch_size: int | None = None

    def job(self, known: Mapping[str, ArtifactRef], runtime: RuntimeOptions, then: tuple[Following, ...]) -> StageJob:
        """The job that the run will ask for, under the same key."""
        inputs = {kind: known[kind] for kind in STAGES[self.stage].inputs}
        return StageJob(
            stage=self.stage,
            key=key_of(self.stage, inputs, self.params, self.models),
            inputs=inputs,
            params=self.params,
            runtime=runtime.model_copy(update={"batch_size": self.batch_size}),
            then=then,
        )


class StageJob(Frozen):
    """One stage to compute."""

    stage: StageName
    key: str
    inputs: dict[str, ArtifactRef]
    """By kind."""
    params: dict[str, Any]
    runtime: RuntimeOptions
    shard: Shard = WHOLE
    fresh: bool = False
    """Use nothing that an earlier attempt left: no shard, no call."""
    larger: int = 0
    """How often memory did not suffice for the smallest batch: a remote backend takes a GPU that much larger."""
    then: tuple[Following, ...] = ()
    """What the run will ask for next: a remote backend may go on with it at once, or start a container meanwhile."""

    @property
    def output(self) -> Kind:
        """Kind of the artifact that it leaves."""
        return STAGES[self.stage].output if self.shard == WHOLE else "shard"

    @property
    def duration(self) -> float:
        """Seconds of audio; endless where the audio does not say."""
        audio = self.inputs.get("audio")
        return math.inf if audio is None else float(audio.meta.get("duration", math.inf))

    def following(self, left: ArtifactRef) -> tuple[StageJob, ...]:
        """The jobs that can begin once this one left that artifact."""
        known = self.inputs | {left.kind: left}
        ready = [each for each in self.then if known.keys() >= set(STAGES[each.stage].inputs)]
        rest = tuple(each for each in self.then if each not in ready)
        return tuple(each.job(known, self.runtime, rest) for each in ready)

    @property
    def is_cheap(self) -> bool:
        """Whether no model runs: correcting the times of Whisper's attention takes none."""
        return self.stage == "align" and self.params.get("model") == "attention"


class Compute(Protocol):
    async def run(self, job: StageJob, progress: ProgressSink) -> StageOutcome: ...


async def in_thread(work: Callable[[ProgressSink], T], progress: ProgressSink, name: str, grace: float = STOP_GRACE) -> T:
    """Run `work(report)` in a thread of its own and return its result; the event loop stays free.

    When the awaiting task is cancelled, the next `report` raises StageCancelled inside `work`, and this returns only
    once `work` has ended, or after `grace` seconds, when it is left to end by itself.
    """
    cancelled = threading.Event()

    def report(fraction: float) -> None:
        if cancelled.is_set():
            raise StageCancelled(f"The {name} stage was cancelled.")
        progress(min(max(fraction, 0.0), 1.0))

    running = asyncio.get_running_loop().run_in_executor(_threads, work, report)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        cancelled.set()
        running.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait({running}, timeout=grace)
        raise


@contextlib.contextmanager
def engine_required() -> Iterator[None]:
    """Say in one sentence that the speech engine is not installed, where its import fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        from speech.runtime import not_installed

        missing = str(error.name)
        raise not_installed([missing], "gpu" if missing.partition(".")[0] in _OF_GPU else "cpu") from error


# -- keys -------------------------------------------------------------------------------------------------------------

SHARDS = "shards"
"""The folder of records of parts of stages; the records of whole stages are in no folder."""


def stage_key(stage: str, version: int, inputs: Mapping[str, str], params: Mapping[str, Any], models: Mapping[str, str]) -> str:
    """The hash of all that changes a stage's output, and of nothing else: hex SHA-256 over the stage, its version, input hashes,
    parameters and pinned model revisions.

    Batch size, device, thread and worker counts must not be among `params`: they do not change the result.
    """
    body = {"stage": stage, "version": version, "inputs": dict(inputs), "params": dict(params), "models": dict(models)}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def key_of(stage: StageName, inputs: Mapping[str, ArtifactRef], params: Mapping[str, Any], models: Mapping[str, str]) -> str:
    """The key of a stage that is computed from these artifacts."""
    # `model` only says where the weights are found; what they are is pinned in `models`.
    asked = {name: value for name, value in params.items() if name != "model"}
    return stage_key(stage, STAGES[stage].version, {kind: ref.sha256 for kind, ref in inputs.items()}, asked, models)


def shards_folder(stage: str) -> str:
    """The records of all parts of the stage with this key, into however many parts it was divided."""
    return f"{SHARDS}/{stage}"


def shard_record(stage: str, index: int, count: int) -> str:
    """The record of one part. The stage's key is in its name, so that whoever uses the stage is known to use its parts."""
    return f"{shards_folder(stage)}/{index}-of-{count}"
