"""The seam: run a stage, here or on a remote worker, the same way.

`Compute.run` is awaitable and takes references, never audio. It computes: whether a stage needs computing at all is
the orchestrator's question (its cache), and so are retries.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

from infra import headstart
from infra.artifacts import SUFFIXES, ArtifactRef, Kind, StageOutcome
from infra.progress import log_line
from infra.settings import StenoSettings, get_settings
from infra.store import Store
from speech.errors import EngineMissing, StageCancelled
from speech.registry import Resolved
from speech.schema import Frozen, RuntimeOptions, Shard, StageName
from speech.shards import WHOLE
from speech.stages import STAGES, run_stage

ProgressSink = Callable[[float], None]
"""Told the fraction done, 0…1; called from worker threads."""

T = TypeVar("T")

STOP_GRACE = 30.0
"""Seconds that a cancelled stage is given to reach its next batch before it is no longer waited for."""

# Stages keep their own threads: the event loop's default pool also resolves host names and reads records.
_threads = ThreadPoolExecutor(max_workers=32, thread_name_prefix="stage")

_RUN_FACTS = ("load_seconds", "device", "batch_size")


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

    @property
    def output(self) -> Kind:
        """Kind of the artifact that it leaves."""
        kind: Any = STAGES[self.stage].output if self.shard == WHOLE else "shard"
        return kind  # type: ignore[no-any-return]


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
        raise EngineMissing(
            f"The speech engine is not installed here ({error.name} is missing); install `stenoflow[engine]`."
        ) from error


class LocalCompute:
    """Runs stages in threads of this process, so that models are loaded once and the event loop stays free.

    Cancelling the awaiting task stops the stage at its next batch, and `run` returns only when it has stopped.
    """

    def __init__(self, store: Store, grace: float = STOP_GRACE) -> None:
        self.store = store
        self.grace = grace

    async def run(self, job: StageJob, progress: ProgressSink) -> StageOutcome:
        begun = None if job.fresh or job.shard != WHOLE else headstart.begun(job.key)
        if begun is not None:
            outcome: StageOutcome | None = await in_thread(begun.result, progress, job.stage, self.grace)
            if outcome is not None:
                log_line(f"It was begun before Prefect's server answered, and took {outcome.seconds:.1f} s in all.")
                return outcome
        return await in_thread(lambda report: self.compute(job, report), progress, job.stage, self.grace)

    def compute(self, job: StageJob, report: ProgressSink) -> StageOutcome:
        """Compute it in this thread; StageCancelled when `report` raises it."""
        began = time.perf_counter()
        report(0.0)
        self.store.scratch.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{job.stage}-", dir=self.store.scratch)))
            inputs: Mapping[str, Path] = {name: stack.enter_context(self.store.local(ref)) for name, ref in job.inputs.items()}
            output = folder / f"output{SUFFIXES[job.output]}"
            with engine_required():
                meta = run_stage(job.stage, inputs, job.params, job.runtime, output, report, job.shard)
            facts = {name: meta.pop(name) for name in _RUN_FACTS if name in meta}
            artifact = self.store.put(output, job.output, meta=meta)
        report(1.0)
        return StageOutcome(
            artifact=artifact, seconds=round(time.perf_counter() - began, 3), backend="local", key=job.key, **facts
        )


_opened: tuple[StenoSettings, Store] | None = None


def get_store(settings: StenoSettings | None = None) -> Store:
    """The store that the settings name, kept open: connecting to an object store is slow."""
    global _opened  # noqa: PLW0603
    settings = settings or get_settings()
    if _opened is None or _opened[0] is not settings:
        _opened = (settings, Store.from_settings(settings))
    return _opened[1]


def get_compute(settings: StenoSettings | None = None, backend: str | None = None) -> Compute:
    """The backend that is asked for, or that the settings name; call it in the event loop that uses it."""
    settings = settings or get_settings()
    name = backend or settings.compute.backend
    module, _, function = name.partition(":")
    if function:
        custom: Compute = getattr(importlib.import_module(module), function)(settings)
        return custom
    from infra.sharding import ShardedCompute

    store = get_store(settings)
    if name == "modal":
        return ShardedCompute(_modal_compute(settings), store, settings.shards, workers=settings.modal.calls)
    return ShardedCompute(LocalCompute(store), store, settings.shards, workers=settings.compute.workers, one_machine=True)


def runtime_of(settings: StenoSettings) -> RuntimeOptions:
    """How stages run on this machine."""
    local = settings.compute
    return RuntimeOptions(
        device=local.device,
        compute_type=local.compute_type,
        threads=local.threads,
        models_dir=str(settings.models_path),
        offline=settings.offline,
    )


def computes_here(settings: StenoSettings, backend: str | None = None) -> bool:
    """Whether stages are computed in this process."""
    return (backend or settings.compute.backend) == "local"


def import_engine() -> None:
    """Import what the stages will need. What is missing is left for the stage that needs it to report."""
    from speech import ahead

    ahead.import_libraries()


def warm_up(settings: StenoSettings, model: str, language: str | None, *, diarize: bool) -> None:
    """Load the weights that the stages of a recording will need and that are on this machine. What cannot be had is left for
    the stage that needs it to report."""
    from speech import ahead

    runtime = runtime_of(settings)
    with contextlib.suppress(Exception):
        ahead.load_voices(runtime, embedding=diarize, download=False)
    with contextlib.suppress(Exception):
        ahead.load_speech(settings.model if model == "auto" else model, runtime, language=language, download=False)


def at_hand(*models: Resolved) -> bool:
    """Whether these weights are on this machine."""
    from speech import ahead

    return all(ahead.at_hand(model) for model in models)


def larger_steps(stage: StageName, settings: StenoSettings, backend: str | None = None) -> int:
    """How many larger GPUs there are for the stage, where it is computed."""
    from infra.on_modal import gpus

    on_modal = (backend or settings.compute.backend) == "modal"
    return len(gpus.larger_steps(stage, settings.modal)) if on_modal else 0


_on_modal: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[StenoSettings, Compute]] = WeakKeyDictionary()


def _modal_compute(settings: StenoSettings) -> Compute:
    """One for each event loop: it bounds the calls of the whole process, and knows what it has uploaded."""
    from infra.on_modal.compute import ModalCompute

    loop = asyncio.get_running_loop()
    known = _on_modal.get(loop)
    if known is None or known[0] is not settings:
        store = get_store(settings)
        known = _on_modal[loop] = settings, ModalCompute(LocalCompute(store), store, settings)
    return known[1]
