"""What a flow run's state says of its job; above all of a process that died."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import AwaitingRetry, Cancelled, Cancelling, Completed, Crashed, Failed, Pending, Running, Scheduled

from api.states import STATE_TYPES, Seen, error_of, message_of, percent_of, status_of
from flows.attempts import RESTARTS_WITHIN
from flows.progress import Progress
from stenoflow.jobs import JobStatus


def run(state: State[Any]) -> FlowRun:
    return FlowRun(flow_id=uuid.uuid4(), state=state, created=datetime.now(UTC))


def ago(**of: float) -> datetime:
    return datetime.now(UTC) - timedelta(**of)


HALF = Progress(percent=50.0, description="asr", updated=datetime.now(UTC) + timedelta(seconds=60))
JUST = ago(seconds=1)
LONG = ago(seconds=RESTARTS_WITHIN.total_seconds() + 5)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (Scheduled(), "queued"),
        (Pending(), "queued"),
        (AwaitingRetry(), "queued"),
        (Running(), "processing"),
        (Cancelling(), "processing"),
        (Completed(), "completed"),
        (Failed(), "failed"),
        (Cancelled(), "canceled"),
        (Crashed(timestamp=JUST), "queued"),
        (Crashed(timestamp=LONG), "failed"),
    ],
)
def test_each_state_is_a_status_and_is_looked_for_under_it(state: State[Any], status: JobStatus) -> None:
    assert status_of(run(state), HALF) == status
    assert state.type.value in STATE_TYPES[status]


def test_a_job_whose_process_died_is_queued_until_its_restart_is_overdue() -> None:
    died = Seen(run(Crashed(timestamp=JUST)), HALF)
    assert error_of(died, "queued") is None
    assert message_of(died, "queued") == "The process of the job died; it is being restarted."
    assert percent_of(died, "queued") == 0.0


def test_a_job_that_nobody_restarted_has_failed_as_crashed() -> None:
    died = Seen(run(Crashed(timestamp=LONG, message="Flow run process exited with code -9: /home/secret")), HALF)
    code, sentence = error_of(died, "failed") or ("", "")
    assert (code, sentence) == ("crashed", "The process of the job died and was not restarted; retry the job.")
    assert message_of(died, "failed") == sentence
    assert percent_of(died, "failed") == 50.0


def test_what_an_execution_before_said_is_not_this_ones_progress() -> None:
    before = HALF.model_copy(update={"updated": ago(minutes=5)})
    assert status_of(run(Running(timestamp=JUST)), before) == "downloading"
    assert percent_of(Seen(run(Running(timestamp=JUST)), before), "processing") == 0.0
    assert status_of(run(Running(timestamp=JUST)), HALF) == "processing"
