"""How every computed stage becomes a Prefect task: its cache key, its record, its retries and its time-out."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from prefect import Task, get_run_logger
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.transactions import IsolationLevel

from infra import compute
from infra.artifacts import StageOutcome
from infra.compute import get_store, runtime_of
from infra.progress import logging_to
from infra.settings import get_settings
from infra.usage import in_use, noted
from speech.stages import STAGES, StageName, step_of
from tasks.calls import StageCall, outcome_in
from tasks.locking import StageLocks
from tasks.records import RecordStorage
from tasks.report import RunLog, defects_contained, progress_of, run_id, started
from tasks.reports import PART
from tasks.retrying import current_attempts, retry_condition, with_retries
from tasks.stopping import ends_cancelled
from tasks.time_limits import TimeLimits


@dataclass
class StageKey(CachePolicy):
    """A computed stage's cache key: inputs, parameters and model revisions; never batch size, device or file names."""

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        call: StageCall = inputs["call"]
        return call.key


@ends_cancelled
async def compute_stage(call: StageCall) -> dict[str, Any]:
    """Compute the stage on the backend in force; its `StageOutcome`, as plain JSON so that any version can read it."""
    settings = get_settings()
    attempts = current_attempts()
    attempts.larger_steps = compute.larger_steps(call.stage, settings, call.backend)
    batch_size = attempts.begin(call.batch_size)
    started(call.shown_as, detail=_attempt_detail(attempts.count, batch_size, call.batch_size))
    fresh = call.again and attempts.count == 1
    job = call.job(runtime_of(settings, batch_size), fresh=fresh, larger=attempts.larger)
    backend = compute.get_compute(settings, call.backend)
    limits = TimeLimits(call.shown_as, call.duration, batch_size, settings.timeout)
    with defects_contained(call.shown_as), logging_to(get_run_logger().info):
        async with limits.enforced():
            outcome = await backend.run(job, limits.watching(progress_of(call.shown_as)))
    return outcome.model_copy(update={"run": run_id()}).model_dump(mode="json")


def _task(stage: StageName) -> Task[Any, Any]:
    """The Prefect task of one computed stage."""
    name = step_of(stage)
    task: Task[Any, Any] = Task(
        fn=compute_stage,
        name=name,
        task_run_name=f"{name} {{call.label}}",
        cache_policy=StageKey(isolation_level=IsolationLevel.SERIALIZABLE, lock_manager=StageLocks()),
        persist_result=True,
        result_serializer="json",
        cache_result_in_memory=False,
        retry_condition_fn=retry_condition,
    )
    # Assigned, not passed: the constructor wants a block saved on the server, so that the server can say where a result
    # is. Ours is found by its key in the store that STENO_STORE names, whichever server runs the flow.
    task.result_storage = RecordStorage()
    return task


_TASKS = {stage: _task(stage) for stage in STAGES}


async def run_stage(log: RunLog, call: StageCall) -> StageOutcome:
    """Have the stage computed, or its record reused, and reported in `log`."""
    call = await asyncio.to_thread(call.placed, get_settings(), log.backend)
    await in_use(call.key, artifacts=(ref.path for ref in call.inputs.values()))
    again = call.shown_as in log.redo and not await asyncio.to_thread(_computed_by, run_id(), call.key)
    then = () if again else tuple(each for each in call.then if each.shown_as not in log.redo)
    label = f"{call.label}{PART}{log.part}" if log.part else call.label
    call = call.model_copy(update={"again": again, "then": then, "label": label})
    value = await log.perform(call.shown_as, with_retries(_TASKS[call.stage], again=again), call)
    outcome = StageOutcome.model_validate(value)
    noted(outcome.artifact.path)
    return outcome


def _computed_by(run: str, key: str) -> bool:
    """Whether the record under `key` is of the flow run `run`, which then need not do it again after an interruption."""
    content = get_store().read_record(key)
    try:
        return content is not None and outcome_in(content, key).run == run
    except ValueError:
        return False


def _attempt_detail(count: int, batch_size: int | None, asked: int | None) -> str:
    detail = f"attempt {count}" if count > 1 else ""
    return f"{detail} with batch {batch_size}".strip() if batch_size != asked else detail
