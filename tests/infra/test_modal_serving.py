"""A call in its container: several recordings in it, each with its own answers, and what follows a stage in the same call."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra.artifacts import ArtifactRef, StageOutcome
from infra.jobs import Following, ProgressSink, StageJob
from infra.on_modal import serving
from infra.on_modal.contract import RemoteAnswer, RemoteCall, claim, code_fingerprint
from infra.on_modal.serving import Serving
from infra.on_modal.worker import CallStore
from stenoflow.errors import OutOfMemory, TransientError
from tests.infra.test_modal_departures import job, ref

THEN = tuple(Following(stage=stage, params={"model": "m"}, models={}) for stage in ("asr", "embed"))


class Compute:
    """Stages that fail and wait where the test says."""

    def __init__(self, store: CallStore, grace: float) -> None:
        pass

    failing: dict[str, Exception] = {}  # noqa: RUF012
    waiting: dict[str, asyncio.Event] = {}  # noqa: RUF012

    async def run(self, job: StageJob, progress: ProgressSink) -> StageOutcome:
        progress(0.5)
        if job.key in self.waiting:
            await self.waiting[job.key].wait()
        if job.key in self.failing:
            raise self.failing[job.key]
        # Of each recording its own.
        left = ref(job.output).model_copy(update={"sha256": job.inputs["audio"].sha256[:-1] + str(len(job.output) % 10)})
        return StageOutcome(artifact=left, seconds=1.0, key=job.key)


class Channel:
    """What leaves the container."""

    call_id = "fc-1"

    def __init__(self) -> None:
        self.said: list[tuple[str, RemoteAnswer]] = []
        self.stop: Callable[[str], None]

    def progress(self, key: str, fraction: float) -> None:
        pass

    def log(self, key: str, line: str) -> None:
        pass

    def answer(self, key: str, answer: RemoteAnswer) -> None:
        self.said.append((key, answer))

    def stopping(self, stop: Callable[[str], None]) -> None:
        self.stop = stop


class Notes:
    def __init__(self) -> None:
        self.noted: dict[str, Any] = {}
        self.get = SimpleNamespace(aio=self._get)
        self.update = SimpleNamespace(aio=self._update)
        self.pop = SimpleNamespace(aio=self._get)

    async def _get(self, key: str, default: Any = None) -> Any:
        return self.noted.get(key, default)

    async def _update(self, more: dict[str, Any]) -> None:
        self.noted |= more


class Volume(CallStore):
    commits = 0
    refusing = False

    def commit(self) -> None:
        self.commits += 1
        if self.refusing:
            raise TransientError("The volume refused for now.")


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Volume:
    async def seen(params: dict[str, Any], settings: Any) -> None:
        pass

    store = Volume(str(tmp_path / "volume"), tmp_path / "scratch")
    monkeypatch.setattr(serving, "volume_store", lambda: store)
    monkeypatch.setattr(serving, "LocalCompute", Compute)
    monkeypatch.setattr(serving, "_see_weights", seen)
    monkeypatch.setattr(serving, "gpu_name", lambda: "L4")
    monkeypatch.setattr(Compute, "failing", {})
    monkeypatch.setattr(Compute, "waiting", {})
    return store


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Notes:
    notes = Notes()
    monkeypatch.setattr(serving, "_notes", lambda: notes)
    return notes


def recordings(*names: str) -> tuple[StageJob, ...]:
    def audio(name: str) -> ArtifactRef:
        sha256 = hashlib.sha256(name.encode()).hexdigest()
        return ref("audio", duration=60.0).model_copy(update={"sha256": sha256})

    return tuple(job(name, then=THEN, inputs={"audio": audio(name)}) for name in names)


def serve(*jobs: StageJob, code: str = "", executions: int = 3) -> Serving:
    call = RemoteCall(jobs=jobs, code=code or code_fingerprint(), executions=executions, owner="store-1")
    return Serving(call, Channel())  # type: ignore[arg-type]


async def test_what_follows_a_stage_is_computed_in_the_same_call(volume: Volume, notes: Notes) -> None:
    serving_one = serve(*recordings("a"))
    given = await serving_one.answers()
    first = given.answers["a"]
    assert [given.answers[key].outcome.artifact.kind for key in first.next] == ["asr", "embeddings"]  # type: ignore[union-attr]
    assert {key for key, _ in serving_one.channel.said} == {"a", *first.next}  # type: ignore[attr-defined]
    assert all(notes.noted[claim(key, "store-1")] == "fc-1" for key in given.answers), "another machine finds the call by each"


async def test_one_recordings_error_is_its_own(volume: Volume, notes: Notes) -> None:
    Compute.failing["b"] = error = OutOfMemory("No room.")
    error.tried = 8
    given = await serve(*recordings("a", "b", "c")).answers()
    told = given.answers["b"].error
    assert told is not None and (told.code, told.tried) == (OutOfMemory.code, 8)
    assert given.answers["b"].next == ()
    for name in ("a", "c"):
        assert given.answers[name].outcome is not None
        assert all(given.answers[key].outcome is not None for key in given.answers[name].next)
    assert len(given.answers) == 7


async def test_one_recording_is_stopped_and_the_others_go_on(volume: Volume, notes: Notes) -> None:
    Compute.waiting["a"] = asyncio.Event()
    serving_two = serve(*recordings("a", "b", "c"))
    task = asyncio.create_task(serving_two.answers())
    await asyncio.sleep(0.05)
    serving_two.channel.stop("a")  # type: ignore[attr-defined]  # at work
    serving_two.channel.stop("c")  # type: ignore[attr-defined]  # not yet
    given = await task
    assert given.answers["a"].error is not None
    assert "c" not in given.answers
    assert given.answers["b"].outcome is not None and len(given.answers["b"].next) == 2


async def test_cancelling_the_call_ends_all_of_it(volume: Volume, notes: Notes) -> None:
    Compute.waiting["a"] = asyncio.Event()
    task = asyncio.create_task(serve(*recordings("a", "b")).answers())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_volume_that_refuses_makes_transient_errors(volume: Volume, notes: Notes) -> None:
    volume.refusing = True
    given = await serve(*recordings("a")).answers()
    assert {answer.error.code for answer in given.answers.values() if answer.error} == {TransientError.code}
    assert all(answer.outcome is None for answer in given.answers.values())


async def test_a_call_whose_containers_keep_dying_is_given_up_for_all_its_recordings(volume: Volume, notes: Notes) -> None:
    notes.noted["fc-1"] = 3
    given = await serve(*recordings("a", "b"), executions=3).answers()
    assert given.answers == {}
    assert given.rest is not None and given.rest.error is not None and given.rest.error.code == "worker_lost"


async def test_stages_at_the_same_time_share_the_price_of_their_container(volume: Volume, notes: Notes) -> None:
    given = await serve(*recordings("a")).answers()
    keys = given.answers["a"].next
    shares = [given.answers[key].outcome.worker_seconds for key in keys]  # type: ignore[union-attr]
    assert all(share is not None and share < 1.0 for share in shares)
