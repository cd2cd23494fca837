"""Which ends of jobs are told, under which id, and how attempts are counted."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import AwaitingRetry, Cancelled, Completed, Crashed, Failed, Pending, Running

from flows.attempts import RESTARTED
from flows.webhooks import ASKED_AGAIN, ATTEMPT, DELETED, Notice, attempts_of, notice_of, subscription_tags

TO = "0" * 32
NOW = datetime.now(UTC)


def run(state: State[Any], **fields: Any) -> FlowRun:
    return FlowRun(flow_id=uuid.uuid4(), state=state, **({"tags": [*subscription_tags(TO), "meta:a=b=c"]} | fields))


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (Completed(), "completed"),
        (Failed(name="Partial"), "failed"),
        (Cancelled(), "canceled"),
        (Crashed(timestamp=NOW - timedelta(minutes=5)), "failed"),
        (Running(), None),
        (AwaitingRetry(), None),
    ],
)
def test_what_has_come_to_its_end_is_told(state: State[Any], status: str | None) -> None:
    notice = notice_of(run(state))
    assert (notice.status if notice else None) == status


def test_a_crash_that_an_automation_restarts_is_no_end() -> None:
    assert notice_of(run(Crashed(timestamp=datetime.now(UTC)))) is None


def test_what_nobody_asked_for_or_was_deleted_is_not_told() -> None:
    assert notice_of(run(Completed(), tags=["owner:a"])) is None
    assert notice_of(run(Completed(), labels={DELETED: "2026-01-01"})) is None


def test_one_end_is_one_message_and_another_end_another() -> None:
    once = run(Failed())
    first, same = notice_of(once), notice_of(once)
    assert first is not None and same is not None and first.message_id == same.message_id
    again = notice_of(once.model_copy(update={"state": Completed()}))
    assert again is not None and again.message_id != first.message_id and again.job == first.job
    assert Notice.model_validate_json(first.model_dump_json()).message_id == first.message_id
    body = json.loads(first.body({"a": "b=c"}))
    assert body["type"] == "transcribe.failed" and body["timestamp"].endswith("Z")
    assert body["data"]["metadata"] == {"a": "b=c"}


def at_times(*states: State[Any]) -> list[State[Any]]:
    return [state.model_copy(update={"timestamp": NOW + timedelta(seconds=n)}) for n, state in enumerate(states)]


def test_attempts_are_counted_since_somebody_asked_last() -> None:
    failed = AwaitingRetry(message=f"{ATTEMPT}1: example.org answered 500; the next at noon.")
    assert attempts_of(at_times(Pending(), Running())) == 1
    assert attempts_of(at_times(Running(), failed, Pending(), Running())) == 2
    assert attempts_of(at_times(Running(), Crashed(), AwaitingRetry(message=RESTARTED), Running())) == 2
    assert attempts_of(at_times(Running(), failed, Running(), Failed(), AwaitingRetry(message=ASKED_AGAIN), Running())) == 1
    assert attempts_of(at_times(Running(), Failed(), AwaitingRetry(message="Retry from the UI"), Running())) == 1
