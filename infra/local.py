"""Stages computed in this process."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from infra import headstart
from infra.artifacts import SUFFIXES, StageOutcome
from infra.drafts import Drafting
from infra.jobs import STOP_GRACE, ProgressSink, StageJob, engine_required, in_thread
from infra.progress import log_line
from infra.store import Store
from speech.schema import WHOLE
from speech.stages import run_stage

_RUN_FACTS = ("load_seconds", "device", "batch_size")


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
                log_line(f"Started before Prefect's server was ready; took {outcome.seconds:.1f} s in total.")
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
            if job.shard == WHOLE:
                report = drafting = Drafting(self.store, job.key, report)
                stack.callback(drafting.remove)
            with engine_required():
                meta = run_stage(job.stage, inputs, job.params, job.runtime, output, report, job.shard)
            facts = {name: meta.pop(name) for name in _RUN_FACTS if name in meta}
            artifact = self.store.put(output, job.output, meta=meta, by=job.key)
        report(1.0)
        return StageOutcome(
            artifact=artifact, seconds=round(time.perf_counter() - began, 3), backend="local", key=job.key, **facts
        )
