"""Jobs as Prefect keeps them: flow runs of one deployment, found by their tags. The only module that asks Prefect."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from api.batching import Batched
from api.errors import JobNotFound, Unavailable
from flows import upkeep, webhooks
from flows.artifacts import PREFIX
from flows.execution import create_run
from flows.progress import NAME as PROGRESS
from flows.progress import Progress
from flows.request import TranscribeRequest
from infra.api_settings import ApiSettings

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import Artifact, FlowRun, TaskRun

FRESH = 0.4
"""Seconds that what was read of a run is good for."""
OLDEST = 5.0
"""The same for callers who poll, when Prefect is too slow to be asked that often."""
_PAGE = 200
_PATIENCE = 25.0
"""Seconds that an answer is waited for, the client's own attempts together."""
_PATIENCE_TO_CREATE = 90.0
"""Making a run takes Prefect far longer than reading one, and more so when hundreds are made at once."""
_AGAIN = 2.0
"""`Retry-After` when Prefect does not respond, in seconds."""


class Runs:
    """Flow runs of the deployment that jobs are. Raises Unavailable when Prefect does not answer."""

    def __init__(self, client: PrefectClient, settings: ApiSettings) -> None:
        self.client = client
        self._name = settings.deployment
        self._deployment: UUID | None = None
        self._runs = Batched(self._read_runs, fresh=FRESH, oldest=OLDEST, settled=_is_final)
        self._progress = Batched(self._read_progress, fresh=FRESH, oldest=OLDEST)
        self._task_runs = Batched(self._read_task_runs, fresh=FRESH, oldest=OLDEST, size=20)

    async def aclose(self) -> None:
        """Read nothing more ahead."""
        for batched in (self._runs, self._progress, self._task_runs):
            await batched.aclose()

    async def deployment(self) -> UUID:
        """The id of the deployment. Raises Unavailable when there is none."""
        from prefect.exceptions import ObjectNotFound

        if self._deployment is None:
            async with prefect_answers():
                try:
                    self._deployment = (await self.client.read_deployment_by_name(self._name)).id
                except ObjectNotFound:
                    raise Unavailable(
                        f"The deployment {self._name} is not registered with Prefect yet; the operator has to run `steno deploy`."
                    ) from None
        return self._deployment

    # -- reading ------------------------------------------------------------------------------------------------------

    async def get(self, run: UUID) -> FlowRun | None:
        """The flow run; None when there is none of that id."""
        return await self._runs.get(run)

    async def progress(self, run: UUID) -> Progress | None:
        """How far it was when it last said so."""
        return await self._progress.get(run)

    async def task_runs(self, run: UUID) -> list[TaskRun]:
        """Its stages, in the order they were begun."""
        return await self._task_runs.get(run) or []

    def changed(self, run: UUID) -> None:
        """Invalidate what was read of the run."""
        self._runs.forget(run)
        self._progress.forget(run)
        self._task_runs.forget(run)

    async def page(self, filters: Mapping[str, Any], limit: int) -> list[FlowRun]:
        """Runs by a filter of Prefect's, the latest submitted first."""
        from prefect.client.schemas.filters import FlowRunFilter
        from prefect.client.schemas.sorting import FlowRunSort

        found = FlowRunFilter.model_validate(filters)
        async with prefect_answers():
            return await self.client.read_flow_runs(
                flow_run_filter=found, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=min(limit, _PAGE)
            )

    async def count(self, filters: Mapping[str, Any]) -> int:
        """How many runs there are by a filter of Prefect's."""
        async with prefect_answers():
            response = await self.client.request("POST", "/flow_runs/count", json={"flow_runs": dict(filters)})
            response.raise_for_status()
            return int(response.json())

    async def artifacts(self, run: UUID) -> list[Artifact]:
        """What it shows in Prefect's views."""
        from flows.artifacts import read_artifacts

        async with prefect_answers():
            return await read_artifacts(self.client, run)

    async def deliveries(self, filters: Mapping[str, Any], limit: int) -> list[FlowRun]:
        """The runs of `notify` that match a filter of Prefect's, latest first."""
        async with prefect_answers():
            return await webhooks.deliveries(self.client, dict(filters), limit)

    # -- changing -----------------------------------------------------------------------------------------------------

    async def create(self, request: TranscribeRequest, *, key: str, tags: Iterable[str]) -> FlowRun:
        """A run that waits for a worker; the one made before under the same key, if any."""
        deployment = await self.deployment()
        async with prefect_answers(_PATIENCE_TO_CREATE):
            try:
                return await create_run(
                    self.client,
                    request,
                    idempotency_key=key,
                    deployment_id=deployment,
                    tags=tags,
                    name=request.shown_as,
                    scheduled=True,
                )
            except Exception as error:
                if _status(error) == 404:
                    self._deployment = None  # deployed anew meanwhile, under another id
                raise

    async def cancel(self, run: UUID) -> None:
        """Have it end; nothing when it has ended."""
        from prefect.states import Cancelling

        async with prefect_answers():
            await self.client.set_flow_run_state(run, Cancelling(message="Cancelled through the REST API."))
        self.changed(run)

    async def force_cancelled(self, run: UUID) -> None:
        """Set its final state in Prefect: no process is left to report it."""
        from prefect.states import Cancelled

        async with prefect_answers():
            await self.client.set_flow_run_state(run, Cancelled(message="Cancelled through the REST API."), force=True)
        self.changed(run)

    async def deliver_again(self, delivery: FlowRun) -> FlowRun | None:
        """Have it delivered once more, from now on; None when that is not possible now."""
        async with prefect_answers():
            if not await webhooks.deliver_again(self.client, delivery):
                return None
            return await self.client.read_flow_run(delivery.id)

    async def erase(self, run: UUID) -> None:
        """Delete all that the ended run left but its own row. A server that is not ours keeps logs, states and events."""
        from prefect.exceptions import ObjectNotFound

        async with prefect_answers():
            if await upkeep.erase(self.client, [run]):
                return
        for task_run in (await self._read_task_runs([run])).get(run, ()):
            async with prefect_answers():
                await self.client.request("DELETE", "/task_runs/{id}", path_params={"id": task_run.id})
        for artifact in await self.artifacts(run):
            async with prefect_answers():
                with contextlib.suppress(ObjectNotFound):
                    await self.client.delete_artifact(artifact.id)

    async def cancel_webhooks(self, job: UUID) -> None:
        """Delete the webhook deliveries of the job."""
        from prefect.exceptions import ObjectNotFound

        for delivery in await self.deliveries({"tags": {"all_": [f"{webhooks.OF_JOB}{job}"]}}, _PAGE):
            async with prefect_answers():
                await upkeep.erase(self.client, [delivery.id])
                with contextlib.suppress(ObjectNotFound):
                    await self.client.delete_flow_run(delivery.id)

    async def mark(self, run: UUID, *, tags: Iterable[str], labels: Mapping[str, str], blank: bool = False) -> None:
        """Give it these tags in place of its own, and these labels beside its own; `blank` forgets what it was asked to do."""
        nothing: dict[str, Any] = {"name": "deleted", "parameters": {}} if blank else {}
        async with prefect_answers():
            if labels:
                await self.client.update_flow_run_labels(run, dict(labels))
            await self.client.update_flow_run(run, tags=sorted(tags), **nothing)
        self.changed(run)

    # -- in batches ---------------------------------------------------------------------------------------------------

    async def _read_runs(self, runs: list[UUID]) -> dict[UUID, FlowRun]:
        return {run.id: run for run in await self.page({"id": {"any_": runs}}, len(runs))}

    async def _read_progress(self, runs: list[UUID]) -> dict[UUID, Progress]:
        from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
        from prefect.client.schemas.sorting import ArtifactSort

        wanted = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=list(runs)), key=ArtifactFilterKey(any_=[f"{PREFIX}-{PROGRESS}"])
        )
        async with prefect_answers():
            found = await self.client.read_artifacts(artifact_filter=wanted, sort=ArtifactSort.UPDATED_DESC)
        latest: dict[UUID, Progress] = {}
        for one in found:
            if one.flow_run_id is not None and isinstance(one.data, int | float):
                said = Progress(percent=float(one.data), description=one.description or "", updated=one.updated)
                latest.setdefault(one.flow_run_id, said)
        return latest

    async def _read_task_runs(self, runs: list[UUID]) -> dict[UUID, list[TaskRun]]:
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
        from prefect.client.schemas.sorting import TaskRunSort

        async with prefect_answers():
            found = await self.client.read_task_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=list(runs))), sort=TaskRunSort.EXPECTED_START_TIME_ASC
            )
        by_run: dict[UUID, list[TaskRun]] = defaultdict(list)
        for task_run in found:
            if task_run.flow_run_id is not None:
                by_run[task_run.flow_run_id].append(task_run)
        return by_run


def _is_final(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_final()


def submitted_at(run: FlowRun) -> datetime:
    """When it was made, which lists are ordered by."""
    moment = run.expected_start_time or run.created
    assert moment is not None
    return moment


@contextlib.asynccontextmanager
async def prefect_answers(patience: float = _PATIENCE) -> AsyncIterator[None]:
    """Translate the errors of Prefect's client for a server that is unreachable or rejects to Unavailable, within `patience` seconds.

    An unknown run raises JobNotFound.
    """
    import httpx
    from prefect.exceptions import ObjectNotFound, PrefectException

    try:
        async with asyncio.timeout(patience):
            yield
    except ObjectNotFound:
        raise JobNotFound("There is no job with that id.") from None
    except (httpx.HTTPError, PrefectException, RuntimeError, OSError) as error:
        raise Unavailable(
            "The orchestrator returned an unexpected answer; try again in a moment.", retry_after=_AGAIN, code="orchestrator"
        ) from error


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None)
