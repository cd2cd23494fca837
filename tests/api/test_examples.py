"""The examples, executed as their first lines say: against real servers, the batch's on S3, Modal's on its test server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests import stub_compute
from tests.api.live import ENDED, LiveApi
from tests.deployed import QUICK
from tests.guides import commands, spoken
from tests.modal_app import deployed as deployed_on_modal
from tests.ports import free_port
from tests.s3_faults import FaultyS3

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(example: str, *arguments: str, env: dict[str, str], folder: Path) -> str:
    """What the example prints."""
    command = [sys.executable, EXAMPLES / example] if example.endswith(".py") else ["sh", EXAMPLES / example]
    done = subprocess.run([*command, *arguments], env=env, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_talk_time(live_api: LiveApi, models_dir: Path, tmp_path: Path) -> None:
    recording = spoken(tmp_path / "call.wav")
    env = live_api.env | {"STENO_HOME": str(tmp_path / "home"), "STENO_MODELS_DIR": str(models_dir)}
    env |= {"STENO_COMPUTE__BACKEND": "local"}
    printed = run("talk_time.py", str(recording), env=env, folder=tmp_path).splitlines()
    rows = [line.split() for line in printed if line.startswith("call.wav  SPEAKER_")]
    assert len(rows) == 2
    assert 4 < sum(float(seconds) for *_, seconds, _ in rows) < 11
    [talk] = live_api.deployed.runs(flows={"name": {"any_": ["talk-time"]}})
    assert [each["key"] for each in live_api.deployed.artifacts(talk["id"])] == ["talk-time"]


def test_digest(live_api: LiveApi, tmp_path: Path) -> None:
    recording = spoken(tmp_path / "meeting.wav")
    printed = run("digest.py", str(recording), str(tmp_path / "out"), env=live_api.env, folder=tmp_path)
    assert "SPEAKER_00: good morning everyone" in printed
    [digest] = live_api.deployed.runs(flows={"name": {"any_": ["digest"]}})
    assert digest["state_type"] == "COMPLETED"


def test_web_app(live_api: LiveApi, tmp_path: Path) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "examples.web_app:app", "--port", str(port)],
        cwd=EXAMPLES.parent,
        env=live_api.env | {"STENO_API_URL": live_api.url},
        stderr=subprocess.PIPE,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as browser:
            until_it_answers(browser)
            with spoken(tmp_path / "talk.wav").open("rb") as file:
                job = browser.post("/recordings", files={"file": ("talk.wav", file)}).raise_for_status().json()["job"]
            while (shown := browser.get(f"/recordings/{job}").raise_for_status().json())["status"] not in ENDED:
                assert 0 <= shown["percent"] <= 100
                time.sleep(0.2)
            assert shown["status"] == "completed"
            assert shown["lines"][0]["text"].strip() == "good morning everyone"
            assert browser.get("/recordings/00000000-0000-0000-0000-000000000000").status_code == 404
    finally:
        process.terminate()
        process.wait(30)


def until_it_answers(browser: httpx.Client, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(httpx.TransportError):
            browser.get("/docs")
            return
        time.sleep(0.1)
    raise AssertionError("the web application does not answer")


def test_nightly_s3(faulty_s3: FaultyS3, models_dir: Path, tmp_path: Path) -> None:
    bucket = faulty_s3.bucket()
    s3 = faulty_s3.client()
    s3.upload_file(str(spoken(tmp_path / "call.wav")), bucket, "incoming/call.wav")
    port = free_port()
    env = (
        commands(tmp_path)
        | QUICK
        | faulty_s3.environment(bucket)
        | {
            "BUCKET": bucket,
            "CRON": "* * * * *",
            "STENO_HOME": str(tmp_path / "home"),
            "PREFECT_HOME": str(tmp_path / "prefect"),
            "STENO_COMPUTE__BACKEND": stub_compute.BACKEND,
            "STENO_BATCH__SETTLE_SECONDS": "0",
        }
    )
    with (tmp_path / "up.log").open("wb") as log:
        process = subprocess.Popen(
            ["sh", EXAMPLES / "nightly_s3.sh", "--port", str(port)],
            env=env,
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        end, written = time.monotonic() + 240, set[str]()
        while not {"transcripts/call.json", "transcripts/call.srt"} <= written:
            assert time.monotonic() < end and process.poll() is None, (tmp_path / "up.log").read_text(errors="replace")[-4000:]
            time.sleep(1)
            written = {each["Key"] for each in s3.list_objects_v2(Bucket=bucket).get("Contents", ())}
        assert any(key.startswith("steno/artifacts/") for key in written)
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)


def test_modal(models_dir: Path, tmp_path: Path) -> None:
    recording = spoken(tmp_path / "talk.wav")
    with deployed_on_modal(models_dir) as server:
        env = commands(tmp_path) | server.env | {name: value for name, value in os.environ.items() if name.startswith("STENO_")}
        env |= {
            "STENO_HOME": str(tmp_path / "home"),
            "PREFECT_HOME": str(tmp_path / "prefect"),
            "HF_TOKEN": "hf_made_up",
            "STENO_OFFLINE": "true",
        }
        before = len(server.calls)
        run("modal.sh", str(recording), env=env, folder=tmp_path)
        assert {"Speech.asr", "Voices.segment", "Voices.embed"} <= {each["function"] for each in server.calls[before:]}
        assert server.app("stenoflow")["functions"]["Speech.*"]["secrets"][0]["name"] == "stenoflow-hub-token"
    assert "Chicago" in (tmp_path / "talk.json").read_text()
