"""Reads put together and made ahead: what callers get, and what is asked on their behalf."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from api.batching import Batched


class Source:
    """Answers with what it holds, slowly, and notes what it was asked."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.asked: list[list[str]] = []
        self.broken = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self, keys: list[str]) -> dict[str, int]:
        self.asked.append(sorted(keys))
        found = {key: self.values[key] for key in keys if key in self.values}
        await self.gate.wait()
        if self.broken:
            raise ConnectionError
        return found


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def batched(source: Source) -> AsyncIterator[Batched[str, int]]:
    found = Batched(source.read, fresh=0.05, oldest=60.0, settled=lambda value: value < 0)
    yield found
    await found.aclose()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_what_is_asked_while_a_read_is_under_way_is_read_together(source: Source, batched: Batched[str, int]) -> None:
    source.values = {name: number for number, name in enumerate("abcde")}
    source.gate.clear()
    asking = [asyncio.create_task(batched.get(name)) for name in "abcde" + "aaa" + "z"]
    await until(lambda: bool(source.asked))
    source.gate.set()
    assert await asyncio.gather(*asking) == [0, 1, 2, 3, 4, 0, 0, 0, None]
    assert [name for keys in source.asked[:2] for name in keys] == ["a", "b", "c", "d", "e", "z"]


async def test_who_polls_is_answered_from_memory_that_is_kept_true(source: Source, batched: Batched[str, int]) -> None:
    source.values = {"a": 1}
    assert await batched.get("a") == 1
    source.values = {"a": 2}
    await until(lambda: source.asked.count(["a"]) > 2)
    source.gate.clear()  # no read ends any more, and nobody waits for one
    assert await asyncio.wait_for(batched.get("a"), 10) == 2
    source.gate.set()


async def test_what_is_settled_or_not_there_is_not_read_ahead(source: Source, batched: Batched[str, int]) -> None:
    source.values = {"done": -1}
    assert (await batched.get("done"), await batched.get("nowhere")) == (-1, None)
    asked = len(source.asked)
    await asyncio.sleep(0.3)
    assert len(source.asked) == asked
    source.values = {"done": -2}
    assert await batched.get("done") == -2


async def test_what_was_changed_is_read_anew_also_when_it_was_being_read(source: Source, batched: Batched[str, int]) -> None:
    source.values = {"a": 1}
    await batched.get("a")
    source.gate.clear()
    asked = len(source.asked)
    await until(lambda: len(source.asked) > asked)  # reading ahead, what is true now
    source.values = {"a": 2}
    batched.forget("a")
    asking = asyncio.create_task(batched.get("a"))
    await until(lambda: len(source.asked) > asked + 1)
    source.gate.set()
    assert await asking == 2
    assert await batched.get("a") == 2


async def test_when_reading_fails_whoever_asks_is_told(source: Source) -> None:
    batched = Batched(source.read, fresh=0.05, oldest=0.2)
    source.values = {"a": 1}
    assert await batched.get("a") == 1
    source.broken = True
    await asyncio.sleep(0.3)
    with pytest.raises(ConnectionError):
        await batched.get("a")
    source.broken = False
    assert await batched.get("a") == 1
    await batched.aclose()
