"""Waiting for a stage that another run computes: who waits, for how long, and what the waiting costs the store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from infra.compute import get_store
from infra.locks import Claim, Locks
from infra.progress import StageEvent, listening
from infra.settings import StenoSettings
from tasks import locking
from tasks.locking import WAITING, StageLocks, claimed


@pytest.fixture
def locks(steno: StenoSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Locks]:
    monkeypatch.setattr(locking, "get_run_logger", logging.getLogger)
    monkeypatch.setattr(locking, "run_id", lambda: "run")
    for name in ("_FIRST_PAUSE", "_SHORT_PAUSE", "_LONGEST_PAUSE"):
        monkeypatch.setattr(locking, name, 0.01)
    yield get_store().locks


class Result:
    """Whether the stage's result is there; counts who looks."""

    def __init__(self) -> None:
        self.there = False
        self.looked = 0

    async def __call__(self) -> bool:
        self.looked += 1
        return self.there


def elsewhere() -> Claim:
    """The lock, as another process holds it."""
    lock = Locks(get_store(), 60.0).try_acquire("key")
    assert isinstance(lock, Claim)
    return lock


async def test_a_lock_that_nobody_holds_is_had_at_once(locks: Locks) -> None:
    claim = await claimed("key", Result(), "asr")
    assert claim is not None and locks.try_acquire("key") is None
    claim.release()
    again = locks.try_acquire("key")
    assert again is not None
    again.release()


async def test_who_waited_takes_the_lock_over_or_needs_it_no_more(locks: Locks) -> None:
    for computed in (False, True):
        holder, result, seen = elsewhere(), Result(), list[StageEvent]()
        with listening(seen.append):
            waiting = asyncio.create_task(claimed("key", result, "asr"))
            async with asyncio.timeout(30):
                while not seen:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert not waiting.done()
            result.there = computed
            holder.release()
            claim = await asyncio.wait_for(waiting, 30)
        assert (claim is None) is computed
        assert [(event.stage, event.detail) for event in seen] == [("asr", WAITING)], "said once"
        if claim is not None:
            claim.release()
        free = locks.try_acquire("key")
        assert free is not None, "nothing stays locked"
        free.release()


async def test_of_many_that_wait_in_a_process_one_asks_the_store(locks: Locks, monkeypatch: pytest.MonkeyPatch) -> None:
    holder, asked, ask = elsewhere(), list[str](), locks._store.try_acquire

    def counted(name: str) -> object:
        asked.append(name)
        return ask(name)

    monkeypatch.setattr(locks._store, "try_acquire", counted)
    result = Result()
    waiting = [asyncio.create_task(claimed("key", result, "asr")) for _ in range(20)]
    async with asyncio.timeout(30):
        while len(asked) < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    looked = result.looked
    assert looked <= len(asked) + 1, "those that wait for another of their process do not look at all"
    result.there = True
    holder.release()
    assert await asyncio.wait_for(asyncio.gather(*waiting), 30) == [None] * 20


async def test_who_is_cancelled_while_waiting_leaves_nothing_locked(locks: Locks) -> None:
    holder = elsewhere()
    waiting = asyncio.create_task(claimed("key", Result(), "asr"))
    await asyncio.sleep(0.1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    holder.release()
    free = locks.try_acquire("key")
    assert free is not None
    free.release()


async def test_waiting_ends_when_its_time_is_over(locks: Locks, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(key: str) -> bool:
        return False

    monkeypatch.setattr(locking, "look_up", nothing)
    holder, stages = elsewhere(), StageLocks()
    with pytest.raises(TimeoutError):
        await stages.aacquire_lock("key", "me", acquire_timeout=0.1)
    assert not stages.is_lock_holder("key", "me") and not stages.is_locked("key")
    holder.release()
    assert await stages.aacquire_lock("key", "me", acquire_timeout=30)
    assert stages.is_lock_holder("key", "me") and stages.is_locked("key") and not stages.is_lock_holder("key", "you")
    stages.release_lock("key", "me")
    assert not stages.is_locked("key") and locks.try_acquire("key") is not None


async def test_what_is_there_needs_no_lock(locks: Locks, monkeypatch: pytest.MonkeyPatch) -> None:
    async def there(key: str) -> bool:
        return True

    monkeypatch.setattr(locking, "look_up", there)
    holder, stages = elsewhere(), StageLocks()
    assert await stages.aacquire_lock("key", "me", acquire_timeout=30)
    assert stages.is_lock_holder("key", "me") and not stages.is_locked("key")
    stages.release_lock("key", "me")
    holder.release()
