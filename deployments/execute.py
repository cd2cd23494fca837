"""Executes one run in a process of its own: `python -m deployments.execute`, with the run's id in PREFECT__FLOW_RUN_ID.

In place of `prefect.engine`, which executes whatever code a deployment names: its entrypoint, its pull steps, its storage. Who
may call Prefect's API may write all of these, so here the deployment chooses among the catalogue's flows, and names nothing
else. Nor is a result loaded that a state in the API points to: Prefect would unpickle it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deployments.catalog import catalog
from infra.settings import get_settings

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun

COMMAND = "python -P -m stenoflow.isolated deployments.execute"


class Refused(Exception):
    """The run's deployment is none of the catalogue's."""


async def flow_of(run: FlowRun) -> Flow[..., Any]:
    """The flow of the catalogue that the run's deployment names. Raises Refused."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    if run.deployment_id is None:
        raise Refused("The run has no deployment, so its flow is unknown.")
    try:
        async with get_client() as client:
            named = (await client.read_deployment(run.deployment_id)).entrypoint
    except ObjectNotFound:
        raise Refused("The deployment of the run was deleted.") from None
    for spec in catalog(get_settings()):
        if spec.entrypoint == named and not spec.courier:
            return spec.flow
    raise Refused(
        f"Workers only execute Stenoflow's flows, and its deployment names {named!r}; run `steno deploy` to restore it."
    )


async def refuse(run: FlowRun, why: str) -> None:
    """End the run as Failed, whatever state it is in."""
    from prefect.client.orchestration import get_client
    from prefect.states import Failed

    async with get_client() as client:
        await client.set_flow_run_state(run.id, Failed(message=f"Not executed. {why}"), force=True)


async def flow_or_refusal(run: FlowRun) -> Flow[..., Any] | None:
    """The flow of the run; None when the run was refused, and ended."""
    try:
        return await flow_of(run)
    except Refused as refused:
        await refuse(run, str(refused))
        return None


def main() -> None:
    from flows.prefect_compat.engine import execute_for_worker

    execute_for_worker(flow_or_refusal)


if __name__ == "__main__":
    main()
