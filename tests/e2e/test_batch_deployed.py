"""Batches as an operator runs them: created in Prefect, executed by a worker, killed, and taken up again by themselves."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deployed import Deployed
from tests.stage_double import recording

pytestmark = pytest.mark.slow

BATCH = "batch/folder-or-feed"
CHILD = "transcribe/recording-of-batch"


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    env = {"STENO_BATCH__SETTLE_SECONDS": "0", "STENO_BATCH__POLL_SECONDS": "0.5", "STENO_BATCH__LEASE_SECONDS": "5"}
    with Deployed.start(tmp_path_factory.mktemp("batch"), env) as running:
        yield running


def asked(folder: Path, count: int, first: int, **options: Any) -> dict[str, Any]:
    for number in range(count):
        recording(folder / f"in/talk-{number}.wav", seed=first + number, seconds=1.0)
    return {"source": str(folder / "in"), "output_dir": str(folder / "out"), **options}


def outputs(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "out").glob("*.json"))


def of(folder: Path, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [run for run in runs if str(folder) in str(run["parameters"])]


def test_workers_compute_the_recordings_of_a_batch(deployed: Deployed, tmp_path: Path) -> None:
    request = asked(tmp_path, 2, 100, run_on="workers", options={"max_speakers": 2})
    run = deployed.submit(request, BATCH)
    ended = deployed.wait(run, timeout=200)
    assert ended["state_name"] == "Completed", deployed.logs(run)
    assert outputs(tmp_path) == ["talk-0.json", "talk-1.json"]
    children = of(tmp_path, deployed.runs(CHILD))
    assert Counter(child["state_name"] for child in children) == {"Completed": 2}
    assert all(child["parameters"]["request"]["max_speakers"] == 2 for child in children)
    assert all(child["parent_task_run_id"] for child in children)


def test_a_killed_batch_is_restarted_by_itself_and_finishes(deployed: Deployed, tmp_path: Path) -> None:
    deployed.plan(seconds={"asr": 2})
    run = deployed.submit(asked(tmp_path, 3, 200, concurrency=2), BATCH)
    deployed.wait_for_stage("asr", timeout=120)
    deployed.kill_flow(run)
    deployed.plan()
    ended = deployed.wait(run, {"COMPLETED", "FAILED"}, timeout=200)
    assert ended["state_name"] == "Completed", deployed.logs(run)
    assert outputs(tmp_path) == ["talk-0.json", "talk-1.json", "talk-2.json"]
    assert Counter(child["state_name"] for child in of(tmp_path, deployed.runs(CHILD))) == {"Completed": 3}
    finished = Counter((line["stage"], line["key"]) for line in deployed.events("end"))
    assert set(finished.values()) == {1}


def test_retry_works_on_one_recording_of_a_batch(deployed: Deployed, tmp_path: Path) -> None:
    deployed.plan(fail={"cluster": {"error": "GatedModel", "message": "Accept the licence first."}})
    run = deployed.submit(asked(tmp_path, 1, 300), BATCH)
    assert deployed.wait(run, timeout=120)["state_name"] == "Incomplete"
    (child,) = of(tmp_path, deployed.runs(CHILD))
    assert child["state_name"] == "Partial"
    deployed.plan()
    before = deployed.executions()
    deployed.retry(child["id"])
    assert deployed.wait(child["id"], {"COMPLETED", "CRASHED"}, timeout=120)["state_name"] == "Completed"
    assert deployed.executions() - before == {"cluster": 1, "merge": 1}


@pytest.mark.parametrize("run_on", ["here", "workers"])
def test_cancelling_a_batch_ends_its_recordings(deployed: Deployed, tmp_path: Path, run_on: str) -> None:
    """Those at work, and those that wait for a worker: four are asked for at once, and two run. A second batch goes on with
    runs that the first one made, which Prefect knows as the first one's; on workers only, since both make runs alike."""
    deployed.plan(seconds={"asr": 90})
    request = asked(tmp_path, 4, 400 if run_on == "here" else 500, concurrency=4, run_on=run_on)
    began = time.time()
    for _ in range(2 if run_on == "workers" else 1):
        run = deployed.submit(request, BATCH)
        deployed.wait_for_stage("asr", timeout=120, after=time.time())
        deployed.cancel(run)
        assert deployed.wait(run, {"CANCELLED", "CRASHED"}, timeout=120)["state_type"] == "CANCELLED"
        children = of(tmp_path, deployed.runs(CHILD))
        assert children
        ended = [deployed.wait(child["id"], {"CANCELLED", "CRASHED", "COMPLETED"}, timeout=60) for child in children]
        assert {child["state_type"] for child in ended} == {"CANCELLED"}
    assert not [line for line in deployed.events("end") if line["stage"] == "asr" and line["at"] > began]
    assert outputs(tmp_path) == []
