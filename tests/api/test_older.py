"""Callers of the WhisperX service on Modal that this one takes the place of: its addresses, its fields, its client."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from api.older import IGNORED
from tests import media
from tests.api.live import LiveApi

RATE = 16_000
CLIENT = Path(__file__).with_name("older_client.py")
CUT = media.speech()[int(10.8 * RATE) : int(14.5 * RATE)]
"""A piece of talk whose end cuts what is being said."""

pytestmark = pytest.mark.slow


def test_a_job_is_deleted_by_its_id_in_the_query(live_api: LiveApi) -> None:
    job = live_api.submit({"audio_url": live_api.recording()})
    removed = live_api.request("DELETE", "/transcribes", params={"job_id": job})
    assert removed.status_code == 200 and removed.json()["job_id"] == job
    assert live_api.get("/transcribes", params={"job_id": job}).json()["code"] == "job_deleted"
    again = live_api.request("DELETE", "/transcribes", params={"job_id": job})
    assert (again.status_code, again.json()["code"]) == (404, "job_deleted")
    unnamed = live_api.request("DELETE", "/transcribes")
    assert unnamed.status_code == 422 and "job_id" in unnamed.json()["detail"]


def test_results_are_where_they_were(live_api: LiveApi) -> None:
    job = live_api.submit({"audio_url": live_api.recording()})
    ended = live_api.ended(job)
    for path in (f"/result/{job}", f"/transcribe-results/{job}"):
        answer = live_api.get(path)
        assert answer.json() == ended and answer.headers["deprecation"] == "true"


def test_parameters_of_whisperx_are_ignored_with_a_warning_and_others_are_refused(live_api: LiveApi) -> None:
    url = live_api.recording()
    body = {
        "audio_url": url,
        "compute_type": "float16",
        "return_char_alignments": False,
        "hf_token": "hf_secret",
        "language": "",
    }
    taken = live_api.post("/transcribes", json=body | {"session_id": None, "audio_chunk": ""})
    assert taken.status_code == 202
    assert taken.headers["warning"] == '299 stenoflow "Ignored: compute_type, hf_token, return_char_alignments"'
    file = live_api.file()
    form = live_api.post("/transcribes", files={"file": (file.name, file.read_bytes())}, data={"beam_size": "5"})
    assert form.status_code == 202 and "beam_size" in form.headers["warning"]
    assert "warning" not in live_api.post("/transcribes", json={"audio_url": url}).headers
    for name in ("unknown", "output_dir", "redo_from", "compute", "allow_truncated"):
        assert name not in IGNORED
        refused = live_api.post("/transcribes", json={"audio_url": url, "device": "cuda", name: "x"})
        assert refused.status_code == 422 and [item["field"] for item in refused.json()["errors"]] == [name]


def test_a_batch_size_that_is_left_out_is_found_by_the_worker(live_api: LiveApi) -> None:
    def asked(**fields: object) -> object:
        job = live_api.submit({"audio_url": live_api.recording(), **fields})
        return live_api.deployed.run(job)["parameters"]["request"].get("batch_size")

    assert asked() is None
    assert asked(batch_size=None) is None
    assert asked(batch_size=16) == 16


# -- chunks -------------------------------------------------------------------------------------------------------------


def heard(live: LiveApi, samples: np.ndarray, **fields: Any) -> dict[str, Any]:
    """The answer to a chunk."""
    out = io.BytesIO()
    np.save(out, samples)
    body = {"audio_chunk": base64.b64encode(out.getvalue()).decode(), "language": "en", **fields}
    answer = live.post("/transcribes", json=body, timeout=300)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def words(answer: dict[str, Any]) -> list[str]:
    return [word["word"] for word in answer["word_segments"]]


def test_a_chunk_is_answered_to_its_last_word_unless_more_is_said_to_follow(live_api: LiveApi) -> None:
    alone = heard(live_api, CUT)
    assert len(words(alone)) >= 6
    for fields in ({"session_id": "whole"}, {"session_id": "final", "final": True}):
        assert words(heard(live_api, CUT, **fields)) == words(alone)
    begun = heard(live_api, CUT, session_id="more", final=False)
    assert words(begun) == words(alone)[:-1]
    rest = heard(live_api, CUT[:0], session_id="more")
    assert words(rest)[-1] == words(alone)[-1]


def test_a_session_that_is_not_named_is_made_and_can_be_gone_on_with(live_api: LiveApi) -> None:
    first = heard(live_api, CUT)
    other = heard(live_api, CUT)
    assert first["session_id"] and first["session_id"] != other["session_id"]
    second = heard(live_api, media.speech()[int(14.5 * RATE) : 18 * RATE], session_id=first["session_id"])
    assert second["session_id"] == first["session_id"]
    assert second["word_segments"][0]["start"] >= 3.0


def test_doubles_and_16_bit_integers_say_the_same_as_floats(live_api: LiveApi) -> None:
    integers = np.rint(CUT * 32767).astype(np.int16)
    expected = words(heard(live_api, integers.astype(np.float32) / 32768))
    assert words(heard(live_api, integers)) == words(heard(live_api, integers.astype(np.float64) / 32768)) == expected


def test_a_chunk_of_minutes_is_taken_and_loses_no_word(live_api: LiveApi) -> None:
    first, silence, second = CUT, np.zeros(58 * RATE, np.float32), media.speech()[25 * RATE :]
    alone, whole = heard(live_api, first), heard(live_api, np.concatenate([first, silence, second]))
    starts = [word["start"] for word in whole["word_segments"]]
    assert starts == sorted(starts) and starts[-1] > 65.0
    assert words(whole)[: len(words(alone)) - 1] == words(alone)[:-1]  # the last one, cut here, has a second of silence there
    assert "Yankee" in words(whole) and words(whole)[-1].startswith("now")


# -- a client of theirs ---------------------------------------------------------------------------------------------------


def ran(live: LiveApi, *options: str) -> Any:
    """What the client prints; it must end well."""
    command = [sys.executable, str(CLIENT), "--base-url", live.url, *options]
    env = os.environ | {"NO_PROXY": "127.0.0.1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_their_client_transcribes_and_deletes_by_url(live_api: LiveApi) -> None:
    found = ran(live_api, "--audio-url", live_api.recording(), "--diarize", "--min-speakers", "1", "--max-speakers", "2")
    assert found["job"]["progress"] == 100 and found["job"]["language"] == "en"
    assert found["job"]["word_segments"][0]["speaker"].startswith("SPEAKER_")
    assert found["deleted"]["job_id"] == found["job"]["job_id"]


def test_their_client_gets_every_chunk_to_its_last_word(live_api: LiveApi, tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.wav" for name in ("cut", "rest")}
    soundfile.write(files["cut"], CUT, RATE)
    soundfile.write(files["rest"], media.speech()[int(14.5 * RATE) : 20 * RATE], RATE)
    (alone,) = ran(live_api, "--wav-file", str(files["cut"]), "--language", "en", "--dtype", "float64")
    again = ran(live_api, "--wav-file", str(files["cut"]), "--language", "en", "--session-id", "calls", "--times", "2")
    assert all(words(answer) == words(alone) and answer["session_id"] == "calls" for answer in again)
    (rest,) = ran(live_api, "--wav-file", str(files["rest"]), "--language", "en", "--session-id", "calls")
    assert "Chicago" in " ".join(words(rest)[-2:])
