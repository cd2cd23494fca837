"""What retrying a run with other options means; nothing is executed."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Completed, Crashed, Failed, Running
from pydantic import ValidationError

from flows.retry import NothingToRetry, RunUnderWay, planned
from stenoflow.errors import SourceError

pytestmark = pytest.mark.usefixtures("steno")


def run(state: State[Any] | None = None, **request: Any) -> FlowRun:
    parameters = {"request": {"source": "talk.wav"} | request}
    return FlowRun(flow_id=uuid.uuid4(), name="talk.wav", state=state or Completed(), parameters=parameters)


@pytest.mark.parametrize(
    ("before", "changes", "after"),
    [
        ({"num_speakers": 2}, {"max_speakers": 3}, (None, None, 3)),
        ({"num_speakers": 2}, {"min_speakers": 3}, (None, 3, None)),
        ({"num_speakers": 2}, {"num_speakers": 4}, (4, None, None)),
        ({"min_speakers": 2, "max_speakers": 5}, {"num_speakers": 3}, (3, None, None)),
        ({"min_speakers": 2, "max_speakers": 5}, {"max_speakers": 3}, (None, 2, 3)),
        ({"min_speakers": 2, "max_speakers": 5}, {"min_speakers": 4}, (None, 4, 5)),
        ({"num_speakers": 2}, {"language": "fr"}, (2, None, None)),
        ({"max_speakers": 3}, {"language": "fr"}, (None, None, 3)),
    ],
)
async def test_a_number_of_speakers_replaces_a_range_and_a_range_a_number(
    before: dict[str, Any], changes: dict[str, Any], after: tuple[int | None, ...]
) -> None:
    plan = await planned(run(**before), changes, None, force=False)
    request = plan.request
    assert plan.changed
    assert (request.num_speakers, request.min_speakers, request.max_speakers) == after
    assert request.source == "talk.wav"


async def test_a_range_that_contradicts_what_stays_is_refused() -> None:
    with pytest.raises(ValidationError, match="speakers"):
        await planned(run(min_speakers=4), {"max_speakers": 2}, None, force=False)


async def test_what_changes_nothing_is_no_change() -> None:
    with pytest.raises(NothingToRetry, match="complete"):
        await planned(run(max_speakers=3), {"max_speakers": 3}, None, force=False)
    states: list[State[Any]] = [Failed(), Crashed()]
    for state in states:
        plan = await planned(run(state, max_speakers=3), {"max_speakers": 3}, None, force=False)
        assert not plan.changed and plan.request.max_speakers == 3


async def test_a_finished_stage_is_computed_again_and_one_that_did_not_run_is_computed_anyway() -> None:
    plan = await planned(run(), {}, "asr", force=False)
    assert plan.changed and plan.request.redo_from == "asr"
    again = await planned(run(redo_from="asr"), {"language": "fr"}, None, force=False)
    assert again.request.redo_from is None, "what was computed again once stays in the cache"


async def test_a_run_under_way_is_left_alone_unless_its_process_is_known_to_be_gone() -> None:
    with pytest.raises(RunUnderWay, match="--force"):
        await planned(run(Running()), {"max_speakers": 2}, None, force=False)
    assert (await planned(run(Running()), {"max_speakers": 2}, None, force=True)).changed


async def test_standard_input_cannot_be_read_again() -> None:
    with pytest.raises(SourceError, match="standard input"):
        await planned(run(Failed(), source="-"), {}, None, force=False)
