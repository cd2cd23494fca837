"""What an attempt at a stage may take: waiting is no work, moving is no hang, and each limit names its setting."""

from __future__ import annotations

import asyncio

import pytest

from infra.settings import TimeoutSettings
from stenoflow.errors import Retry, StageNotBegun, StageTimeout
from tasks.time_limits import TimeLimits, still_limit

QUICK = TimeoutSettings(wait=0.3, still=0.2, floor=0.2, factor=0.001)


async def attempt(settings: TimeoutSettings, *reports: tuple[float, float], duration: float = 1.0) -> None:
    """A stage that reports each fraction after so many seconds, and ends with the last."""
    limits = TimeLimits("asr", duration, None, settings)
    heard: list[float] = []
    async with limits.enforced():
        sink = limits.watching(heard.append)
        for seconds, fraction in reports:
            await asyncio.sleep(seconds)
            await asyncio.to_thread(sink, fraction)
    assert heard == [fraction for _, fraction in reports]


async def test_time_spent_waiting_is_not_time_spent_working() -> None:
    await attempt(QUICK.model_copy(update={"wait": 30.0}), (0.5, 0.0), (0.05, 1.0))


async def test_a_stage_that_never_begins_is_given_up_and_not_put_at_the_end_of_the_queue() -> None:
    with pytest.raises(StageNotBegun, match="STENO_TIMEOUT__WAIT") as raised:
        await attempt(QUICK, (60.0, 0.0))
    assert raised.value.retry is Retry.NEVER
    assert "STENO_MODAL__MAX_CONTAINERS" in raised.value.message


async def test_progress_that_does_not_move_is_a_hang_however_long_the_recording() -> None:
    with pytest.raises(StageTimeout, match=r"no progress.*at 25 %.*STENO_TIMEOUT__STILL") as raised:
        await attempt(QUICK.model_copy(update={"floor": 3600.0}), (0.0, 0.0), (0.05, 0.25), (0.05, 0.25), (60.0, 1.0))
    assert raised.value.retry is Retry.LATER


async def test_a_slow_stage_that_moves_is_no_hang() -> None:
    slow = QUICK.model_copy(update={"floor": 3600.0, "still": 0.6})
    await attempt(slow, *((0.1, step / 10) for step in range(11)))


@pytest.mark.parametrize(("duration", "setting"), [(1.0, "STENO_TIMEOUT__FLOOR"), (1000.0, "STENO_TIMEOUT__FACTOR")])
async def test_a_stage_that_works_for_too_long_names_the_limit_that_it_met(duration: float, setting: str) -> None:
    limits = QUICK.model_copy(update={"still": 3600.0, "factor": 0.0005})
    with pytest.raises(StageTimeout, match=rf"did not finish within .*\(at 10 %\); raise {setting}"):
        await attempt(limits, (0.0, 0.1), (60.0, 1.0), duration=duration)


def test_a_large_batch_takes_its_time_between_two_reports() -> None:
    settings = TimeoutSettings()
    assert still_limit(16, settings) - still_limit(1, settings) == 15 * 30 * settings.factor
    assert still_limit(None, settings) < 3600


async def test_a_time_out_of_the_stage_itself_is_not_taken_for_ours() -> None:
    limits = TimeLimits("asr", 1.0, None, TimeoutSettings())
    with pytest.raises(TimeoutError) as raised:
        async with limits.enforced():
            raise TimeoutError
    assert type(raised.value) is TimeoutError
