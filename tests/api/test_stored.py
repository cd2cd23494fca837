"""What one owner may have in the store: counted by the tags of its jobs, reserved while an upload is received."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from fastapi import Request

from api import stored, tags
from api.auth import Caller
from api.errors import TooMany
from api.limits import Limits
from api.runs import Runs
from api.stored import Stored
from infra.api_settings import ApiSettings
from infra.settings import StenoSettings, get_settings

ACME = Caller("a" * 12, "web", owner="acme")


class Run:
    """As much of a flow run as is looked at."""

    def __init__(self, *marks: str, ago: float = 0.0) -> None:
        self.id: UUID = uuid4()
        self.tags = [tags.owner("acme"), tags.UPLOADED, *marks]
        self.created = self.expected_start_time = datetime.now(UTC) - timedelta(seconds=ago)


class Pages:
    """Prefect, which gives so many runs at once, the latest first."""

    def __init__(self, *runs: Run) -> None:
        self.runs = sorted(runs, key=lambda run: run.expected_start_time, reverse=True)
        self.asked = 0

    async def page(self, filters: Mapping[str, Any], limit: int) -> list[Run]:
        self.asked += 1
        before = filters["expected_start_time"].get("before_")
        found = [run for run in self.runs if before is None or run.expected_start_time <= datetime.fromisoformat(before)]
        return found[: min(limit, 3)]


def upload(name: str, size: int, ago: float = 0.0) -> Run:
    return Run(f"{tags.UPLOAD}{name}", f"{tags.BYTES}{size}", ago=ago)


def request(length: int | None = None) -> Request:
    headers = [(b"content-length", str(length).encode())] if length is not None else []
    return Request({"type": "http", "headers": headers})


@pytest.fixture(autouse=True)
def settings(steno: StenoSettings) -> Iterator[ApiSettings]:
    yield get_settings().api.model_copy(update={"stored_bytes": 1000})


def of(settings: ApiSettings, *runs: Run) -> tuple[Stored, Pages]:
    pages = Pages(*runs)
    return Stored(cast("Runs", pages), settings), pages


async def limit(kept: Stored, length: int | None = None) -> int:
    async with kept.room(ACME, request(length)) as room:
        return room.limit


async def test_the_recordings_of_all_jobs_count_each_once(settings: ApiSettings) -> None:
    kept, _ = of(settings, *(upload(f"r{number}", 50, ago=number) for number in range(10)), upload("r1", 50, ago=20))
    assert await limit(kept) == 500


async def test_uploads_that_are_under_way_have_their_room(settings: ApiSettings) -> None:
    kept, pages = of(settings)
    async with kept.room(ACME, request(600)):
        with pytest.raises(TooMany) as refused:
            await limit(kept, 600)
        assert refused.value.problem_code == "too_many_bytes" and refused.value.retry_after
        assert await limit(kept, 400) == 400
    assert await limit(kept, 600) == 1000
    asked = pages.asked
    await limit(kept, 600)
    assert pages.asked == asked, "not counted again while there is room"


async def test_deleting_makes_room(settings: ApiSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, pages = of(settings, upload("a", 900))
    monkeypatch.setattr(stored, "_AGAIN", 0.0)
    with pytest.raises(TooMany):
        await limit(kept, 200)
    pages.runs.clear()
    assert await limit(kept, 200) == 1000


async def test_a_recording_that_no_job_came_of_counts_until_it_is_removed(
    settings: ApiSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, _ = of(settings)
    monkeypatch.setattr(stored, "_AGAIN", 0.0)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            async with kept.room(ACME, request(500)) as room:
                room.kept = 500
                raise RuntimeError("the form asked for a model that is not run here")
    with pytest.raises(TooMany):
        await limit(kept, 1)
    monkeypatch.setattr(stored, "_ORPHANED", 0.0)
    assert await limit(kept, 1) == 1000


async def test_open_calls_are_counted_by_owner(steno: StenoSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STENO_API__WAITS", "1")
    get_settings.cache_clear()
    limits = Limits()
    with limits.wait("acme"), limits.wait("other"), pytest.raises(TooMany), limits.wait("acme"):
        await asyncio.sleep(0)
    with limits.wait("acme"), limits.stream("acme"):
        pass
