"""Flow runs made and executed in this process, so that models stay loaded from one recording to the next."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from flows.attempts import BY_HAND
from flows.orphans import claim, label
from flows.request import TranscribeRequest

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State


R = TypeVar("R")
T = TypeVar("T")


async def create_run(
    client: PrefectClient,
    request: TranscribeRequest,
    *,
    idempotency_key: str,
    deployment_id: UUID | None = None,
    flow_id: UUID | None = None,
    parent_task_run_id: UUID | None = None,
    tags: Iterable[str] = (),
    name: str | None = None,
    scheduled: bool = False,
) -> FlowRun:
    """A run of `transcribe` that no worker picks up, in state Pending; the one made before under the same key, if any.

    One that is `scheduled` is for the workers of its deployment. With `deployment_id` it is a run of that deployment, so
    that Prefect's Retry button works on it; without, knowing the `flow_id` spares a request.
    """
    from prefect.client.schemas.objects import FlowRun

    body: dict[str, Any] = {
        "labels": {} if scheduled else label(),
        # Without nulls, which the form's choices do not take (`deployments/form.py`); whatever can be null is so by default.
        "parameters": {"request": request.model_dump(mode="json", exclude_unset=True, exclude_none=True)},
        "idempotency_key": idempotency_key,
        "parent_task_run_id": str(parent_task_run_id) if parent_task_run_id else None,
        "state": {"type": "SCHEDULED" if scheduled else "PENDING"},
        "tags": sorted(tags),
    }
    if name:
        body["name"] = name
    if deployment_id is None:
        from flows.transcribe import transcribe

        path, body["flow_id"] = "/flow_runs/", str(flow_id or await client.create_flow(transcribe))
    else:
        path = f"/deployments/{deployment_id}/create_flow_run"
    response = await client.request("POST", path, json=body)  # type: ignore[arg-type]
    response.raise_for_status()
    return FlowRun.model_validate(response.json())


async def run_here(flow: Flow[[R], Awaitable[T]], request: R) -> T:
    """Execute the flow in this process, as a run that is labelled with it from its first moment; the result.

    Raises what the flow raises. Calling the flow would have Prefect make a run that nothing connects with this process until
    its first line.
    """
    from prefect.client.schemas.objects import FlowRun
    from prefect.context import AsyncClientContext

    from flows.prefect_compat.engine import result_of

    parameters: dict[str, Any] = {"request": request}
    async with AsyncClientContext.get_or_create() as context:
        body = {
            "flow_id": str(await context.client.create_flow(flow)),
            "parameters": flow.serialize_parameters(parameters),
            "state": {"type": "PENDING"},
            "labels": label(),
        }
        response = await context.client.request("POST", "/flow_runs/", json=body)
        response.raise_for_status()
        run = FlowRun.model_validate(response.json())
        return await result_of(flow, run, parameters)


async def execute_here(run: FlowRun, *, by_hand: bool = False) -> State[Any]:
    """Execute a run of `transcribe` in this process, with the parameters it was made with; how it ended.

    A run that has ended before is executed again: its finished stages come from the cache. `by_hand` says that a person
    wants that, so that it is not quarantined for what happened before.
    """
    from prefect.client.orchestration import get_client
    from prefect.states import Pending

    from flows.prefect_compat.engine import execute
    from flows.transcribe import transcribe

    if by_hand or (run.state is not None and run.state.is_final()):
        async with get_client() as client:
            await claim(client, run)
            # Forced: without it Prefect refuses to run again what has no deployment. Not scheduled: a worker would take it.
            await client.set_flow_run_state(run.id, Pending(message=BY_HAND if by_hand else None), force=True)
            run = await client.read_flow_run(run.id)
    return await execute(transcribe, run)
