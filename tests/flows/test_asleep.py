"""A machine that slept is not one that was silent: the server gives automations the time back that it was not there."""

from __future__ import annotations

import importlib
import inspect
from datetime import UTC, datetime, timedelta

import pytest

from flows.prefect_compat.automations import ASLEEP, Watch


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


async def test_time_asleep_is_given_back_once_and_a_slow_second_is_not() -> None:
    clock, given = Clock(), []

    async def give_back(last: datetime, lost: timedelta) -> None:
        given.append((last, lost))

    watch = Watch(give_back, clock)
    clock.now += ASLEEP - 0.5
    await watch.tick()
    assert given == []
    fell_asleep = datetime.fromtimestamp(clock.now, UTC)
    clock.now += 120
    await watch.tick()
    await watch.tick()
    assert given == [(fell_asleep, timedelta(seconds=120))]


@pytest.mark.parametrize(
    ("name", "caller"),
    [
        ("reactive_evaluation", "prefect.server.events.triggers.consumer"),
        ("evaluate_proactive_triggers", "prefect.server.events.services.triggers.evaluate_proactive_triggers_periodic"),
    ],
)
def test_prefect_still_looks_up_what_is_replaced_at_every_call(name: str, caller: str) -> None:
    from prefect.server.events import triggers

    module, _, function = caller.rpartition(".")
    source = inspect.getsource(getattr(importlib.import_module(module), function))
    assert inspect.iscoroutinefunction(getattr(triggers, name))
    assert f"await {name}(" in source or f"await triggers.{name}(" in source
