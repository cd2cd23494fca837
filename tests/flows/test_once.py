"""Runs of the same recording at the same time compute each stage once: in one process, in two, on a folder and on S3."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.settings import PREFECT_API_URL

from flows.request import TranscribeRequest
from flows.result import TranscribeResult
from flows.transcribe import transcribe
from infra.compute import get_store
from infra.locks import Claim, Locks
from infra.progress import StageEvent, listening
from infra.settings import StenoSettings, get_settings
from stenoflow.errors import GatedModel
from tasks.locking import WAITING, claimed
from tests import stub_compute
from tests.s3_faults import FaultyS3
from tests.stage_double import ComputeDouble, recording

pytestmark = [pytest.mark.usefixtures("prefect_server", "steno"), pytest.mark.slow]

ALL = {"segment": 1, "asr": 1, "align": 1, "embed": 1, "cluster": 1, "merge": 1}


@pytest.fixture(params=["folder", "s3"])
def environment(
    request: pytest.FixtureRequest, steno: StenoSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """What names the shared store, here and in processes."""
    values = {"STENO_STORE": str(tmp_path / "shared"), "STENO_LOCKS__LEASE": "3"}
    if request.param == "s3":
        service: FaultyS3 = request.getfixturevalue("faulty_s3")
        values |= service.environment(service.bucket())
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    return values


def ask(source: Path, name: str, **options: Any) -> TranscribeRequest:
    return TranscribeRequest(source=str(source), output_dir=str(source.parent / name), **options)


def states(result: TranscribeResult) -> dict[str, str]:
    return {stage.stage: stage.state for stage in result.stages}


def until_waited_for(said: list[StageEvent]) -> Callable[[], Awaitable[None]]:
    """What a stage does until another run says that it waits."""

    async def wait() -> None:
        async with asyncio.timeout(120):
            while not any(event.detail == WAITING for event in said):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    return wait


# -- in one process -----------------------------------------------------------------------------------------------------


async def test_two_runs_in_one_process(environment: dict[str, str], tmp_path: Path, double: ComputeDouble) -> None:
    source = recording(tmp_path / "a.wav")
    said: list[StageEvent] = []
    double.before["asr"] = double.before["embed"] = until_waited_for(said)
    with listening(said.append):
        first, second = await asyncio.gather(transcribe(ask(source, "one")), transcribe(ask(source, "two")))
    assert sorted(double.ran) == sorted(ALL)
    assert first.transcript == second.transcript
    for stage in ("fetch", *({*states(first)} - {"fetch", "export"})):
        assert sorted((states(first)[stage], states(second)[stage])) == ["cached", "computed"], stage
    store = get_store()
    assert [file for file in store.files("locks") if "decoded" in file.path] == []


async def test_a_run_that_waits_says_so_in_its_log(tmp_path: Path, double: ComputeDouble) -> None:
    source = recording(tmp_path / "a.wav")
    said: list[StageEvent] = []
    double.before["segment"] = until_waited_for(said)
    with listening(said.append):
        await asyncio.gather(transcribe(ask(source, "one")), transcribe(ask(source, "two")))
    waiting = next(event.run for event in said if event.detail == WAITING and event.stage == "segment")
    async with get_client() as client:
        for _ in range(100):
            logs = await client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[waiting])), limit=200)  # type: ignore[list-item]
            if any(WAITING in line.message for line in logs):
                return
            await asyncio.sleep(0.1)
    raise AssertionError("no line of the log says that the run waits")


async def test_when_the_first_fails_the_second_computes(tmp_path: Path, double: ComputeDouble) -> None:
    source = recording(tmp_path / "a.wav")
    said: list[StageEvent] = []
    double.before["segment"] = until_waited_for(said)
    double.failures["asr"] = [GatedModel("accept the licence first")]
    with listening(said.append):
        runs = (transcribe(ask(source, name)) for name in ("one", "two"))
        results = await asyncio.gather(*runs, return_exceptions=True)
    failed = [result for result in results if isinstance(result, GatedModel)]
    done = [result for result in results if isinstance(result, TranscribeResult)]
    assert (len(failed), len(done)) == (1, 1)
    assert double.ran.count("asr") == 2
    assert double.ran.count("segment") == 1


async def test_a_cancelled_run_lets_the_next_go_on(tmp_path: Path, double: ComputeDouble) -> None:
    at_work = asyncio.Event()

    async def stuck() -> None:
        if not at_work.is_set():
            at_work.set()
            await asyncio.sleep(3600)

    double.before["asr"] = stuck
    source = recording(tmp_path / "a.wav")
    first = asyncio.create_task(transcribe(ask(source, "one")))
    await asyncio.wait_for(at_work.wait(), 60)
    second = asyncio.create_task(transcribe(ask(source, "two")))
    await asyncio.sleep(0.5)
    first.cancel()
    assert states(await asyncio.wait_for(second, 120))["asr"] == "computed"
    with pytest.raises(BaseException):  # noqa: B017  as Prefect ends a cancelled flow
        await first


async def test_a_cancelled_waiter_waits_no_longer(tmp_path: Path, double: ComputeDouble) -> None:
    at_work, go_on = asyncio.Event(), asyncio.Event()

    async def held() -> None:
        at_work.set()
        await go_on.wait()

    double.before["segment"] = held
    source = recording(tmp_path / "a.wav")
    first = asyncio.create_task(transcribe(ask(source, "one")))
    await asyncio.wait_for(at_work.wait(), 60)
    said: list[StageEvent] = []
    with listening(said.append):
        second = asyncio.create_task(transcribe(ask(source, "two")))
        while not any(event.detail == WAITING for event in said):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.wait({second}, timeout=30)
    assert second.done()
    go_on.set()
    assert states(await asyncio.wait_for(first, 120))["segment"] == "computed"
    assert double.ran.count("segment") == 1


async def test_many_waiters_leave_the_event_loop_and_its_threads_free(environment: dict[str, str]) -> None:
    """Far more than the loop has threads: were each to block one, nothing would ever end."""
    held = Locks(get_store(), 3).try_acquire("a")
    assert held is not None
    done = False

    async def there() -> bool:
        await asyncio.to_thread(time.sleep, 0.001)
        return done

    @flow
    async def waiting() -> list[Claim | None]:
        nonlocal done
        waiters = [asyncio.create_task(claimed("a", there, "asr")) for _ in range(100)]
        await asyncio.sleep(1)
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 5) == "free"
        assert not any(waiter.done() for waiter in waiters)
        done = True
        held.release()
        return await asyncio.gather(*waiters)

    assert await waiting() == [None] * 100


async def test_a_cached_stage_is_two_requests(
    faulty_s3: FaultyS3, tmp_path: Path, double: ComputeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record and whether the artifact is there, after the use is written; no lock."""
    for name, value in faulty_s3.environment(faulty_s3.bucket()).items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    source = recording(tmp_path / "a.wav")
    result = await transcribe(ask(source, "one"))
    faulty_s3.clear()
    await transcribe(ask(source, "two"))
    again = faulty_s3.requests()
    for stage in result.stages:
        if stage.key:
            assert sum(f"records/{stage.key}" in request for request in again) == 1, stage.stage
    heads = [request for request in again if request.startswith("HEAD") and "/artifacts/" in request]
    assert len(heads) <= 7 + 1
    assert not any("/locks/" in request for request in again)
    assert sum("/records/uses/" in request for request in again if request.startswith("PUT")) <= 8


