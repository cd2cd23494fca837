"""Processes that execute one run after another: which run gets which, and what ends them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile

from deployments import execute, warm
from deployments.execute import GROWTH, Share
from deployments.warm import Kind, Warm, WarmProcesses
from flows.prefect_compat.worker import Turn
from stenoflow import isolated
from tests.deployed import Deployed

CHILD = """
import json, socket, sys, time
connection = socket.socket(fileno=int(sys.argv[1]))
for line in connection.makefile("r"):
    run = json.loads(line)
    if "refuse" in run:
        sys.exit(3)
    connection.sendall(b"begun\\n")
    time.sleep(float(run.get("seconds", 0)))
    connection.sendall(json.dumps({"again": "last" not in run}).encode() + b"\\n")
"""
"""What executes runs, as far as the worker can tell."""


def with_processes(
    tmp_path: Path,
    scenario: Callable[[WarmProcesses], Awaitable[None]],
    *,
    places: int | None = None,
    idle_seconds: float = 60,
) -> None:
    kind = Kind(lambda descriptor: [sys.executable, "-c", CHILD, str(descriptor)], dict, lambda: tmp_path, idle_seconds)

    async def run() -> None:
        processes = WarmProcesses(kind, places)
        try:
            await scenario(processes)
        finally:
            processes.close()

    asyncio.run(run())


async def one(processes: WarmProcesses, **run: str) -> int:
    """The process that has executed a run in order."""
    process = await processes.begin(run)
    assert await processes.ended(process) == 0
    return process.pid


async def gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while psutil.pid_exists(pid):  # noqa: ASYNC110  it can only be asked
            await asyncio.sleep(0.02)


def test_one_run_after_another_is_executed_by_one_process_and_two_at_once_by_two(tmp_path: Path) -> None:
    async def scenario(processes: WarmProcesses) -> None:
        first = await one(processes)
        assert await one(processes) == first
        begun = [await processes.begin({"seconds": "0.2"}) for _ in range(2)]
        assert len({process.pid for process in begun}) == 2
        assert await asyncio.gather(*map(processes.ended, begun)) == [0, 0]

    with_processes(tmp_path, scenario)


def test_a_process_that_is_not_fit_for_another_run_gets_none(tmp_path: Path) -> None:
    async def scenario(processes: WarmProcesses) -> None:
        last = await one(processes, last="")
        assert await one(processes) != last
        await gone(last)

    with_processes(tmp_path, scenario)


def test_a_killed_process_costs_its_own_run_and_one_that_was_idle_costs_none(tmp_path: Path) -> None:
    async def scenario(processes: WarmProcesses) -> None:
        killed, other = [await processes.begin({"seconds": "5"}) for _ in range(2)]
        os.kill(killed.pid, signal.SIGKILL)
        assert await processes.ended(killed) == -signal.SIGKILL
        assert other.returncode is None
        os.kill(other.pid, signal.SIGKILL)
        assert await processes.ended(other) == -signal.SIGKILL
        idle = await one(processes)
        os.kill(idle, signal.SIGKILL)
        assert await one(processes) != idle

    with_processes(tmp_path, scenario)


def test_processes_that_end_before_they_begin_are_not_tried_for_ever(tmp_path: Path) -> None:
    async def scenario(processes: WarmProcesses) -> None:
        with pytest.raises(RuntimeError, match="ended before it began"):
            await processes.begin({"refuse": ""})
        await one(processes)

    with_processes(tmp_path, scenario)


def test_an_idle_process_gives_its_memory_back_and_a_fresh_one_waits_in_its_place(tmp_path: Path) -> None:
    async def scenario(processes: WarmProcesses) -> None:
        used = await one(processes)
        await gone(used)
        while not processes._idle:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert [process.runs for process in processes._idle] == [0]

    with_processes(tmp_path, scenario, idle_seconds=0.1)


@pytest.mark.parametrize("change", ["settings", "folder"])
def test_changed_settings_are_read_by_the_next_run(tmp_path: Path, change: str) -> None:
    async def scenario(processes: WarmProcesses) -> None:
        before = await one(processes)
        if change == "settings":
            (tmp_path / "work" / ".env").write_text("STENO_MODEL=small\n")
        else:
            (tmp_path / "work").rename(tmp_path / "aside")
        assert await one(processes) != before
        await gone(before)

    (tmp_path / "work").mkdir()
    with_processes(tmp_path / "work", scenario)


def test_there_are_never_more_processes_than_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "SPARE_AFTER", 0.0)

    async def scenario(processes: WarmProcesses) -> None:
        begun = await processes.begin({"seconds": "0.5"})
        await asyncio.sleep(0.3)
        assert not processes._idle
        assert await processes.ended(begun) == 0

    with_processes(tmp_path, scenario, places=1)


def test_a_run_that_has_ended_cannot_be_killed_in_the_process_that_it_had(tmp_path: Path) -> None:
    async def scenario(processes: WarmProcesses) -> None:
        process: Warm = await processes.begin({})
        turn = Turn(process)
        assert turn.is_alive(turn.pid)
        turn.returncode = await processes.ended(process)
        following = await processes.begin({"seconds": "0.2"})
        assert following.pid == turn.pid
        for kill in (turn.graceful_kill, turn.hard_kill):
            with pytest.raises(ProcessLookupError):
                kill(turn.pid)
        assert await processes.ended(following) == 0

    with_processes(tmp_path, scenario)


def test_a_process_is_replaced_after_its_share_and_when_its_memory_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    used = iter([10, 10 + GROWTH, 10 + 2 * GROWTH - 1, 10 + 2 * GROWTH])
    monkeypatch.setattr(execute, "resident", lambda: next(used))
    share = Share()
    assert [share.again() for _ in range(4)] == [True, True, True, False]
    monkeypatch.setattr(execute, "resident", lambda: 10)
    few = Share()
    few._left = 2
    assert [few.again() for _ in range(2)] == [True, False]


def test_a_run_leaves_none_of_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "before")
    with execute.variables({"PREFECT__FLOW_RUN_ID": "during", "PREFECT__CONTROL_PORT": "1"}):
        assert os.environ["PREFECT__FLOW_RUN_ID"] == "during"
        os.environ.pop("PREFECT__CONTROL_PORT")  # as Prefect does
        os.environ["LEFT"] = "by the run"
    assert os.environ["PREFECT__FLOW_RUN_ID"] == "before"
    assert not {"PREFECT__CONTROL_PORT", "LEFT"} & set(os.environ)


# -- a real worker ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    with Deployed.start(tmp_path_factory.mktemp("four"), {"STENO_DEPLOY__CONCURRENCY": "4"}) as deployed:
        yield deployed


def noise(folder: Path, seed: int) -> dict[str, Any]:
    """The request for a recording that no other test has."""
    path = folder / f"noise-{seed}.wav"
    soundfile.write(path, np.random.default_rng(seed).normal(0, 0.1, 4 * 16_000), 16_000)
    return {"source": str(path), "output_dir": str(folder)}


@pytest.mark.slow
def test_runs_of_one_process_each_have_their_own_logs_stages_and_end(four: Deployed, tmp_path: Path) -> None:
    four.plan()
    runs = []
    for seed in range(3):
        runs.append(four.submit(noise(tmp_path, seed)))
        four.wait(runs[-1], {"COMPLETED"})
    begun = four.events("begin")
    assert [line["run"] for line in begun if line["stage"] == "asr"] == runs
    assert len({line["pid"] for line in begun}) == 1
    four.plan(fail={"asr": {"error": "EngineMissing"}})
    failed = four.submit(noise(tmp_path, 3))
    four.wait(failed, {"FAILED"})
    four.plan()
    after = four.submit(noise(tmp_path, 4))
    four.wait(after, {"COMPLETED"})
    pids = {line["run"]: line["pid"] for line in four.events("begin")}
    assert pids[failed] == pids[runs[0]]
    assert pids[after] != pids[failed], "what failed may have left something"
    for seed, run in enumerate(runs):
        logs = four.logs(run)
        assert "fetch computed" in logs and f"noise-{seed}.wav" in logs
        assert not any(f"noise-{other}.wav" in logs for other in range(5) if other != seed)
        assert {task["state_type"] for task in four.task_runs(run)} == {"COMPLETED"}
        assert len(four.task_runs(run)) == 8


@pytest.mark.slow
def test_of_four_runs_a_kill_costs_one_which_is_restarted_and_computes_nothing_twice(four: Deployed, tmp_path: Path) -> None:
    before = four.executions()
    four.plan(seconds={"asr": 1}, hold=True)
    runs = [four.submit(noise(tmp_path, seed)) for seed in range(10, 14)]
    pids = {run: four.wait_for_stage_of(run, "asr")["pid"] for run in runs}
    assert len(set(pids.values())) == 4
    os.kill(pids[runs[0]], signal.SIGKILL)
    four.wait(runs[0], {"CRASHED", "SCHEDULED", "PENDING"})
    four.plan()
    for run in runs:
        four.wait(run, {"COMPLETED"})
    assert [four.states(run).count("Crashed") for run in runs] == [1, 0, 0, 0]
    computed = four.executions() - before
    assert computed == Counter({"segment": 4, "asr": 5, "align": 4, "embed": 4, "cluster": 4, "merge": 4})


@pytest.mark.slow
def test_a_cancelled_run_ends_its_process_and_the_next_one_is_executed(four: Deployed, tmp_path: Path) -> None:
    four.plan(seconds={"asr": 120})
    run = four.submit(noise(tmp_path, 20))
    pid = four.wait_for_stage_of(run, "asr")["pid"]
    four.cancel(run)
    four.wait(run, {"CANCELLED"})
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=40)
    assert not psutil.pid_exists(pid)
    four.plan()
    four.wait(four.submit(noise(tmp_path, 21)), {"COMPLETED"})


@pytest.mark.slow
def test_a_run_outlives_its_worker_and_nothing_outlives_the_run(four: Deployed, tmp_path: Path) -> None:
    four.plan(seconds={"asr": 6})
    run = four.submit(noise(tmp_path, 30))
    pid = four.wait_for_stage_of(run, "asr")["pid"]
    four.kill_worker()
    four.wait(run, {"COMPLETED"})
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=40)
    assert four.flow_pids() == []
    assert four.states(run).count("Crashed") == 0
    four.plan()
    four.restart_worker()
    four.wait(four.submit(noise(tmp_path, 31)), {"COMPLETED"})


@pytest.mark.slow
def test_prefects_own_worker_executes_a_run_in_a_process_of_its_own(four: Deployed, tmp_path: Path) -> None:
    four.worker.stop(60)
    run = four.submit(noise(tmp_path, 40))
    start = isolated.others("prefect", "worker", "start", "--pool", "stenoflow", "--type", "process", "--run-once")
    subprocess.run(start, env=four.env, cwd=tmp_path, check=True, timeout=100)
    four.wait(run, {"COMPLETED"})
    assert four.flow_pids() == []
    four.restart_worker()
