"""A compute backend for processes that tests start: named by `STENO_COMPUTE__BACKEND=tests.stub_compute:compute`.

What it does is in the JSON file that `STUB_PLAN` names, read anew at every stage, so that a test can change it under way:

- `log`: a file that gets one JSON line per event: `{"event": "before" | "begin" | "progress" | "writing" | "end" | "cancelled",
  "stage", "key", "run", "pid", "at"}`
- `before`: stage → seconds between being asked for the stage and beginning it
- `seconds`: stage → how long it works, in ticks of 50 ms at which it can be cancelled
- `writing`: stage → how long its artifact stays half written or half uploaded (see `tests.slow_writes`)
- `runs`: flow run id → a plan that is put over this one for that run; where it has `hold` as well, `before`, `seconds` and
  `writing` last until it no longer has it
- `fail`: stage → `{"error": "TransientError", "message": …, "cure": …, "times": n}`; the class is of `stenoflow.errors`
- `poison`: a list of audio SHA-256; a stage that reads one of them kills its process (as running out of memory does)
- `real`: true has every stage run the engine's own models

Merging is the engine's own; the other stages leave the artifacts of `tests.stage_double`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import stenoflow.errors
from infra.artifacts import StageOutcome
from infra.compute import get_store
from infra.jobs import ProgressSink, StageJob
from infra.local import LocalCompute
from infra.settings import StenoSettings
from tests import slow_writes
from tests.stage_double import stand_in

BACKEND = "tests.stub_compute:compute"
TICK = 0.05


class StubCompute:
    def plan(self) -> dict[str, Any]:
        path = os.environ.get("STUB_PLAN")
        plan = json.loads(Path(path).read_text()) if path else {}
        return plan | plan.get("runs", {}).get(os.environ.get("PREFECT__FLOW_RUN_ID"), {})

    async def pause(self, plan: dict[str, Any], seconds: float) -> None:
        """Wait that long, and for as long as the run is held."""
        await asyncio.sleep(seconds)
        while plan.get("hold") and self.plan().get("hold"):  # noqa: ASYNC110  a file can only be asked
            await asyncio.sleep(TICK)

    async def run(self, job: StageJob, progress: ProgressSink) -> StageOutcome:
        plan = self.plan()
        if job.stage in plan.get("before", {}):
            note(plan, "before", job)
            await self.pause(plan, plan["before"][job.stage])
        note(plan, "begin", job)
        if {ref.sha256 for ref in job.inputs.values()} & set(plan.get("poison", ())):
            os.kill(os.getpid(), signal.SIGKILL)
        if (failure := plan.get("fail", {}).get(job.stage)) and _nth(plan, job) <= failure.get("times", 10**9):
            kind = getattr(stenoflow.errors, failure["error"])
            said = failure.get("message", f"the {job.stage} stage was told to fail")
            raise kind(said, **({"cure": failure["cure"]} if "cure" in failure else {}))
        if plan.get("real"):
            return await LocalCompute(get_store()).run(job, progress)
        ticks = int(plan.get("seconds", {}).get(job.stage, 0) / TICK)
        try:
            for tick in range(ticks):
                progress((tick + 1) / ticks)
                note(plan, "progress", job)
                await asyncio.sleep(TICK)
            if ticks:
                await self.pause(plan, 0)
        except asyncio.CancelledError:
            note(plan, "cancelled", job)
            raise
        slowly = plan.get("writing", {}).get(job.stage, 0)

        async def halfway() -> None:
            note(plan, "writing", job)
            await self.pause(plan, slowly)

        with slow_writes.held(get_store(), job, halfway if slowly else None):
            if job.stage == "merge":
                outcome = await LocalCompute(get_store()).run(job, progress)
            else:
                outcome = await asyncio.to_thread(stand_in, job, slow_writes.size_of(job) if slowly else 0)
        note(plan, "end", job)
        return outcome


def compute(settings: StenoSettings) -> StubCompute:
    return StubCompute()


def note(plan: dict[str, Any], event: str, job: StageJob) -> None:
    if "log" in plan:
        line = {"event": event, "stage": job.stage, "key": job.key, "pid": os.getpid(), "at": time.time()}
        line["run"] = os.environ.get("PREFECT__FLOW_RUN_ID", "")
        with Path(plan["log"]).open("a") as log:
            log.write(json.dumps(line) + "\n")


def _nth(plan: dict[str, Any], job: StageJob) -> int:
    """Which execution of this very stage this is, by the log of all processes."""
    return sum(line["key"] == job.key for line in events(Path(plan["log"]), "begin"))


def events(log: Path, event: str) -> list[dict[str, Any]]:
    """The log's lines of one kind, in order."""
    if not log.exists():
        return []
    return [line for text in log.read_text().splitlines() if (line := json.loads(text))["event"] == event]


def executions(log: Path) -> Counter[str]:
    """How often each stage was begun, over all processes."""
    return Counter(line["stage"] for line in events(log, "begin"))
