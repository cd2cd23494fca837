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
from flows.notify import _after
from flows.webhooks import ASKED_AGAIN, ATTEMPT, DELETED, Notice, attempts_of, notice_of, subscription_tags
from infra.post import Answer
from infra.settings import StenoSettings, get_settings

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
    failed = AwaitingRetry(message=f"{ATTEMPT}1: example.org answered 500; next attempt at noon.")
    assert attempts_of(at_times(Pending(), Running())) == 1
    assert attempts_of(at_times(Running(), failed, Pending(), Running())) == 2
    assert attempts_of(at_times(Running(), Crashed(), AwaitingRetry(message=RESTARTED), Running())) == 2
    assert attempts_of(at_times(Running(), failed, Running(), Failed(), AwaitingRetry(message=ASKED_AGAIN), Running())) == 1
    assert attempts_of(at_times(Running(), Failed(), AwaitingRetry(message="Retry from the UI"), Running())) == 1


@pytest.mark.parametrize(
    ("answer", "number", "least", "most"),
    [
        (Answer(500, "answered 500"), 1, 10, 11),
        (Answer(500, "answered 500"), 2, 100, 110),
        (Answer(429, "answered 429", 50.0), 1, 50, 50),
        (Answer(429, "answered 429", 50.0), 2, 100, 110),
        (Answer(503, "answered 503", 86_400.0), 2, 3600, 3600),
        (Answer(None, "does not accept connections", 0.0), 1, 10, 11),
    ],
)
def test_the_next_attempt_is_made_when_it_is_due_or_later_where_that_was_asked_for(
    answer: Answer, number: int, least: float, most: float, monkeypatch: pytest.MonkeyPatch, steno: StenoSettings
) -> None:
    monkeypatch.setenv("STENO_WEBHOOKS__DELAYS", "[10, 100]")
    get_settings.cache_clear()
    before = datetime.now(UTC)
    state = _after(answer, number)
    assert (state.name, state.type.value) == ("AwaitingRetry", "SCHEDULED")
    due = state.state_details.scheduled_time
    assert due is not None
    assert least <= (due - before).total_seconds() <= most + 5
    assert answer.said in str(state.message)


@pytest.mark.parametrize(
    ("answer", "number", "name", "said"),
    [
        (Answer(204, "answered 204"), 3, "Delivered", "answered 204"),
        (Answer(410, "answered 410", 30.0), 1, "Undelivered", "which unsubscribes"),
        (Answer(500, "answered 500", 30.0), 3, "Undelivered", "after 3 attempts; last attempt: answered 500"),
    ],
)
def test_attempts_end_with_the_last_delay_a_success_or_a_receiver_that_is_gone(
    answer: Answer, number: int, name: str, said: str, monkeypatch: pytest.MonkeyPatch, steno: StenoSettings
) -> None:
    monkeypatch.setenv("STENO_WEBHOOKS__DELAYS", "[10, 100]")
    get_settings.cache_clear()
    state = _after(answer, number)
    assert state.name == name and said in str(state.message)
    assert state.is_final()
