"""What a flow run's state says of its job; above all of a process that died."""

from __future__ import annotations

import uuid
from collections.abc import Callable
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


def half(seconds: float = 0.0) -> Progress:
    """What was noted that many seconds ago."""
    return Progress(percent=50.0, description="asr", updated=ago(seconds=seconds))


JUST = 1.0
LONG = RESTARTS_WITHIN.total_seconds() + 5
"""Seconds since a process died."""


@pytest.mark.parametrize(
    ("of", "seconds", "status"),
    [
        (Scheduled, 0.0, "queued"),
        (Pending, 0.0, "queued"),
        (AwaitingRetry, 0.0, "queued"),
        (Running, JUST, "processing"),
        (Cancelling, 0.0, "processing"),
        (Completed, 0.0, "completed"),
        (Failed, 0.0, "failed"),
        (Cancelled, 0.0, "canceled"),
        (Crashed, JUST, "queued"),
        (Crashed, LONG, "failed"),
    ],
)
def test_each_state_is_a_status_and_is_looked_for_under_it(
    of: Callable[..., State[Any]], seconds: float, status: JobStatus
) -> None:
    state = of(timestamp=ago(seconds=seconds))
    assert status_of(run(state), half()) == status
    assert state.type.value in STATE_TYPES[status]


def test_a_job_whose_process_died_is_queued_until_its_restart_is_overdue() -> None:
    died = Seen(run(Crashed(timestamp=ago(seconds=JUST))), half())
    assert error_of(died, "queued") is None
    assert message_of(died, "queued") == "The process of the job died; it is being restarted."
    assert percent_of(died, "queued") == 0.0


def test_a_job_that_nobody_restarted_has_failed_as_crashed() -> None:
    died = Seen(run(Crashed(timestamp=ago(seconds=LONG), message="Flow run process exited with code -9: /home/secret")), half())
    code, sentence = error_of(died, "failed") or ("", "")
    assert (code, sentence) == ("crashed", "The process of the job died and was not restarted; retry the job.")
    assert message_of(died, "failed") == sentence
    assert percent_of(died, "failed") == 50.0


def test_what_an_execution_before_said_is_not_this_ones_progress() -> None:
    running = run(Running(timestamp=ago(seconds=JUST)))
    assert status_of(running, half(300.0)) == "downloading"
    assert percent_of(Seen(running, half(300.0)), "processing") == 0.0
    assert status_of(running, half()) == "processing"
