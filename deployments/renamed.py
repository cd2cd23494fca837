"""Deployments that an earlier version registered under other names: replaced, without losing what waits or may be retried.

Prefect renames no deployment, moves no run to another, and deletes the waiting runs of one that is deleted. So one that has
runs which have not ended, or which failed lately and may be retried, stays for a while: without schedules, and marked.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from deployments.catalog import Change

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

FORMER = {
    "transcribe/one-recording": "transcribe/stenoflow",
    "transcribe/recording-of-batch": "transcribe/batch",
    "batch/folder-or-feed": "batch/stenoflow",
    "gc/clean-up": "gc/nightly",
    "evaluate/compare-models": "evaluate/stenoflow",
    "notify/webhook": "notify/stenoflow",
}
"""The name that a deployment had before, by the one it has now."""
RETIRED_TAG = "retired"
RETRIED_WITHIN = timedelta(days=7)
"""After a failure; as long as the address of a private source is kept (`infra.handles`)."""


async def predecessor(client: PrefectClient, full_name: str, entrypoint: str) -> DeploymentResponse | None:
    """The deployment of ours that `full_name` replaces, where it is still registered."""
    from prefect.exceptions import ObjectNotFound

    former = FORMER.get(full_name)
    if former is None:
        return None
    try:
        found = await client.read_deployment_by_name(former)
    except ObjectNotFound:
        return None
    return found if found.entrypoint == entrypoint else None


async def retire(client: PrefectClient, old: DeploymentResponse, new_name: str) -> Change | None:
    """Mark `old`, and remove it unless its runs need it. None when it was marked before and stays."""
    former, marked = FORMER[new_name], RETIRED_TAG in old.tags
    if not marked:
        await _mark(client, old, new_name)  # first: it makes no runs from now on
    if not await _is_needed(client, old):
        await client.delete_deployment(old.id)
        return Change("deployment", former, "removed")
    return None if marked else Change("deployment", former, "updated")


async def _mark(client: PrefectClient, old: DeploymentResponse, new_name: str) -> None:
    about = (
        f"**Renamed: start new runs of `{new_name}`.** This deployment is deleted after its runs have ended, {RETRIED_WITHIN.days} days "
        "after the last failure."
    )
    changes = {"description": about, "tags": sorted({*old.tags, RETIRED_TAG}), "schedules": []}
    response = await client.request("PATCH", f"/deployments/{old.id}", json=changes)  # type: ignore[arg-type]
    response.raise_for_status()


async def _is_needed(client: PrefectClient, old: DeploymentResponse) -> bool:
    """Whether a run of it waits, is at work, or failed lately."""
    since = (datetime.now(UTC) - RETRIED_WITHIN).isoformat()
    needs = (
        {"state": {"type": {"any_": ["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"]}}},
        {"state": {"type": {"any_": ["FAILED", "CRASHED"]}}, "end_time": {"after_": since}},
    )
    for need in needs:
        body = {"flow_runs": need, "deployments": {"id": {"any_": [str(old.id)]}}}
        response = await client.request("POST", "/flow_runs/count", json=body)
        response.raise_for_status()
        if response.json():
            return True
    return False
