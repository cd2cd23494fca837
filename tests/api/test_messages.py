"""What callers are told: what happened and what they can do, never an option of the command line or a setting of the engine's."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import pytest

from tests.api.live import LiveApi
from tests.test_cures import ONE_DOORS

pytestmark = pytest.mark.slow


def cut(live: LiveApi) -> Path:
    """A recording whose header promises ten times what follows."""
    path = live.files / "cut.wav"
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(b"\1\0" * 160_000)
    path.write_bytes(path.read_bytes()[:32_000])
    return path


def test_a_failed_job_says_nothing_of_other_doors(live_api: LiveApi) -> None:
    job = live_api.ended(live_api.upload(cut(live_api)))
    assert (job["status"], job["error_code"]) == ("failed", "truncated_media")
    assert job["error"].endswith("Send the complete recording again.") and job["message"] == job["error"]
    assert not ONE_DOORS.search(json.dumps(job)), job
    events = live_api.get(f"/transcribes/{job['job_id']}/events").text
    assert "Send the complete recording again." in events and not ONE_DOORS.search(events)


def test_missing_speakers_say_nothing_of_other_doors(live_api: LiveApi) -> None:
    error = {"error": "ModelUnavailable", "message": "The model of voices is not here", "cure": "see `steno models`"}
    live_api.deployed.plan(fail={"cluster": error})
    job = live_api.ended(live_api.submit({"audio_url": live_api.recording(), "diarize": True}))
    assert job["degraded"] and "The model of voices is not here." in job["message"]
    assert any("The model of voices is not here." in warning for warning in job["warnings"])
    assert not ONE_DOORS.search(json.dumps(job)), job


def test_a_refused_model_is_told_in_words_of_the_api(live_api: LiveApi) -> None:
    for body in ({"model": "larg-v3"}, {"model": "/models/mine"}, {"model": "tiny.en", "language": "fr"}):
        answer = live_api.post("/transcribes", json={"audio_url": live_api.recording(), **body})
        assert answer.status_code == 422
        said = answer.json()["detail"].replace("STENO_API__MODELS", "")  # the operator's list, which the caller is pointed to
        assert not ONE_DOORS.search(said), said