# -- in two processes ---------------------------------------------------------------------------------------------------

RUN = """
import asyncio, sys
from flows.request import TranscribeRequest
from flows.transcribe import transcribe
result = asyncio.run(transcribe(TranscribeRequest(source=sys.argv[1], output_dir=sys.argv[2])))
print("ended", result.transcript.sha256, flush=True)
"""


class Machine:
    """A process with a home and a scratch folder of its own, which shares the store and Prefect's server with others."""

    def __init__(self, name: str, folder: Path, source: Path, environment: dict[str, str]) -> None:
        variables = {
            "STENO_HOME": str(folder / name),
            "STENO_COMPUTE__BACKEND": stub_compute.BACKEND,
            "STUB_PLAN": str(folder / "plan.json"),
            "PREFECT_API_URL": str(PREFECT_API_URL.value()),
            "PREFECT_LOGGING_LEVEL": "INFO",
        }
        self.log = folder / f"{name}.log"
        # The command quietens Prefect for all of its process; a test that called it here would take the log of this one as well.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_LOGGING_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(source), str(folder / name / "out")],
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
            env=inherited | environment | variables,
            cwd=Path(__file__).parents[2],
        )

    def transcript(self) -> str:
        self.process.wait(240)
        lines = self.log.read_text().splitlines()
        return next((line.split()[1] for line in lines if line.startswith("ended ")), "\n".join(lines[-20:]))


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """Where stages are logged; long enough that both processes meet."""
    write_plan(tmp_path, {"segment": 1, "asr": 4, "embed": 2})
    return tmp_path / "log"


def write_plan(folder: Path, seconds: dict[str, float]) -> None:
    (folder / "plan.json").write_text(json.dumps({"log": str(folder / "log"), "seconds": seconds}))


def wait_until(event: str, stage: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while not any(line["stage"] == stage for line in stub_compute.events(log, event)):
        assert process.poll() is None, "the run ended early"
        assert time.monotonic() < end
        time.sleep(0.05)


ONE = pytest.param("folder", marks=pytest.mark.matrix)
"""Starting processes is slow: each of the two tests on another store, and both on both among the matrices."""


@pytest.mark.parametrize("environment", [ONE, "s3"], indirect=True)
def test_two_machines(environment: dict[str, str], tmp_path: Path, plan: Path) -> None:
    source = recording(tmp_path / "a.wav")
    machines = [Machine(name, tmp_path, source, environment) for name in ("one", "two")]
    first, second = (machine.transcript() for machine in machines)
    assert len(first) == 64, first
    assert first == second
    assert stub_compute.executions(plan) == ALL
    assert any(WAITING in machine.log.read_text() for machine in machines)


@pytest.mark.parametrize("environment", ["folder", pytest.param("s3", marks=pytest.mark.matrix)], indirect=True)
def test_when_the_holder_is_killed_the_other_takes_over(environment: dict[str, str], tmp_path: Path, plan: Path) -> None:
    source = recording(tmp_path / "a.wav")
    write_plan(tmp_path, {"asr": 600})
    first = Machine("one", tmp_path, source, environment)
    wait_until("progress", "asr", plan, first.process)
    second = Machine("two", tmp_path, source, environment)
    end = time.monotonic() + 120
    while WAITING not in second.log.read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
    write_plan(tmp_path, {})
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    assert len(second.transcript()) == 64, second.transcript()
    executions = stub_compute.executions(plan)
    assert executions["segment"] == executions["align"] == executions["cluster"] == executions["merge"] == 1
    assert executions["asr"] == 2
    assert stub_compute.events(plan, "end")[-1]["pid"] == second.process.pid
