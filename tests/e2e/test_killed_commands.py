"""Commands that are killed, or whose terminal is closed: nothing stays Running in Prefect, and nothing finished is computed again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.api import end_orphans
from flows.orphans import GONE, NEVER_BEGUN
from tests.deployed import FINAL, ROOT, Deployed
from tests.stage_double import recording

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    env = {"STENO_BATCH__SETTLE_SECONDS": "0", "STENO_BATCH__LEASE_SECONDS": "5"}
    with Deployed.start(tmp_path_factory.mktemp("killed"), env, worker=False) as running:
        yield running


def command(deployed: Deployed, *arguments: str, survive_hangup: bool = False) -> subprocess.Popen[bytes]:
    """`steno`, on the test's server, with stages that are stand-ins."""
    prefix = ["nohup"] if survive_hangup else []
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", "stenoflow.cli.main", *arguments],
        env=deployed.env,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def transcribing(deployed: Deployed, folder: Path, seed: int) -> list[str]:
    return ["transcribe", str(recording(folder / "talk.wav", seed=seed, seconds=1.0)), "-o", str(folder / "out")]


def batching(deployed: Deployed, folder: Path, seed: int) -> list[str]:
    for number in range(2):
        recording(folder / f"in/talk-{number}.wav", seed=seed + number, seconds=1.0)
    return ["batch", str(folder / "in"), "-o", str(folder / "out")]


def of(deployed: Deployed, folder: Path) -> list[dict[str, Any]]:
    return [run for run in deployed.runs() if str(folder) in str(run["parameters"])]


def unfinished(deployed: Deployed, folder: Path) -> list[str]:
    """The runs of that folder's recordings, and their tasks, that seem to be at work."""
    runs = of(deployed, folder)
    tasks = [task for run in runs for task in deployed.task_runs(run["id"])]
    return [f"{one['name']} {one['state_name']}" for one in (*runs, *tasks) if one["state_type"] not in FINAL]


def kill(process: subprocess.Popen[bytes]) -> None:
    """`kill -9` of the command and of what it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("asked", [transcribing, batching])
def test_what_a_killed_command_left_running_is_ended_by_the_next(deployed: Deployed, tmp_path: Path, asked: Any) -> None:
    deployed.plan(seconds={"asr": 60})
    since = time.time()
    killed = command(deployed, *asked(deployed, tmp_path, 10))
    deployed.wait_for_stage("asr", timeout=120, after=since)
    kill(killed)
    assert unfinished(deployed, tmp_path)
    deployed.plan()
    assert command(deployed, *transcribing(deployed, tmp_path / "other", 50)).wait(120) == 0
    assert unfinished(deployed, tmp_path) == []
    assert not list((deployed.home / "steno/running").iterdir())


def leave(deployed: Deployed, how: str) -> str:
    """The run of a command that was killed in a moment which a test cannot hit: what it does, in a process that ends then; its id."""
    code = f"""
import asyncio, os
from prefect import get_client
from prefect.states import Running, Scheduled
from flows.execution import create_run
from flows.request import TranscribeRequest

async def main():
    async with get_client() as client:
        run = await create_run(client, TranscribeRequest(source="/nowhere/talk.wav"), idempotency_key=os.urandom(8).hex())
        {how}
    print(run.id, flush=True)

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=deployed.env, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.split()[-1]


def test_a_run_that_was_made_and_not_begun_is_ended_at_once(deployed: Deployed) -> None:
    made = leave(deployed, "pass")
    begun = leave(deployed, "await client.set_flow_run_state(run.id, Running())")  # and its mark was not yet written
    given_to_a_worker = leave(deployed, "await client.set_flow_run_state(run.id, Scheduled(), force=True)")
    deployed.call("POST", f"/flow_runs/{given_to_a_worker}/set_state", state={"type": "PENDING"}, force=True)
    with deployed.environment():
        assert end_orphans(deployed.url) == 2
    states = [deployed.run(run)["state"] for run in (made, begun, given_to_a_worker)]
    assert [state["type"] for state in states] == ["CRASHED", "CRASHED", "PENDING"]
    assert [state["message"] for state in states[:2]] == [NEVER_BEGUN, GONE]
    deployed.call("DELETE", f"/flow_runs/{given_to_a_worker}")


def test_steno_up_ends_what_a_killed_command_left(deployed: Deployed, tmp_path: Path) -> None:
    deployed.plan(seconds={"asr": 60})
    since = time.time()
    killed = command(deployed, *transcribing(deployed, tmp_path, 60))
    deployed.wait_for_stage("asr", timeout=120, after=since)
    with deployed.environment():
        assert end_orphans(deployed.url) == 0, "its process is alive"
    kill(killed)
    with deployed.environment():
        assert end_orphans(deployed.url) == 1
        assert end_orphans(deployed.url) == 0
    (run,) = of(deployed, tmp_path)
    assert (run["state_type"], run["state"]["message"]) == ("CRASHED", GONE)
    assert unfinished(deployed, tmp_path) == []


def test_a_closed_terminal_cancels_the_run(deployed: Deployed, tmp_path: Path) -> None:
    deployed.plan(seconds={"asr": 60})
    since = time.time()
    closed = command(deployed, *transcribing(deployed, tmp_path, 70))
    deployed.wait_for_stage("asr", timeout=120, after=since)
    closed.send_signal(signal.SIGHUP)
    assert closed.wait(60) == 130
    (run,) = of(deployed, tmp_path)
    assert run["state_type"] == "CANCELLED"
    assert unfinished(deployed, tmp_path) == []


def test_a_command_that_is_to_survive_its_terminal_does(deployed: Deployed, tmp_path: Path) -> None:
    deployed.plan(seconds={"asr": 2})
    since = time.time()
    survivor = command(deployed, *transcribing(deployed, tmp_path, 80), survive_hangup=True)
    deployed.wait_for_stage("asr", timeout=120, after=since)
    survivor.send_signal(signal.SIGHUP)
    assert survivor.wait(120) == 0
    assert (tmp_path / "out/talk.json").is_file()


@pytest.mark.matrix
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("asked", [transcribing, batching])
def test_twelve_kills_at_random_moments_lose_nothing(deployed: Deployed, tmp_path: Path, asked: Any) -> None:
    moments = random.Random(5)
    deployed.plan(seconds=dict.fromkeys(("segment", "asr", "align", "embed", "cluster", "merge"), 0.5))
    for number in range(12):
        folder, since = tmp_path / str(number), time.time()
        line = asked(deployed, folder, 100 + 10 * number)
        killed = command(deployed, *line)
        time.sleep(moments.uniform(0.5, 12.0))
        kill(killed)
        left = unfinished(deployed, folder)
        assert command(deployed, *line).wait(240) == 0
        assert unfinished(deployed, folder) == []
        assert list((folder / "out").glob("*.json"))
        ended = Counter((event["stage"], event["key"]) for event in deployed.events("end") if event["at"] > since)
        print(f"{asked.__name__} {number}: left {left}; {sum(ended.values())} stages, {max(ended.values())} times at most")
        assert set(ended.values()) == {1}
    assert not list((deployed.home / "steno/running").iterdir())
