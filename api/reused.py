"""Reused stages as an owner may see them: a stage of another owner's job is reported as computed now.

Runs share what stages computed of the same samples. A stage reported as `cached` would reveal to a caller that another owner
had sent the same recording; timing still reveals it in part.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from uuid import UUID

from api import tags
from api.runs import Runs
from flows.outcome import RunOutcome
from flows.result import StageReport
from infra.prices import Rented, own_cost, region_factor, rented_cost
from infra.settings import StenoSettings

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun


async def as_seen_by_owner(outcome: RunOutcome, run: FlowRun, runs: Runs, settings: StenoSettings) -> RunOutcome:
    """The outcome of the run, with stages of other owners reported as computed. Raises Unavailable."""
    cached = [report for report in outcome.stages if report.state == "cached"]
    own = {by for by in {report.computed_by for report in cached} if by and await _is_of(tags.owner_of(run), by, runs)}
    hidden = {report.stage for report in cached if report.computed_by not in own}
    if any(report.stage == "segment" and report.computed_by in own for report in cached):
        hidden -= {"fetch"}  # who segmented the recording before had it
    if not hidden:
        return outcome
    stages = tuple(_as_computed_now(report, settings) if report.stage in hidden else report for report in outcome.stages)
    result = outcome.result
    if result is not None:
        result = result.model_copy(update={"stages": stages, "cost": _total(stages)})
    return outcome.model_copy(update={"stages": stages, "result": result})


async def _is_of(owner: str, run_id: str, runs: Runs) -> bool:
    try:
        found = await runs.get(UUID(run_id))
    except ValueError:
        return False
    return found is not None and tags.belongs_to(found, owner)


def _as_computed_now(report: StageReport, settings: StenoSettings) -> StageReport:
    """The report as it would be of a stage that was computed now."""
    seconds = report.seconds if report.compute_seconds is None else report.compute_seconds
    if report.backend in ("", "local"):
        cost: float | None = own_cost(seconds, settings)
    else:
        cost = rented_cost(seconds, Rented(report.gpu, factor=region_factor(settings.modal.region)))
    return report.model_copy(update={"state": "computed", "attempts": 1, "seconds": round(seconds, 3), "cost": cost})


def _total(stages: Iterable[StageReport]) -> float | None:
    costs = [report.cost for report in stages]
    return None if None in costs else sum(cost for cost in costs if cost is not None)
