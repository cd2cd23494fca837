"""Which events of a server are stored, and what is kept for how long."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from prefect.server.events.schemas.events import ReceivedEvent

from flows.upkeep.events import wanted
from infra.settings import RetentionSettings


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
    assert wanted(event(name, flow)) is stored


def test_the_latest_report_is_no_event_and_other_people_s_artifacts_are() -> None:
    assert not wanted(event("prefect.artifact-collection.updated", "", "transcription-report"))
    assert wanted(event("prefect.artifact-collection.updated", "", "sales"))


def test_retention_can_be_switched_off() -> None:
    assert RetentionSettings().run_days == 90
    kept = RetentionSettings.model_validate({"run_days": "never", "event_days": "", "log_days": "14"})
    assert (kept.run_days, kept.event_days, kept.log_days) == (None, None, 14)
