"""The product in a folder that holds `flows/`, `tasks.py`, `api/` and more of the user's own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.hostile_folder import STANDARD, imported, make_hostile
from tests.media import make_case
from tests.prefect_home import prefect_home
from tests.up import Up

STENO = str(Path(sys.executable).with_name("steno"))
OPTIONS = ("-m", "tiny.en", "-l", "en", "--no-diarize", "--no-align", "--json")
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("STENO_", "PREFECT_", "PYTHONPATH"))}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SCRIPT = """
import flows_of_mine
from stenoflow import MediaError, StenoClient, transcribe

begun = []
options = {"model": "tiny.en", "language": "en", "diarize": False}
transcript = transcribe("talk.wav", on_event=lambda event: begun.append(event["type"]), **options)
assert transcript.language == "en" and transcript.duration > 1 and transcript.options["align"], transcript
assert [word.word for word in transcript.word_segments] == [word.word for part in transcript.segments for word in part.words]
try:
    transcribe(b"<html>no sound</html>")
except MediaError as error:
    print(begun.count("result"), error.code)
"""


def run(folder: Path, models: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    prefect = folder / "prefect"
    if not prefect.exists():
        prefect_home(prefect)
    home = {"STENO_HOME": str(folder / "home"), "PREFECT_HOME": str(prefect), "STENO_MODELS_DIR": str(models)}
    env = CLEAN | home | {"STENO_OFFLINE": "1"} | variables
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=500, check=False)


def test_a_command_and_a_batch_use_none_of_its_modules(tmp_path: Path, models_dir: Path) -> None:
    make_hostile(tmp_path, *STANDARD)
    make_case("speech", tmp_path).rename(tmp_path / "talk.wav")
    done = run(tmp_path, models_dir, STENO, "transcribe", "talk.wav", *OPTIONS)
    assert done.returncode == 0, done.stdout + done.stderr
    done = run(tmp_path, models_dir, STENO, "batch", ".", *OPTIONS, "-o", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "talk.json").is_file() and (tmp_path / "out" / "talk.json").is_file()
    assert imported(tmp_path) == set()


def test_a_program_in_it_transcribes(tmp_path: Path, models_dir: Path) -> None:
    """With the folder in PYTHONPATH, as many projects have it."""
    make_hostile(tmp_path)
    make_case("speech", tmp_path).rename(tmp_path / "talk.wav")
    (tmp_path / "flows_of_mine.py").touch()
    (tmp_path / "script.py").write_text(SCRIPT)
    done = run(tmp_path, models_dir, sys.executable, "script.py", PYTHONPATH=str(tmp_path))
    assert done.stdout.split() == ["1", "unreadable_media"], done.stdout + done.stderr
    assert imported(tmp_path) == set()


def test_up_and_its_runs_use_none_of_its_modules(tmp_path: Path, models_dir: Path) -> None:
    make_hostile(tmp_path)
    talk = make_case("speech", tmp_path)
    up = Up(tmp_path, models_dir, PYTHONPATH=str(tmp_path), STENO_OFFLINE="1")
    try:
        up.wait_until_said("Ctrl-C")
        with httpx.Client(base_url=up.api, trust_env=False, timeout=60) as http:
            deployment = http.get("/deployments/name/transcribe/one-recording").json()["id"]
            request = {"source": str(talk), "model": "tiny.en", "language": "en", "diarize": False, "align": False}
            begun = http.post(f"/deployments/{deployment}/create_flow_run", json={"parameters": {"request": request}}).json()
            deadline = time.monotonic() + 300
            while (state := http.get(f"/flow_runs/{begun['id']}").json()["state"])["type"] not in (
                "COMPLETED",
                "FAILED",
                "CRASHED",
            ):
                assert time.monotonic() < deadline, up.said()
                time.sleep(0.5)
        assert state["type"] == "COMPLETED", state["message"]
        assert imported(tmp_path) == set()
    finally:
        up.kill()
