"""A job as callers see it, made of what is known of its run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from api import states, tags
from api.runs import submitted_at
from api.states import ENDED, Seen
from flows.options import FORMATS
from flows.outcome import RunOutcome
from flows.result import TranscribeResult
from stenoflow.jobs import Job

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun


def job_of(seen: Seen) -> Job:
    """The job, without its transcript."""
    run, result = seen.run, result_of(seen)
    status = states.status_of(run, seen.progress)
    error = states.error_of(seen, status)
    stages = states.stages_of(seen, status)
    costs = [stage.cost for stage in stages if stage.state not in ("pending", "running")]
    return Job(
        job_id=str(run.id),
        status=status,
        progress=states.percent_of(seen, status),
        message=states.message_of(seen, status),
        name=run.name,
        created_at=submitted_at(run),
        updated_at=states.updated_at(seen),
        language=result.language if result and status == "completed" else None,
        error=error[1] if error else None,
        error_code=error[0] if error else None,
        degraded=result.degraded if result else False,
        warnings=list(seen.outcome.warnings) if seen.outcome else [],
        stages=stages,
        duration=result.duration if result else None,
        cost=result.cost if result else _total(costs, ended=status in ENDED),
        metadata=tags.metadata(run),
        tags=sorted(tags.values(run, tags.TAG)),
        links=_links(run, tags.values(run, tags.FORMAT)) if result else {},
    )


def result_of(seen: Seen) -> TranscribeResult | None:
    """What the job left; also of one that failed because it lacks its speakers."""
    return seen.outcome.result if seen.outcome is not None else None


def _total(costs: list[float | None], *, ended: bool) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known) if ended and costs and len(known) == len(costs) else None


def _links(run: FlowRun, asked: list[str]) -> dict[str, str]:
    return {name: f"/transcribes/{run.id}.{name}" for name in FORMATS if name in asked or not asked}


def about(run: FlowRun, outcome: RunOutcome | None) -> RunOutcome | None:
    """The outcome, if it is of the execution that the run's state is about; an earlier one's may still lie there."""
    state = run.state
    if outcome is None or state is None:
        return None
    if state.is_completed():
        return outcome if outcome.result is not None else None
    if state.name == "Partial":
        return outcome if outcome.state == "partial" else None
    return outcome if outcome.state == ("canceled" if state.is_cancelled() else "failed") else None
