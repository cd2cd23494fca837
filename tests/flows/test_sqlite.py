"""Writers of one SQLite database take turns, first come, first served."""

from __future__ import annotations

import asyncio

import pytest

from flows.prefect_compat import database
from flows.prefect_compat.database import turn


async def test_blocks_follow_one_another_in_the_order_they_came() -> None:
    seen: list[str] = []

    async def write(name: str) -> None:
        async with turn():
            seen.append(f"{name} begins")
            await asyncio.sleep(0)
            seen.append(f"{name} ends")

    await asyncio.gather(*(write(name) for name in "abc"))
    assert seen == [f"{name} {what}" for name in "abc" for what in ("begins", "ends")]


async def test_a_block_inside_ones_own_does_not_wait() -> None:
    async with asyncio.timeout(5), turn(), turn():
        pass
    async with asyncio.timeout(5), turn():
        pass


async def test_one_that_never_ends_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PATIENCE", 0.05)
    never = asyncio.Event()

    async def stuck() -> None:
        async with turn():
            await never.wait()

    task = asyncio.create_task(stuck())
    await asyncio.sleep(0)
    async with asyncio.timeout(5), turn():
        assert not task.done()
    never.set()
    await task


async def test_a_block_that_fails_or_is_cancelled_gives_its_turn_on() -> None:
    with pytest.raises(ValueError, match="no"):
        async with turn():
            raise ValueError("no")

    async def cancelled() -> None:
        async with turn():
            await asyncio.sleep(60)

    task = asyncio.create_task(cancelled())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(cancelled())
    await asyncio.sleep(0)
    for each in (waiting, task):
        each.cancel()
    await asyncio.gather(task, waiting, return_exceptions=True)
    async with asyncio.timeout(5), turn():
        pass
