"""Executes one run in a process of its own: `python -m deployments.execute`, with the run's id in PREFECT__FLOW_RUN_ID.

In place of `prefect.engine`, which executes whatever code a deployment names: its entrypoint, its pull steps, its storage. Who
may call Prefect's API may write all of these, so here the deployment chooses among the catalogue's flows, and names nothing
else. Nor is a result loaded that a state in the API points to: Prefect would unpickle it.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any
from uuid import UUID

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
        raise Refused("It has no deployment, so that a worker does not know which flow it is of.")
    try:
        async with get_client() as client:
            named = (await client.read_deployment(run.deployment_id)).entrypoint
    except ObjectNotFound:
        raise Refused("Its deployment was deleted.") from None
    for spec in catalog(get_settings()):
        if spec.entrypoint == named and not spec.courier:
            return spec.flow
    raise Refused(
        f"Workers execute Stenoflow's own flows alone, and its deployment names {named!r}; `steno deploy` restores ours."
    )


async def refuse(run: FlowRun, why: str) -> None:
    """End the run as Failed, whatever state it is in."""
    from prefect.client.orchestration import get_client
    from prefect.states import Failed

    async with get_client() as client:
        await client.set_flow_run_state(run.id, Failed(message=f"Not executed. {why}"), force=True)


def main() -> None:
    from prefect._internal.control_listener import configure_from_env
    from prefect.engine import handle_engine_signals

    run_id = UUID(os.environ["PREFECT__FLOW_RUN_ID"])
    # As `prefect.engine` does: how the worker tells this process that it is cancelled, and learns how it ended.
    configure_from_env()
    with handle_engine_signals(run_id):
        from prefect.flow_engine import load_flow_run, run_flow

        run = load_flow_run(run_id)
        try:
            flow = asyncio.run(flow_of(run))
        except Refused as refused:
            asyncio.run(refuse(run, str(refused)))
            return
        executing: Any = run_flow(flow, flow_run=run, return_type="state")
        asyncio.run(executing)  # on the main thread, where the engine takes SIGTERM for its own


if __name__ == "__main__":
    main()
