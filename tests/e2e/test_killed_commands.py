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
from flows.orphans import BEGINS_WITHIN, GONE
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
@pytest.mark.parametrize("asked", [transcribing, batching])
def test_twelve_kills_at_random_moments_lose_nothing(deployed: Deployed, tmp_path: Path, asked: Any) -> None:
    """A run that its command had made and not begun has no process to be known by: the first command a minute later ends it."""
    moments = random.Random(5)
    deployed.plan(seconds=dict.fromkeys(("segment", "asr", "align", "embed", "cluster", "merge"), 0.5))
    for number in range(12):
        folder, since = tmp_path / str(number), time.time()
        line = asked(deployed, folder, 100 + 10 * number)
        killed = command(deployed, *line)
        time.sleep(moments.uniform(0.5, 12.0))
        kill(killed)
        assert command(deployed, *line).wait(240) == 0
        assert not [left for left in unfinished(deployed, folder) if not left.endswith("Pending")]
        assert list((folder / "out").glob("*.json"))
        ended = Counter((event["stage"], event["key"]) for event in deployed.events("end") if event["at"] > since)
        print(f"{asked.__name__} {number}: {sum(ended.values())} stages, {max(ended.values())} times at most")
        assert set(ended.values()) == {1}
    deployed.plan()
    time.sleep(BEGINS_WITHIN.total_seconds() + 1)
    assert command(deployed, *transcribing(deployed, tmp_path / "later", 900)).wait(240) == 0
    assert [left for number in range(12) for left in unfinished(deployed, tmp_path / str(number))] == []
