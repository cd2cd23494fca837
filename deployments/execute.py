"""Executes runs: `python -m deployments.execute` the one whose id is in PREFECT__FLOW_RUN_ID, as a plain Prefect worker starts it;
`python -m deployments.execute FD` one after another, as they come in on that socket (see `deployments.warm`).

In place of `prefect.engine`, which executes whatever code a deployment names: its entrypoint, its pull steps, its storage. Who
may call Prefect's API may write all of these, so here the deployment chooses among the catalogue's flows, and names nothing
else. Nor is a result loaded that a state in the API points to: Prefect would unpickle it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from deployments.catalog import catalog
from infra.compute import computes_here, import_engine
from infra.processes import resident
from infra.settings import get_settings

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun

COMMAND = "python -P -m stenoflow.isolated deployments.execute"
GROWTH = 2**30
"""Bytes of memory by which a process may grow before it is replaced."""


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


class Share:
    """How much one process may execute."""

    def __init__(self) -> None:
        self._left = get_settings().batch.recycle
        self._settled = 0
        """Memory in use after the second run: the first loads models, and the second finds how they are used."""
        self._runs = 0

    def again(self) -> bool:
        """Whether it may execute another run, after one more."""
        self._runs += 1
        used = resident()
        if self._runs <= 2:
            self._settled = used
        return self._runs < self._left and used - self._settled < GROWTH


def serve(connection: socket.socket) -> None:
    """Execute one run after another, until the worker closes its end or this process is not fit for another.

    A line in: the variables of a run. Lines out: one when it has begun, and `{"again": …}` when it has ended; none when it ends
    this process as well.
    """
    prepare()
    from flows.prefect_compat.engine import execute_for_worker, nothing_left

    share, again = Share(), True
    with (
        contextlib.suppress(ConnectionError),  # the worker is gone
        connection,
        connection.makefile("r", encoding="utf-8") as orders,
        asyncio.Runner() as runner,
    ):
        while again and (line := orders.readline()):
            connection.sendall(b"begun\n")
            with variables(json.loads(line)):
                # Whatever did not go well may have left something: the next run gets another process.
                state = execute_for_worker(flow_or_refusal, runner)
                again = nothing_left(runner) and state is not None and state.is_completed() and share.again()
            gc.collect()  # Prefect's contexts refer to one another in circles
            connection.sendall(json.dumps({"again": again}).encode() + b"\n")


def prepare() -> None:
    """Import what runs need; the stages' libraries where stages are computed here."""
    for name in ("prefect.task_engine", "prefect.events.worker", "flows.transcribe"):
        importlib.import_module(name)
    if computes_here(get_settings()):
        import_engine()


@contextlib.contextmanager
def variables(run: dict[str, str]) -> Iterator[None]:
    """The environment of one run."""
    before = dict(os.environ)
    os.environ |= run
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def main() -> None:
    from flows.prefect_compat.engine import execute_for_worker, leave

    if len(sys.argv) > 1:
        serve(socket.socket(fileno=int(sys.argv[1])))
        leave()
    else:
        with asyncio.Runner() as runner:
            execute_for_worker(flow_or_refusal, runner)


if __name__ == "__main__":
    main()
