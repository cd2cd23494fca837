"""The seam: run a stage, here or on a remote worker, the same way.

`Compute.run` is awaitable and takes references, never audio. It computes: whether a stage needs computing at all is
the orchestrator's question (its cache), and so are retries.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from infra.artifacts import SUFFIXES, ArtifactRef, StageOutcome
from infra.settings import StenoSettings, get_settings
from infra.store import Store
from speech.errors import StageCancelled
from speech.schema import Frozen, RuntimeOptions, StageName
from speech.stages import STAGES, run_stage

ProgressSink = Callable[[float], None]
"""Told the fraction done, 0…1; called from worker threads."""

_RUN_FACTS = ("load_seconds", "device", "batch_size")


class StageJob(Frozen):
    """One stage to compute."""

    stage: StageName
    key: str
    inputs: dict[str, ArtifactRef]
    """By kind."""
    params: dict[str, Any]
    runtime: RuntimeOptions


class Compute(Protocol):
    async def run(self, job: StageJob, progress: ProgressSink) -> StageOutcome: ...


class LocalCompute:
    """Runs stages in threads of this process, so that models are loaded once and the event loop stays free.

    Cancelling the awaiting task stops the stage at its next batch, and `run` returns only when it has stopped.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    async def run(self, job: StageJob, progress: ProgressSink) -> StageOutcome:
        cancelled = threading.Event()

        def report(fraction: float) -> None:
            if cancelled.is_set():
                raise StageCancelled(f"The {job.stage} stage was cancelled.")
            progress(min(max(fraction, 0.0), 1.0))

        work = asyncio.get_running_loop().run_in_executor(None, self._run, job, report)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            cancelled.set()
            with contextlib.suppress(Exception):
                await work
            raise

    def _run(self, job: StageJob, report: ProgressSink) -> StageOutcome:
        began = time.perf_counter()
        report(0.0)
        kind = STAGES[job.stage].output
        self.store.scratch.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{job.stage}-", dir=self.store.scratch)))
            inputs: Mapping[str, Path] = {name: stack.enter_context(self.store.local(ref)) for name, ref in job.inputs.items()}
            output = folder / f"output{SUFFIXES[kind]}"  # type: ignore[index]
            meta = run_stage(job.stage, inputs, job.params, job.runtime, output, report)
            facts = {name: meta.pop(name) for name in _RUN_FACTS if name in meta}
            artifact = self.store.put(output, kind, meta=meta)  # type: ignore[arg-type]
        report(1.0)
        return StageOutcome(artifact=artifact, seconds=round(time.perf_counter() - began, 3), backend="local", key=job.key, **facts)


def get_compute(settings: StenoSettings | None = None) -> Compute:
    """The backend that the settings name."""
    settings = settings or get_settings()
    return LocalCompute(Store.from_settings(settings))
