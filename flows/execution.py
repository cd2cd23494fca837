"""Flow runs made and executed in this process, so that models stay loaded from one recording to the next."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from flows.attempts import BY_HAND
from flows.request import TranscribeRequest

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State


async def create_run(
    client: PrefectClient,
    request: TranscribeRequest,
    *,
    idempotency_key: str,
    deployment_id: UUID | None = None,
    parent_task_run_id: UUID | None = None,
    tags: Iterable[str] = (),
    name: str | None = None,
    scheduled: bool = False,
) -> FlowRun:
    """A run of `transcribe` that no worker picks up, in state Pending; the one made before under the same key, if any.

    One that is `scheduled` is for the workers of its deployment. With `deployment_id` it is a run of that deployment, so
    that Prefect's Retry button works on it.
    """
    from prefect.client.schemas.objects import FlowRun

    body: dict[str, Any] = {
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
        path, body["flow_id"] = "/flow_runs/", await _flow_id(client)
    else:
        path = f"/deployments/{deployment_id}/create_flow_run"
    response = await client.request("POST", path, json=body)  # type: ignore[arg-type]
    response.raise_for_status()
    return FlowRun.model_validate(response.json())


_flow_ids: dict[str, str] = {}
"""By API: registering the flow for every recording of a batch would be a request each."""


async def _flow_id(client: PrefectClient) -> str:
    from flows.transcribe import transcribe

    api = str(client.api_url)
    if api not in _flow_ids:
        _flow_ids[api] = str(await client.create_flow(transcribe))
    return _flow_ids[api]


async def execute_here(run: FlowRun, *, by_hand: bool = False) -> State[Any]:
    """Execute a run of `transcribe` in this process, with the parameters it was made with; how it ended.

    A run that has ended before is executed again: its finished stages come from the cache. `by_hand` says that a person
    wants that, so that it is not set aside for what happened before.
    """
    from prefect.client.orchestration import get_client
    from prefect.flow_engine import run_flow_async
    from prefect.states import Pending

    from flows.transcribe import transcribe

    if by_hand or (run.state is not None and run.state.is_final()):
        async with get_client() as client:
            # Forced: without it Prefect refuses to run again what has no deployment. Not scheduled: a worker would take it.
            await client.set_flow_run_state(run.id, Pending(message=BY_HAND if by_hand else None), force=True)
            run = await client.read_flow_run(run.id)
    # The parameters are JSON, as the API stores them; the engine validates them.
    state: Any = await run_flow_async(transcribe, flow_run=run, parameters=dict(run.parameters), return_type="state")
    return cast("State[Any]", state)
