"""What was begun ahead is taken over by whoever asks, computed once, and never anybody's trouble."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra import headstart
from infra.artifacts import ArtifactRef, StageOutcome
from infra.headstart import HeadStart
from infra.jobs import StageJob
from infra.local import LocalCompute
from infra.progress import logging_to
from infra.store import Store
from speech.schema import RuntimeOptions
from stenoflow.errors import StageCancelled

Report = Callable[[float], None]

OUTCOME = StageOutcome(
    artifact=ArtifactRef(kind="asr", path="artifacts/asr/1.json", sha256="1" * 64, bytes=1),
    seconds=3.0,
    backend="local",
    key="k",
)


def quiet(fraction: float) -> None:
    pass


@pytest.fixture
def head_start() -> Iterator[HeadStart]:
    current = HeadStart()
    headstart.use(current)
    yield current
    headstart.use(None)


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[LocalCompute, list[str]]:
    """A backend that only counts what it computes."""
    computed: list[str] = []

    def run_stage(self: LocalCompute, job: StageJob, report: Report) -> StageOutcome:
        computed.append(job.key)
        return OUTCOME.model_copy(update={"key": job.key, "seconds": 9.0})

    monkeypatch.setattr(LocalCompute, "compute", run_stage)
    return LocalCompute(Store(str(tmp_path / "store"), tmp_path / "scratch")), computed


def job(key: str, *, fresh: bool = False) -> StageJob:
    return StageJob(stage="asr", key=key, inputs={}, params={}, runtime=RuntimeOptions(models_dir="."), fresh=fresh)


async def test_a_stage_that_was_begun_is_taken_over(head_start: HeadStart, local: tuple[LocalCompute, list[str]]) -> None:
    backend, computed = local
    going_on, lines, fractions = threading.Event(), list[str](), list[float]()
    begun = head_start.begin("k")
    assert begun is not None

    def work(report: Report) -> StageOutcome:
        report(0.5)
        going_on.wait(10)
        return OUTCOME

    worker = threading.Thread(target=begun.perform, args=(work,))
    worker.start()
    threading.Timer(0.5, going_on.set).start()
    asked = time.perf_counter()
    with logging_to(lines.append):
        outcome = await backend.run(job("k"), fractions.append)
    worker.join()
    assert headstart.seconds_before(asked) == asked - begun.moment > 0
    assert headstart.seconds_before(time.perf_counter()) == 0, "another run did not ask for it"
    assert outcome == OUTCOME
    assert computed == []
    assert 0.5 in fractions
    assert lines == ["Started before Prefect's server was ready; took 3.0 s in total."]
    assert (await backend.run(job("k"), quiet)).seconds == 9.0, "it is handed over once"


async def test_what_was_asked_for_is_not_begun_any_more(head_start: HeadStart, local: tuple[LocalCompute, list[str]]) -> None:
    backend, computed = local
    await backend.run(job("k"), quiet)
    assert computed == ["k"]
    assert head_start.begin("k") is None
    assert head_start.begin("other") is not None


async def test_asked_for_afresh_it_is_computed(head_start: HeadStart, local: tuple[LocalCompute, list[str]]) -> None:
    backend, computed = local
    begun = head_start.begin("k")
    assert begun is not None
    begun.perform(lambda report: OUTCOME)
    assert (await backend.run(job("k", fresh=True), quiet)).seconds == 9.0
    assert computed == ["k"]


async def test_an_error_ahead_is_nobodys(head_start: HeadStart, local: tuple[LocalCompute, list[str]]) -> None:
    backend, computed = local
    begun = head_start.begin("k")
    assert begun is not None

    def work(report: Report) -> StageOutcome:
        raise MemoryError

    with pytest.raises(MemoryError):
        begun.perform(work)
    assert (await backend.run(job("k"), quiet)).seconds == 9.0
    assert computed == ["k"]


async def test_cancelling_the_run_ends_what_was_begun(head_start: HeadStart, local: tuple[LocalCompute, list[str]]) -> None:
    backend, computed = local
    begun, ended = head_start.begin("k"), threading.Event()
    assert begun is not None

    def work(report: Report) -> StageOutcome:
        while True:
            report(0.1)
            ended.wait(0.01)

    def perform() -> None:
        with pytest.raises(StageCancelled):
            begun.perform(work)
        ended.set()

    worker = threading.Thread(target=perform)
    worker.start()
    running = asyncio.create_task(backend.run(job("k"), quiet))
    await asyncio.sleep(0.3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    worker.join(5)
    assert ended.is_set()
    assert computed == []
    assert head_start.begin("next") is None


def test_another_head_start_stops_the_one_before(head_start: HeadStart) -> None:
    headstart.use(None)
    assert head_start.begin("k") is None
    assert headstart.begun("k") is None
