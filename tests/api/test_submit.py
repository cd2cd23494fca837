"""`steno submit`, as people use it: against a served API, from a shell."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stenoflow.cli.main import run
from tests.api.live import LiveApi

COMMAND = [sys.executable, "-m", "stenoflow.cli.main", "submit"]


def environment(live: LiveApi | None, **more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("STENO_", "PREFECT_"))}
    return (
        inherited
        | {"PYTHONPATH": os.pathsep.join(sys.path), "NO_PROXY": "127.0.0.1"}
        | ({"STENO_API_URL": live.url} if live else {})
        | more
    )


def submit(live: LiveApi | None, *args: str, folder: Path, stdin: bytes = b"", **more: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *args], cwd=folder, env=environment(live, **more), input=stdin, capture_output=True, timeout=240, check=False
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# -- what is refused before anything is sent ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ((), 2, "--job"),
        (("a.wav", "--job", "1"), 2, "not both"),
        (("--job", "1", "--detach"), 2, "--detach"),
        (("--job", "1", "--job", "2", "--output-file", "a.srt"), 2, "--output-file"),
        (("nowhere.wav",), 3, "no file"),
        (("README.md", "--min-speakers", "3", "--max-speakers", "2"), 2, "--min-speakers"),
        (("README.md", "--metadata", "no pair"), 2, "KEY=VALUE"),
        (("README.md", "--server", "ftp://here"), 2, "http(s)"),
        (("README.md", "docs/README.md"), 2, "both be written"),
        (("README.md", "--device", "cpu"), 2, "--device"),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    args: tuple[str, ...], code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.delenv("STENO_API_URL", raising=False)
    assert run(["submit", *args]) == code
    assert said in capsys.readouterr().err


def test_a_service_that_is_not_there_is_named_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stenoflow.client.core.FIRST_CONTACT", 0.0)
    (tmp_path / "talk.wav").write_bytes(b"RIFF")
    assert run(["submit", str(tmp_path / "talk.wav"), "--server", "http://127.0.0.1:9", "--json"]) == 6
    (line,) = lines(capsys.readouterr().out)
    assert (line["code"], line["type"]) == ("service_unavailable", "error")


# -- against a served API -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_several_recordings_are_transcribed_and_written_here(live_api: LiveApi, tmp_path: Path) -> None:
    local, remote = live_api.file("first talk.wav", 2.0), live_api.recording("second.wav", 2.0)
    args = (str(local), remote, f"{live_api.files_url}/missing.wav", "-f", "srt,txt", "-o", "out", "--tag", "by-hand", "--json")
    done = submit(live_api, *args, folder=tmp_path)
    said = lines(done.stdout)
    assert done.returncode == 3, done
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "first talk.srt",
        "first talk.txt",
        "second.srt",
        "second.txt",
    ]
    assert "morning" in (tmp_path / "out" / "second.txt").read_text()
    results = {line["source"]: line for line in said if line["type"] == "result"}
    assert results["first talk.wav"]["files"]["srt"] == str(tmp_path / "out" / "first talk.srt")
    assert results["first talk.wav"]["speakers"] >= 1 and results["first talk.wav"]["words"] == 3
    (error,) = [line for line in said if line["type"] == "error"]
    assert (error["source"], error["code"]) == ("missing.wav", "source_not_found")
    assert {line["stage"] for line in said if line["type"] == "stage" and line["source"] == "second.wav"} >= {"asr", "merge"}
    listed = live_api.get("/transcribes", params={"tag": "by-hand"}).json()["jobs"]
    assert {job["job_id"] for job in listed} == {line["job_id"] for line in said if line["type"] == "job"}


@pytest.mark.slow
def test_standard_input_is_sent_and_missing_speakers_are_an_error_beside_the_transcript(
    live_api: LiveApi, tmp_path: Path
) -> None:
    live_api.deployed.plan(fail={"cluster": {"error": "GatedModel", "message": "Accept the licence first."}})
    recording = live_api.file(seconds=2.0).read_bytes()
    done = submit(live_api, "-", "--output-file", "piped.vtt", "--max-line-width", "12", folder=tmp_path, stdin=recording)
    assert done.returncode == 7, done
    assert done.stdout.splitlines()[0].startswith("stdin: English, 2.0 s, 3 words") and "piped.vtt" in done.stdout
    assert "steno: error: " in done.stderr
    assert "good morning\neveryone" in (tmp_path / "piped.vtt").read_text()


@pytest.mark.slow
def test_what_is_interrupted_goes_on_and_is_picked_up_as_the_command_says(live_api: LiveApi, tmp_path: Path) -> None:
    live_api.deployed.plan(seconds={"asr": 6.0})
    args = [*COMMAND, str(live_api.file("long.wav", 2.0)), "-f", "srt", "-o", "out"]
    with subprocess.Popen(args, cwd=tmp_path, env=environment(live_api), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        live_api.deployed.wait_for_stage("asr", after=time.time() - 1)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait(60) == 130, said
    again = re.search(r"resume with: steno submit (.*)", said)
    assert again and not (tmp_path / "out").exists()
    done = submit(live_api, *shlex.split(again[1].rstrip(".")), folder=tmp_path)
    assert done.returncode == 0, done
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["long.srt"]


@pytest.mark.slow
def test_detached_jobs_are_named_and_left(live_api: LiveApi, tmp_path: Path) -> None:
    live_api.deployed.plan(seconds={"asr": 30.0})
    done = submit(live_api, str(live_api.file("later.wav", 2.0)), "--detach", folder=tmp_path)
    assert done.returncode == 0, done
    job = done.stdout.strip().removeprefix("later.wav: job ")
    assert live_api.job(job)["status"] in ("queued", "downloading", "processing")
    live_api.request("DELETE", f"/transcribes/{job}")
