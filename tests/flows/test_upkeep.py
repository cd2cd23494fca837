"""Which events of a server are stored, and what is kept for how long."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.server.events.schemas.events import ReceivedEvent, RelatedResource

from api.runs import Runs
from flows.artifacts import read_artifacts
from flows.prefect_compat.erasing import StoredEvents
from flows.request import TranscribeRequest
from flows.transcribe import transcribe
from flows.upkeep import Ages, prune
from infra.settings import RetentionSettings, StenoSettings
from tests.stage_double import ComputeDouble, recording


def event(name: str, flow: str, resource_name: str = "fetch talk.wav") -> ReceivedEvent:
    related = {"prefect.resource.id": "prefect.flow.1", "prefect.resource.role": "flow", "prefect.resource.name": flow}
    resource = {"prefect.resource.id": "prefect.any.1", "prefect.resource.name": resource_name}
    return ReceivedEvent(id=uuid4(), occurred=datetime.now(UTC), event=name, resource=resource, related=[related])


@pytest.mark.parametrize(
    ("name", "flow", "stored"),
    [
        ("prefect.task-run.Completed", "transcribe", False),
        ("prefect.artifact.updated", "batch", False),
        ("prefect.flow-run.heartbeat", "transcribe", False),
        ("prefect.flow-run.Crashed", "transcribe", True),
        ("prefect.worker.submitted-flow-run", "transcribe", True),
        ("prefect.task-run.Completed", "somebody-else-s", True),
        ("prefect.flow-run.heartbeat", "somebody-else-s", True),
    ],
)
def test_events_of_ours_are_stored_where_nothing_else_says_the_same(name: str, flow: str, stored: bool) -> None:
    assert StoredEvents().stores(event(name, flow)) is stored


def test_the_latest_report_is_no_event_and_other_people_s_artifacts_are() -> None:
    assert not StoredEvents().stores(event("prefect.artifact-collection.updated", "", "transcription-report"))
    assert StoredEvents().stores(event("prefect.artifact-collection.updated", "", "sales"))


def test_retention_can_be_switched_off() -> None:
    assert RetentionSettings().run_days == 90
    kept = RetentionSettings.model_validate({"run_days": "never", "event_days": "", "log_days": "14"})
    assert (kept.run_days, kept.event_days, kept.log_days) == (None, None, 14)


async def recorded(client: PrefectClient, runs: FlowRunFilter, last: str) -> None:
    """Wait until the server has recorded the task runs, which it does some time after they ended."""
    for _ in range(300):
        found = await client.read_task_runs(flow_run_filter=runs)
        if last in {task.name for task in found} and all(task.state and task.state.is_final() for task in found):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the task runs were not recorded")


def test_no_event_is_stored_of_a_run_that_was_erased() -> None:
    late, other = event("prefect.flow-run.Failed", "transcribe"), event("prefect.flow-run.Failed", "transcribe")
    run = uuid4()
    for one, kept in ((late, run), (other, uuid4())):
        one.related.append(
            RelatedResource({"prefect.resource.id": f"prefect.flow-run.{kept}", "prefect.resource.role": "flow-run"})
        )
    stored = StoredEvents()
    assert stored.stores(late)
    stored.forget([run])
    assert (stored.stores(late), stored.stores(other)) == (False, True)


@pytest.mark.usefixtures("prefect_server")
async def test_on_somebody_else_s_server_what_its_api_can_delete_is_deleted(
    tmp_path: Path, steno: StenoSettings, double: ComputeDouble
) -> None:
    request = TranscribeRequest(source=str(recording(tmp_path / "talk.wav")), output_dir=str(tmp_path / "out"))
    state = await transcribe(request, return_state=True)
    run = state.state_details.flow_run_id
    assert isinstance(run, UUID)
    async with get_client() as client:
        this = FlowRunFilter(id=FlowRunFilterId(any_=[run]))
        await recorded(client, this, "export talk")
        assert await read_artifacts(client, run)
        await Runs(client, steno.api).erase(run)
        assert not await client.read_task_runs(flow_run_filter=this) and not await read_artifacts(client, run)
        assert (await client.read_flow_run(run)).name == "talk.wav", "its caller blanks it"
        assert await prune(client, Ages(run_days=0)) is None
