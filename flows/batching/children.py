"""The flow runs of a batch's recordings: made once per recording, under the batch in Prefect's views, found again after a crash."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

from flows.attempts import BESIDE_OTHERS
from flows.batching.plan import Planned
from flows.batching.request import digest
from flows.execution import create_run
from flows.orphans import claim
from flows.request import TranscribeRequest
from infra.names import display_name

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State

DEPLOYMENT = "transcribe/recording-of-batch"
_TAG = "stenoflow-batch"
"""That of the deployment's runs: automations leave them to their batch."""
_PAGE = 200
_AT_ONCE = 10
"""Runs that are cancelled at the same time."""
INTERRUPTED = "The batch was interrupted."


class Children:
    """Makes and finds the runs of one batch."""

    def __init__(self, client: PrefectClient, batch: UUID, campaign: str, deployment: UUID | None) -> None:
        self.client = client
        self.batch = batch
        self.tag = f"batch-{campaign}"
        self.deployment = deployment
        self._flow: UUID | None = None
        """Of runs without a deployment: registered once for all of them."""
        self.left: dict[str, FlowRun] = {}
        """By idempotency key: runs that an earlier process of this batch had under way when it died."""
        self.several_left = False

    async def find_left(self) -> None:
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterTags
        from prefect.client.schemas.objects import StateType

        unfinished = [StateType.RUNNING, StateType.PENDING, StateType.SCHEDULED, StateType.CANCELLING, StateType.CRASHED]
        wanted = FlowRunFilter(
            tags=FlowRunFilterTags(all_=[self.tag]),
            state=FlowRunFilterState.model_validate({"type": {"any_": unfinished}}),
        )
        offset = 0
        while page := await self.client.read_flow_runs(flow_run_filter=wanted, limit=_PAGE, offset=offset):
            self.left |= {run.idempotency_key: run for run in page if run.idempotency_key}
            offset += len(page)
        self.several_left = sum(self.was_at_work(key) for key in self.left) > 1

    def was_at_work(self, key: str) -> bool:
        """Whether the recording was being computed when the batch's process died."""
        run = self.left.get(key)
        if run is None or run.state is None:
            return False
        return run.state.is_running() or (run.state.is_crashed() and run.run_count > 0)

    async def create(self, plan: Planned, request: TranscribeRequest, *, scheduled: bool = False) -> FlowRun:
        """The recording's run: a new one, or the one made before under the same key."""
        key = child_key(plan)
        if self.deployment is None and self._flow is None:
            from flows.transcribe import transcribe

            self._flow = await self.client.create_flow(transcribe)
        parent = await self._node(key, plan.item.name)
        run = await create_run(
            self.client,
            request,
            idempotency_key=key,
            deployment_id=self.deployment,
            flow_id=self._flow,
            parent_task_run_id=parent,
            tags=[_TAG, self.tag],
            name=request.shown_as,
            scheduled=scheduled,
        )
        self.left.pop(key, None)
        if run.parent_task_run_id != parent:
            await self._adopt(run, parent)
        if not scheduled:
            await claim(self.client, run)
        return run

    async def reopen(self, run: FlowRun, *, beside_others: bool) -> FlowRun:
        """A run whose process died, ready to be executed again; any other one as it is.

        `beside_others` says that another one may have been to blame, so that the death is not held against this one.
        """
        from prefect.states import Pending

        if run.state is None or run.state.is_pending() or (run.state.is_final() and not run.state.is_crashed()):
            return run
        message = BESIDE_OTHERS if beside_others else INTERRUPTED
        # Forced: Prefect lets no run that has no deployment begin twice. Not scheduled: a worker would take it.
        await self.client.set_flow_run_state(run.id, Pending(message=message), force=True)
        return await self.client.read_flow_run(run.id)

    async def cancel_left(self) -> None:
        """Cancel every run of this batch that has not ended, whoever computes it, waits for it, or has not begun to."""
        await self.find_left()
        free = asyncio.Semaphore(_AT_ONCE)

        async def cancel(run: FlowRun) -> None:
            async with free:
                await self.client.set_flow_run_state(run.id, _cancelled(run))

        unfinished = [run for run in self.left.values() if run.state is None or not run.state.is_final()]
        await asyncio.gather(*map(cancel, unfinished), return_exceptions=True)

    async def close_left(self) -> None:
        """Cancel leftover runs: their recordings are no longer listed, or beyond the limit."""
        from prefect.states import Crashed

        for run in self.left.values():
            if run.state is None or not run.state.is_final():
                await self.client.set_flow_run_state(run.id, Crashed(message=INTERRUPTED), force=True)
        self.left.clear()

    async def _node(self, key: str, name: str) -> UUID:
        """The recording's node in the batch's graph; the one made before if there is one."""
        body = {
            "flow_run_id": str(self.batch),
            "task_key": "batch.recording",
            "dynamic_key": key,
            "name": display_name(name),
            "state": {"type": "PENDING"},
        }
        response = await self.client.request("POST", "/task_runs/", json=body)
        response.raise_for_status()
        return UUID(response.json()["id"])

    async def _adopt(self, run: FlowRun, node: UUID) -> None:
        """Go on with a run that an earlier batch made. It stays that one's child; this batch's node says where it is."""
        from prefect.states import Completed

        await self._leave_cancelled_batch(run)
        if self.tag not in run.tags:
            await self.client.update_flow_run(run.id, tags=[*run.tags, self.tag])
        message = f"Resumes flow run {run.id} of an earlier batch."
        await self.client.set_task_run_state(node, Completed(message=message), force=True)

    async def _leave_cancelled_batch(self, run: FlowRun) -> None:
        """Take the run out of an earlier batch that was cancelled, by deleting that batch's node for it.

        Prefect's server cancels every run whose parent is cancelled, however long ago (`server/services/cancellation_cleanup.py`).
        """
        if run.parent_task_run_id is None:
            return
        node = await self.client.read_task_run(run.parent_task_run_id)
        if node.flow_run_id is None:
            return
        state = (await self.client.read_flow_run(node.flow_run_id)).state
        if state is not None and (state.is_cancelled() or state.is_cancelling()):
            await self.client.delete_task_run(node.id)


def _cancelled(run: FlowRun) -> State:
    """The state that ends the run: its process ends it, or without a process it ends immediately."""
    from prefect.states import Cancelled, Cancelling

    waiting = run.state is not None and run.state.is_scheduled()
    return (Cancelled if waiting else Cancelling)(message="The batch was cancelled.")


def child_key(plan: Planned) -> str:
    """The same for the same recording, options and output; other options, even neutral ones, make another run."""
    return digest({"item": plan.key, "options": plan.options.model_dump(mode="json", exclude_defaults=True)})


async def find_deployment(client: PrefectClient) -> UUID | None:
    """That of batches' recordings, where it is registered: its runs have a Retry button, and workers."""
    from prefect.exceptions import ObjectNotFound

    try:
        return (await client.read_deployment_by_name(DEPLOYMENT)).id
    except ObjectNotFound:
        return None
