"""Retrying a run whose diarization failed: only the speakers are computed again, whoever executes it and however it is asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import stub_compute
from tests.deployed import Deployed
from tests.prefect_home import prefect_home
from tests.stage_double import recording

pytestmark = pytest.mark.slow

NO_LICENCE = {"error": "GatedModel", "message": "Accept the licence first."}
SPEAKERS_ONLY = {"cluster": 1, "merge": 1}
STAGES = ("segment", "asr", "align", "embed", "cluster", "merge")


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    with Deployed.start(tmp_path_factory.mktemp("retry")) as running:
        yield running


def request(folder: Path, seed: int, **options: Any) -> dict[str, Any]:
    source = recording(folder / f"meeting-{seed}.wav", seed=seed)
    return {"source": str(source), "output_dir": str(folder / "out"), **options}


def steno(*args: str, env: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stenoflow.cli.main", *args],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def speakers(folder: Path, seed: int) -> set[str]:
    transcript = json.loads((folder / "out" / f"meeting-{seed}.json").read_text())
    return {word["speaker"] for word in transcript["word_segments"] if word.get("speaker")}


class Since:
    """Stages executed from now on."""

    def __init__(self, log: Path) -> None:
        self.log, self.before = log, stub_compute.executions(log)

    @property
    def executed(self) -> Counter[str]:
        return stub_compute.executions(self.log) - self.before


def since(deployed: Deployed) -> Since:
    return Since(deployed.home / "stages.log")


# -- a worker -----------------------------------------------------------------------------------------------------------


def test_the_retry_button_has_a_worker_repeat_only_the_speakers(deployed: Deployed, tmp_path: Path) -> None:
    deployed.plan(fail={"cluster": NO_LICENCE})
    run = deployed.submit(request(tmp_path, 1))
    ended = deployed.wait(run)
    assert (ended["state_type"], ended["state_name"]) == ("FAILED", "Partial")
    assert speakers(tmp_path, 1) == set()
    deployed.plan()
    mark = since(deployed)
    deployed.retry(run)
    assert deployed.wait(run, {"COMPLETED"})
    assert mark.executed == SPEAKERS_ONLY
    assert speakers(tmp_path, 1) == {"SPEAKER_00"}


def test_the_command_has_a_worker_repeat_it_and_follows(deployed: Deployed, tmp_path: Path) -> None:
    deployed.plan(fail={"cluster": NO_LICENCE})
    run = deployed.submit(request(tmp_path, 3))
    deployed.wait(run)
    deployed.plan()
    mark = since(deployed)
    done = steno("retry", run[:13], "--json", env=deployed.env, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert mark.executed == SPEAKERS_ONLY
    assert lines(done)[-1]["speakers"] == 1
    assert {"diarize", "merge"} <= {line["stage"] for line in lines(done) if line.get("state") == "completed"}
    assert deployed.states(run).count("Running") == 2

    # Another number of speakers is another run; what it needs not compute comes from the cache.
    mark = since(deployed)
    changed = steno("retry", run, "--max-speakers", "3", "--json", env=deployed.env, folder=tmp_path)
    assert changed.returncode == 0, changed.stdout + changed.stderr
    assert mark.executed == SPEAKERS_ONLY
    assert speakers(tmp_path, 3) == {"SPEAKER_03"}
    (again,) = [found for found in deployed.runs("transcribe/one-recording") if f"retry-of:{run}" in found["tags"]]
    assert again["state_type"] == "COMPLETED"


def test_the_cancel_button_stops_a_workers_run_within_seconds(deployed: Deployed, tmp_path: Path) -> None:
    deployed.plan(seconds={"asr": 60, "embed": 60})
    run = deployed.submit(request(tmp_path, 4))
    deployed.wait_for_stage("asr")
    deployed.wait_for_stage("embed")
    deployed.cancel(run)
    assert deployed.wait(run, timeout=30)["state_type"] == "CANCELLED"
    assert {line["stage"] for line in deployed.events("cancelled")} == {"asr", "embed"}
    assert deployed.flow_pids(run) == []
    scratch = deployed.home / "steno" / "scratch"
    assert [path for path in scratch.rglob("*") if path.is_file()] == []


# -- serve --------------------------------------------------------------------------------------------------------------

SERVE = """
from flows.transcribe import transcribe
transcribe.serve(name="served", limit=1)
"""


def test_the_retry_button_works_on_runs_of_serve(deployed: Deployed, tmp_path: Path) -> None:
    deployed.plan(fail={"cluster": NO_LICENCE})
    with (tmp_path / "serve.log").open("wb") as log:
        env = deployed.env | {"PREFECT_RUNNER_POLL_FREQUENCY": "1"}
        serve = subprocess.Popen([sys.executable, "-c", SERVE], env=env, cwd=tmp_path, stdout=log, stderr=log)
    try:
        deployment = None
        while deployment is None:
            assert serve.poll() is None, (tmp_path / "serve.log").read_text()
            found = deployed.call("POST", "/deployments/filter", deployments={"name": {"any_": ["served"]}})
            deployment = found[0]["id"] if found else None
        deployed.deployments["transcribe/served"] = deployment
        run = deployed.submit(request(tmp_path, 5), "transcribe/served")
        assert deployed.wait(run)["state_name"] == "Partial"
        deployed.plan()
        mark = since(deployed)
        deployed.retry(run)
        deployed.wait(run, {"COMPLETED"})
        assert mark.executed == SPEAKERS_ONLY
    finally:
        serve.terminate()
        serve.wait(30)


# -- the command line with a server of its own --------------------------------------------------------------------------


def test_a_run_of_the_command_line_is_retried_from_another_folder_and_without_a_server(tmp_path: Path) -> None:
    log, plan = tmp_path / "stages.log", tmp_path / "plan.json"
    plan.write_text(json.dumps({"log": str(log), "fail": {"cluster": NO_LICENCE}}))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "STENO_"))}
    env = inherited | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PREFECT_HOME": str(prefect_home(tmp_path / "prefect")),
        "STENO_HOME": str(tmp_path / "steno"),
        "STENO_COMPUTE__BACKEND": stub_compute.BACKEND,
        "STUB_PLAN": str(plan),
    }
    recording(tmp_path / "here" / "talk.wav")
    failed = steno("transcribe", "talk.wav", "-o", "out", env=env, folder=tmp_path / "here")
    assert failed.returncode == 7, failed.stderr
    plan.write_text(json.dumps({"log": str(log)}))
    mark = Since(log)
    (tmp_path / "there").mkdir()
    done = steno("retry", "talk.wav", "--json", env=env, folder=tmp_path / "there")
    assert done.returncode == 0, done.stdout + done.stderr
    assert mark.executed == SPEAKERS_ONLY
    assert lines(done)[-1]["files"] == {
        kind: str(tmp_path / "here" / "out" / f"talk.{kind}") for kind in ("json", "txt", "srt")
    }
