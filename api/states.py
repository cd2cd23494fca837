"""A flow run's state, progress and stages, as a job's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from api import cures
from flows.attempts import RESTARTS_WITHIN
from flows.doors import options_of
from flows.outcome import RunOutcome
from flows.progress import Progress
from flows.request import TranscribeRequest
from speech.stages import STEPS
from stenoflow.jobs import JobStatus, StageReport, StageState

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, TaskRun

ENDED: frozenset[JobStatus] = frozenset({"completed", "failed", "canceled"})
WAITING = ("SCHEDULED", "PENDING", "PAUSED")
AT_WORK = ("RUNNING", "CANCELLING")
STATE_TYPES: dict[JobStatus, tuple[str, ...]] = {
    "queued": (*WAITING, "CRASHED"),
    "downloading": AT_WORK,
    "processing": AT_WORK,
    "completed": ("COMPLETED",),
    "failed": ("FAILED", "CRASHED"),
    "canceled": ("CANCELLED",),
}
"""Prefect states to search for jobs of a status; `status_of` then distinguishes them."""


class Seen(NamedTuple):
    """What is known of a job at one moment."""

    run: FlowRun
    progress: Progress | None = None
    outcome: RunOutcome | None = None
    """Of the execution that ended; None while one is under way."""
    task_runs: Sequence[TaskRun] = ()


def status_of(run: FlowRun, progress: Progress | None = None) -> JobStatus:
    """The job's status; `progress` distinguishes fetching from computing."""
    state = run.state
    kind = state.type.value if state is not None else "SCHEDULED"
    if kind in WAITING:
        return "queued"
    if kind == "COMPLETED":
        return "completed"
    if kind == "CANCELLED":
        return "canceled"
    if kind == "FAILED":
        return "failed"
    if kind == "CRASHED":
        assert state is not None
        return "queued" if datetime.now(UTC) - state.timestamp < RESTARTS_WITHIN else "failed"
    return "downloading" if _fetching(run, progress) else "processing"


def _fetching(run: FlowRun, progress: Progress | None) -> bool:
    """Whether the recording is still being fetched; what an earlier execution said does not count."""
    if progress is None or progress.description.startswith("fetch"):
        return True
    stale = progress.updated is not None and run.state is not None and progress.updated < run.state.timestamp
    return stale or (progress.description == "preparing" and progress.percent <= 0)


def percent_of(seen: Seen, status: JobStatus) -> float:
    """How much is done, 0…100."""
    if status == "completed":
        return 100.0
    if status == "queued" or seen.progress is None:
        return 0.0
    state, said = seen.run.state, seen.progress
    if status not in ENDED and said.updated is not None and state is not None and said.updated < state.timestamp:
        return 0.0  # of the execution before
    return round(min(max(said.percent, 0.0), 99.9), 1)


def error_of(seen: Seen, status: JobStatus) -> tuple[str, str] | None:
    """Why the job failed: code and sentence. Prefect's own text may quote anything, so it is not handed on."""
    state, outcome = seen.run.state, seen.outcome
    if status != "failed" or state is None:
        return None
    if state.is_crashed():
        return "crashed", "The process of the job died and was not restarted; retry the job."
    if outcome is not None and outcome.error is not None and outcome.state in ("failed", "partial"):
        error = outcome.error
        return error.code, cures.message_for_callers(error.code, error.message, error.happened)
    return "unexpected", "The job failed before its first stage; see its log in Prefect."


def message_of(seen: Seen, status: JobStatus) -> str:
    """One sentence for people."""
    state = seen.run.state
    if status == "queued":
        if state is not None and state.is_crashed():
            return "The process of the job died; it is being restarted."
        return "Trying again." if state is not None and state.name == "AwaitingRetry" else "Waiting for a worker."
    if status == "completed":
        result = seen.outcome.result if seen.outcome else None
        if result is not None and result.degraded:
            return f"Completed without speakers: {result.happened or result.error}"
        return "Completed."
    if status == "failed":
        error = error_of(seen, status)
        return error[1] if error else "Failed."
    if status == "canceled":
        return "Canceled."
    if state is not None and state.is_cancelling():
        return "Being canceled."
    return seen.progress.description if seen.progress is not None and percent_of(seen, status) else "Fetching the recording."


def updated_at(seen: Seen) -> datetime:
    """When something of the job changed last."""
    run = seen.run
    moments = [run.created, run.state.timestamp if run.state else None, seen.progress.updated if seen.progress else None]
    return max(moment for moment in moments if moment is not None)


def stages_of(seen: Seen, status: JobStatus) -> list[StageReport]:
    """What each stage did, or is doing."""
    if seen.outcome is not None and status in ENDED:
        return [
            StageReport(
                stage=report.stage,
                state=report.state,
                attempts=report.attempts,
                seconds=report.seconds,
                cost=report.cost,
                detail=_detail(report.detail, seen.outcome),
            )
            for report in seen.outcome.stages
        ]
    begun = _latest(seen.run, seen.task_runs) if status != "queued" else {}
    left_out = _skipped_stages(seen.run.parameters)
    return [_under_way(stage, begun.get(stage), left_out.get(stage)) for stage in STEPS]


def _detail(text: str, outcome: RunOutcome) -> str:
    """What a stage says of itself; of an error only what happened."""
    error = outcome.error
    return error.happened if error is not None and error.happened and text == error.message else text


def _latest(run: FlowRun, task_runs: Iterable[TaskRun]) -> dict[str, TaskRun]:
    """By stage, of the execution under way."""
    since = run.state.timestamp if run.state is not None and run.state.is_running() else None
    return {
        task_run.name.split()[0]: task_run
        for task_run in task_runs
        if task_run.name and (since is None or (task_run.start_time is not None and task_run.start_time >= since))
    }


def _under_way(stage: str, task_run: TaskRun | None, left_out: str | None) -> StageReport:
    if task_run is None or task_run.state is None:
        return StageReport(stage=stage, state="skipped" if left_out else "pending", detail=left_out or "")
    state: StageState = "running"
    if task_run.state.is_completed():
        state = "computed"  # by whom is known at the run's end: `api.reused`
    elif task_run.state.is_final():
        state = "failed"
    seconds = task_run.total_run_time if task_run.state.is_final() else task_run.estimated_run_time
    attempts = max(task_run.run_count, int(state == "computed"))
    return StageReport(stage=stage, state=state, attempts=attempts, seconds=round(seconds.total_seconds(), 3))


def _skipped_stages(parameters: dict[str, Any]) -> dict[str, str]:
    asked = parameters.get("request") or {}
    fields = TranscribeRequest.model_fields
    return {
        step: "not asked for"
        for name, option in options_of(TranscribeRequest).items()
        for step in option.switches
        if not asked.get(name, fields[name].default)
    }
