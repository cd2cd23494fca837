"""Which recordings share a call on Modal, and that each fails, stops and waits by itself."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from infra.artifacts import ArtifactRef, artifact_path
from infra.jobs import Following, StageJob
from infra.on_modal.contract import machine_of
from infra.on_modal.departures import AT_ONCE, Departures, Kind
from infra.on_modal.live import LiveCall
from infra.settings import ModalSettings
from speech.schema import RuntimeOptions, Shard
from stenoflow.errors import ArtifactMissing, TransientError

KIND = Kind("Recordings", "segment", None, "pyannote")


def ref(kind: Any, **meta: Any) -> ArtifactRef:
    sha256 = hashlib.sha256(kind.encode()).hexdigest()
    return ArtifactRef(kind=kind, path=artifact_path(kind, sha256), sha256=sha256, bytes=1, meta=meta)


def job(name: str = "a", duration: float = 60.0, **changes: Any) -> StageJob:
    inputs = {"audio": ref("audio", duration=duration)}
    fields = {"stage": "segment", "key": name, "inputs": inputs, "params": {"model": "m"}, "runtime": RuntimeOptions()}
    return StageJob(**fields | changes)


class Modal:
    """Keeps what departed; a call ends when the test ends it."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.lives: list[Any] = []
        self.refusing: list[Exception] = []

    async def spawn(self, kind: Kind, jobs: Sequence[StageJob]) -> LiveCall:
        await asyncio.sleep(0)
        if self.refusing:
            raise self.refusing.pop()
        self.calls.append([each.key for each in jobs])
        self.lives.append(live := SimpleNamespace(ended=asyncio.get_running_loop().create_future(), dropped=[]))

        async def drop(key: str) -> None:
            live.dropped.append(key)

        live.drop = drop
        return live  # type: ignore[return-value]

    async def end(self) -> None:
        for live in self.lives:
            if not live.ended.done():
                live.ended.set_result(None)
        for _ in range(5):
            await asyncio.sleep(0)


async def test_few_recordings_go_alone_and_at_once() -> None:
    modal = Modal()
    departures = Departures(modal.spawn, limit=16)
    await asyncio.gather(*(departures.board(KIND, job(str(i))) for i in range(AT_ONCE)))
    assert modal.calls == [["0"], ["1"], ["2"], ["3"]]


async def test_many_recordings_share_calls() -> None:
    modal = Modal()
    departures = Departures(modal.spawn, limit=16)
    boarded = [asyncio.create_task(departures.board(KIND, job(str(i)))) for i in range(200)]
    while not all(each.done() for each in boarded):
        await modal.end()
    assert sorted((key for call in modal.calls for key in call), key=int) == [str(i) for i in range(200)]
    assert max(map(len, modal.calls)) == 16
    assert len(modal.calls) < 30


async def test_recordings_of_different_models_share_none() -> None:
    modal = Modal()
    departures = Departures(modal.spawn, limit=16)
    kinds = [KIND._replace(model=name) for name in ("one", "two")]
    boarded = [asyncio.create_task(departures.board(kinds[i % 2], job(f"{i % 2}-{i}"))) for i in range(40)]
    while not all(each.done() for each in boarded):
        await modal.end()
    assert all(len({key[0] for key in call}) == 1 for call in modal.calls)


async def test_a_call_that_cannot_be_made_is_an_error_of_those_in_it_alone() -> None:
    modal = Modal()
    departures = Departures(modal.spawn, limit=2)
    modal.refusing = [TransientError("no capacity")]
    ended = await asyncio.gather(*(departures.board(KIND, job(str(i))) for i in range(3)), return_exceptions=True)
    assert [type(each).__name__ for each in ended].count("TransientError") == 1
    assert modal.calls == [["1"], ["2"]]


async def test_a_recording_that_is_lost_is_an_error_of_its_own() -> None:
    modal = Modal()

    async def spawn(kind: Kind, jobs: Sequence[StageJob]) -> LiveCall:
        if any(each.key == "6" for each in jobs):
            raise ArtifactMissing("A recording is no longer in the store.")
        return await modal.spawn(kind, jobs)

    departures = Departures(spawn, limit=16)
    boarded = [asyncio.create_task(departures.board(KIND, job(str(i)))) for i in range(9)]
    while not all(each.done() for each in boarded):
        await modal.end()
    assert [str(i) for i, each in enumerate(boarded) if each.exception()] == ["6"]
    assert sorted(key for call in modal.calls for key in call) == [str(i) for i in range(9) if i != 6]


async def test_who_leaves_before_its_call_is_made_is_not_computed() -> None:
    modal = Modal()
    departures = Departures(modal.spawn, limit=16)
    first = [asyncio.create_task(departures.board(KIND, job(str(i)))) for i in range(AT_ONCE + 2)]
    await asyncio.sleep(0)
    first[0].cancel()  # while its call is being made
    first[-1].cancel()  # while it waits for one
    await asyncio.wait(first[:AT_ONCE])
    await modal.end()
    assert await first[AT_ONCE]
    assert modal.lives[0].dropped == ["0"]
    assert modal.calls == [["0"], ["1"], ["2"], ["3"], ["4"]]


@pytest.mark.parametrize(
    ("asked", "settings", "machine"),
    [
        (job(duration=1799.0), ModalSettings(), "Recordings"),
        (job(duration=1800.0), ModalSettings(), "Voices"),
        (job(duration=60.0), ModalSettings(one_container_below=0), "Voices"),
        (job(duration=60.0), ModalSettings(voices_gpu=("T4",)), "Voices"),
        (job(duration=60.0), ModalSettings(voices_gpu=("L4",)), "Recordings"),
        (job(duration=60.0, shard=Shard(index=0, count=2)), ModalSettings(), "Voices"),
        (job(stage="asr"), ModalSettings(one_container_below=0), "Speech"),
    ],
)
def test_short_recordings_are_computed_in_one_container(asked: StageJob, settings: ModalSettings, machine: str) -> None:
    assert machine_of(asked, settings) == machine


def test_what_follows_begins_when_what_it_reads_is_there() -> None:
    then = tuple(
        Following(stage=stage, params={"model": "m"}, models={"a": "b"}, batch_size=batch)
        for stage, batch in (("asr", 4), ("align", None), ("embed", None))
    )
    first = job(then=then)
    asr, embed = first.following(ref("segmentation"))
    assert (asr.stage, embed.stage) == ("asr", "embed")
    assert (asr.runtime.batch_size, set(asr.inputs)) == (4, {"audio", "segmentation"})
    [align] = asr.following(ref("asr"))
    assert (align.stage, set(align.inputs), align.then) == ("align", {"audio", "asr"}, ())
    assert embed.following(ref("embeddings")) == ()
