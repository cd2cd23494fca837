"""Jobs, as programs that use the API meet them: a served API, a real Prefect server and worker, stages stood in for."""

from __future__ import annotations

import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.live import LiveApi

pytestmark = pytest.mark.slow

PROBLEM = "application/problem+json"
FORMATS = {
    "json": "application/json",
    "srt": "application/x-subrip",
    "vtt": "text/vtt",
    "txt": "text/plain",
    "tsv": "text/tab-separated-values",
    "rttm": "text/plain",
    "aud": "text/plain",
    "lrc": "text/plain",
    "md": "text/markdown",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "html": "text/html",
    "csv": "text/csv",
    "eaf": "application/xml",
}


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem, which must be of this status and code, and hold the legacy `error`."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text}"
    assert answer.headers["content-type"] == PROBLEM
    found: dict[str, Any] = answer.json()
    assert (found["status"], found["code"]) == (status, code), found
    assert found["error"] == found["detail"]
    return found


def stages(job: dict[str, Any]) -> dict[str, str]:
    return {stage["stage"]: stage["state"] for stage in job["stages"]}


def artifacts(live: LiveApi) -> set[str]:
    root = live.deployed.home / "steno" / "store" / "artifacts"
    return {path.name for path in root.rglob("*") if path.is_file()}


# -- a job's life -------------------------------------------------------------------------------------------------------


def test_a_url_becomes_a_transcript_in_every_format(live_api: LiveApi) -> None:
    live_api.deployed.plan(seconds={"asr": 1.5})
    answer = live_api.post(
        "/transcribes",
        json={
            "audio_url": live_api.recording("talk.wav"),
            "language": "en",
            "batch_size": 16,
            "align": True,
            "diarize": True,
            "min_speakers": 1,
            "max_speakers": 2,
            "metadata": {"customer": "42"},
            "tags": ["sales"],
            "formats": ["srt", "json"],
        },
    )
    assert answer.status_code == 202
    body = answer.json()
    assert set(body) == {"job_id", "status", "message"} and body["status"] == "queued"
    assert answer.headers["location"] == f"/transcribes/{body['job_id']}"

    seen: list[tuple[str, float]] = []
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not seen or seen[-1][0] not in ("completed", "failed")):
        now = live_api.job(body["job_id"])
        assert {"job_id", "status", "progress", "message", "updated_at"} <= set(now)
        assert "segments" not in now or now["status"] == "completed"
        seen.append((now["status"], now["progress"]))
        time.sleep(0.15)
    order = list(dict.fromkeys(status for status, _ in seen))
    assert order == [status for status in ("queued", "downloading", "processing", "completed") if status in order]
    assert {"queued", "processing", "completed"} <= set(order)
    between = {progress for status, progress in seen if status == "processing"}
    assert any(0 < progress < 100 for progress in between)

    job = live_api.job(body["job_id"])
    assert job["progress"] == 100 and job["language"] == "en" and not job["degraded"]
    assert job["segments"][0]["text"] == "good morning everyone" and job["word_segments"][0]["speaker"].startswith("SPEAKER_")
    assert job["metadata"] == {"customer": "42"} and job["tags"] == ["sales"]
    assert set(job["links"]) == {"srt", "json"}
    assert stages(job)["asr"] == "computed" and all(stage["cost"] == 0 for stage in job["stages"])
    for name, kind in FORMATS.items():
        file = live_api.get(f"/transcribes/{body['job_id']}.{name}")
        assert file.status_code == 200 and file.headers["content-type"].startswith(kind)
        assert "morning" in file.text or name in ("rttm", "docx")
        # A page of the transcript must not run as one of the service.
        assert file.headers["content-disposition"].startswith("attachment" if name in ("html", "docx", "eaf") else "inline")
    problem(live_api.get(f"/transcribes/{body['job_id']}.mp3"), 404, "unknown_format")

    assert live_api.get("/transcribes", params={"job_id": body["job_id"]}).json() == job
    legacy = live_api.get(f"/result/{body['job_id']}")
    assert legacy.json() == job and "deprecation" in legacy.headers
    again = problem(live_api.post(f"/transcribes/{body['job_id']}/retry"), 409, "nothing_to_retry")
    assert "--" not in again["detail"]


def test_what_happens_is_told_as_it_happens(live_api: LiveApi) -> None:
    live_api.deployed.plan(seconds={"asr": 1.5})
    job = live_api.submit({"audio_url": live_api.recording()})
    names, said = [], []
    with (
        httpx.Client(trust_env=False, timeout=90) as client,
        client.stream("GET", f"{live_api.url}/transcribes/{job}/events") as stream,
    ):
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("event: "):
                names.append(line.removeprefix("event: "))
            if line.startswith("data: "):
                said.append(json.loads(line.removeprefix("data: ")))
    assert names[0] == "status" and names[-1] == "completed" and names.count("completed") == 1
    assert {"stage": "asr", "state": "running"}.items() <= next(one for one in said if one.get("stage") == "asr").items()
    assert any(0 < one["progress"] < 100 for name, one in zip(names, said, strict=True) if name == "progress")


def test_waiting_answers_with_the_job_that_has_ended(live_api: LiveApi) -> None:
    answer = live_api.post("/transcribes", params={"wait": 60}, json={"audio_url": live_api.recording()}, timeout=90)
    assert answer.status_code == 200 and answer.json()["status"] == "completed", answer.text
    live_api.deployed.plan(seconds={"asr": 30})
    job = live_api.submit({"audio_url": live_api.recording()})
    began = live_api.get(f"/transcribes/{job}", params={"wait": 0.5}).json()
    assert began["status"] in ("queued", "downloading", "processing")
    live_api.request("DELETE", f"/transcribes/{job}")


def test_an_upload_is_kept_once_and_transcribed(live_api: LiveApi) -> None:
    path = live_api.file("Gespräch 1.wav", seconds=3.0)
    fields = {"diarize": "true", "max_speakers": "2", "tags": "a,b", "formats": ["srt", "txt"], "metadata": '{"k": "v"}'}
    first, second = live_api.upload(path, **fields), live_api.upload(path, align="false")
    job = live_api.ended(first)
    assert job["status"] == "completed" and job["tags"] == ["a", "b"] and job["metadata"] == {"k": "v"}
    assert list(job["links"]) == ["srt", "txt"] and "speaker" in job["segments"][0]
    other = live_api.ended(second)
    assert stages(other)["align"] == "skipped"
    assert {stages(job)["asr"], stages(other)["asr"]} == {"computed", "cached"}
    uploads = live_api.deployed.home / "steno" / "store" / "uploads"
    assert len([kept for kept in uploads.rglob("*.wav") if kept.read_bytes() == path.read_bytes()]) == 1
    summary = next(one for one in live_api.get("/transcribes").json()["jobs"] if one["job_id"] == first)
    assert summary["name"] == "Gespräch 1.wav"


# -- failures -----------------------------------------------------------------------------------------------------------


def test_a_failed_diarization_is_a_degraded_job_and_a_retry_repeats_nothing_else(live_api: LiveApi) -> None:
    live_api.deployed.plan(fail={"cluster": {"error": "InputError", "message": "the voices could not be told apart"}})
    url = live_api.recording()
    lenient = live_api.submit({"audio_url": url, "diarize": True})
    strict = live_api.submit({"audio_url": url, "diarize": True, "on_diarization_failure": "fail"})
    job = live_api.ended(lenient)
    assert job["status"] == "completed" and job["degraded"] and job["segments"]
    assert any("told apart" in warning for warning in job["warnings"])
    failed = live_api.ended(strict)
    assert failed["status"] == "failed" and failed["error_code"] == "diarization_failed" and "told apart" in failed["error"]
    assert "segments" not in failed and live_api.get(f"/transcribes/{strict}.txt").status_code == 200

    live_api.deployed.plan()
    before = live_api.deployed.executions()
    answer = live_api.post(f"/transcribes/{lenient}/retry", json={"from": "diarize"})
    assert answer.status_code == 202 and answer.json()["job_id"] == lenient, answer.text
    job = live_api.ended(lenient)
    assert job["status"] == "completed" and not job["degraded"] and job["segments"][0]["speaker"]
    assert {stage for stage, count in live_api.deployed.executions().items() if count > before[stage]} == {"cluster", "merge"}


def test_other_options_make_a_new_job_of_what_is_finished(live_api: LiveApi) -> None:
    job = live_api.submit({"audio_url": live_api.recording(), "diarize": True, "metadata": {"k": "v"}})
    live_api.ended(job)
    key = {"Idempotency-Key": uuid.uuid4().hex}
    answers = [
        live_api.post(f"/transcribes/{job}/retry", json={"from": "diarize", "max_speakers": 2}, headers=key) for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [202, 202], answers[0].text
    answer = answers[0]
    new = answer.json()["job_id"]
    assert answers[1].json()["job_id"] == new
    assert new != job and answer.headers["location"] == f"/transcribes/{new}"
    again = live_api.ended(new)
    assert again["status"] == "completed" and again["metadata"] == {"k": "v"}
    assert {stages(again)[stage] for stage in ("segment", "asr", "align", "embed")} == {"cached"}
    assert live_api.job(job)["status"] == "completed"
    found = problem(
        live_api.post(f"/transcribes/{job}/retry", json={"min_speakers": 3, "max_speakers": 2}), 422, "invalid_request"
    )
    assert "min_speakers" in found["detail"]


def test_a_failed_job_says_why_in_a_sentence(live_api: LiveApi) -> None:
    missing = live_api.ended(live_api.submit({"audio_url": f"{live_api.files_url}/none.wav"}))
    assert missing["status"] == "failed" and missing["error_code"] == "source_not_found" and missing["error"]
    assert "Traceback" not in json.dumps(missing)
    problem(live_api.get(f"/transcribes/{missing['job_id']}.txt"), 409, "no_transcript")


# -- once only ----------------------------------------------------------------------------------------------------------


def test_an_idempotency_key_makes_one_job(live_api: LiveApi) -> None:
    body = {"audio_url": live_api.recording()}
    key = {"Idempotency-Key": uuid.uuid4().hex}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: live_api.post("/transcribes", json=body, headers=key), range(4)))
    assert {answer.status_code for answer in answers} == {202}
    (job,) = {answer.json()["job_id"] for answer in answers}
    found = live_api.post("/transcribes", json=body | {"diarize": True}, headers=key)
    problem(found, 422, "idempotency_key_reused")
    live_api.ended(job)
    assert live_api.post("/transcribes", json=body, headers=key).json()["job_id"] == job
    assert live_api.request("DELETE", f"/transcribes/{job}").status_code == 200
    new = live_api.post("/transcribes", json=body, headers=key).json()["job_id"]
    assert new != job
    live_api.request("DELETE", f"/transcribes/{new}")


# -- removing -----------------------------------------------------------------------------------------------------------


def gone(live: LiveApi, job: str, timeout: float = 60) -> None:
    """Until all that the deleted job left is removed."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if "cleaning" not in live.deployed.run(job)["tags"]:
            return
        time.sleep(0.2)
    raise AssertionError(f"still there: {live.deployed.run(job)['tags']}, {live.log()[-1500:]}")


def test_deleting_leaves_a_tombstone_and_only_what_other_jobs_use(live_api: LiveApi) -> None:
    before = artifacts(live_api)
    shared = live_api.recording()
    kept = live_api.submit({"audio_url": shared, "metadata": {"secret": "42"}})
    deleted = live_api.submit({"audio_url": shared, "diarize": True, "metadata": {"secret": "unhashed"}})
    for job in (kept, deleted):
        assert live_api.ended(job)["status"] == "completed"
    both = artifacts(live_api)
    answer = live_api.request("DELETE", f"/transcribes/{deleted}")
    assert answer.status_code == 200 and answer.json()["job_id"] == deleted and answer.json()["message"]
    for method, path in (("GET", ""), ("GET", ".json"), ("GET", "/events"), ("DELETE", ""), ("POST", "/retry")):
        problem(live_api.request(method, f"/transcribes/{deleted}{path}"), 404, "job_deleted")
    assert deleted not in [job["job_id"] for job in live_api.get("/transcribes").json()["jobs"]]
    gone(live_api, deleted)
    left = artifacts(live_api)
    assert before < left < both
    assert live_api.get(f"/transcribes/{kept}.txt").status_code == 200
    assert not any(one["key"] != "transcription-progress" for one in live_api.deployed.artifacts(deleted))
    assert "unhashed" not in json.dumps(live_api.deployed.run(deleted)["tags"])
    live_api.request("DELETE", f"/transcribes/{kept}")
    gone(live_api, kept)
    assert artifacts(live_api) == before


def test_deleting_cancels_what_is_under_way_even_when_the_api_is_killed_meanwhile(live_api: LiveApi) -> None:
    live_api.deployed.plan(seconds={"asr": 60})
    job = live_api.upload(live_api.file(seconds=4.0))
    began = time.time()
    live_api.until(job, {"processing"})
    live_api.deployed.wait_for_stage("asr", after=began - 1)
    problem(live_api.post(f"/transcribes/{job}/retry", json={"max_speakers": 2}), 409, "run_under_way")
    problem(live_api.get(f"/transcribes/{job}.txt"), 409, "no_transcript")
    assert live_api.request("DELETE", f"/transcribes/{job}").status_code == 200
    live_api.kill_api()
    live_api.start_api()
    problem(live_api.get(f"/transcribes/{job}"), 404, "job_deleted")
    assert live_api.deployed.wait(job, {"CANCELLED"}, 60)["state_type"] == "CANCELLED"
    gone(live_api, job)
    used = live_api.deployed.home / "steno" / "store" / "records" / "uses" / job
    assert not used.exists()


# -- lists --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def waiting(live_api: LiveApi) -> list[str]:
    """Jobs of this caller that no worker takes, the newest first."""
    later = datetime.now(UTC) + timedelta(days=1)
    made = []
    for number in range(5):
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": (later + timedelta(minutes=number)).isoformat()}}
        tags = ["owner:anybody", f"meta:number={number}", "tag:listed", f"tag:{'even' if number % 2 == 0 else 'odd'}"]
        made.append(live_api.deployed.submit({"source": "/none.wav"}, state=state, tags=tags))
    return made[::-1]


def test_lists_are_filtered_and_paged(live_api: LiveApi, waiting: list[str]) -> None:
    def listed(**query: Any) -> list[str]:
        answer = live_api.get("/transcribes", params={"tag": "listed"} | query)
        assert answer.status_code == 200, answer.text
        return [job["job_id"] for job in answer.json()["jobs"]]

    assert listed() == waiting
    assert listed(tag=["listed", "odd"]) == [waiting[1], waiting[3]]
    assert listed(metadata="number=3") == [waiting[1]]
    assert listed(status="queued") == waiting and listed(status=["failed", "processing"]) == []
    middle = live_api.job(waiting[2])["created_at"]
    assert listed(created_after=middle) == waiting[:3] and listed(created_before=middle) == waiting[2:]

    pages, cursor = [], None
    while cursor is not None or not pages:
        query = {"tag": "listed", "limit": 2} | ({"cursor": cursor} if cursor else {})
        answer = live_api.get("/transcribes", params=query).json()
        pages.append([job["job_id"] for job in answer["jobs"]])
        cursor = answer["next_cursor"]
        if len(pages) == 1:  # what comes in meanwhile moves nothing
            live_api.deployed.submit({"source": "/none.wav"}, tags=["owner:anybody"], state={"type": "CANCELLED"})
    assert [job for page in pages for job in page] == waiting
    problem(live_api.get("/transcribes", params={"cursor": "nonsense"}), 422, "invalid_cursor")
    problem(live_api.get("/transcribes", params={"metadata": "number"}), 422, "invalid_request")
    for job in waiting:
        live_api.request("DELETE", f"/transcribes/{job}")
    assert listed() == []


def test_somebody_elses_job_is_no_job(live_api: LiveApi, waiting: list[str]) -> None:
    others = live_api.deployed.submit({"source": "/none.wav"}, tags=["owner:other", "tag:listed"], state={"type": "CANCELLED"})
    nobodys = live_api.deployed.submit({"source": "/none.wav"}, state={"type": "CANCELLED"})
    for job in (others, nobodys, str(uuid.uuid4()), "nonsense"):
        for method, path in (("GET", ""), ("GET", ".json"), ("GET", "/events"), ("POST", "/retry"), ("DELETE", "")):
            problem(live_api.request(method, f"/transcribes/{job}{path}"), 404, "job_not_found")
    assert others not in [job["job_id"] for job in live_api.get("/transcribes", params={"tag": "listed"}).json()["jobs"]]
    # Nor does a tag of one's own lead there.
    mine = live_api.submit({"audio_url": live_api.recording(), "tags": ["owner:other", "stenoflow-batch"]})
    assert {"tag:owner:other", "tag:stenoflow-batch"} <= set(live_api.deployed.run(mine)["tags"])
    assert "owner:other" not in live_api.deployed.run(mine)["tags"]
    for job in (*waiting, mine):
        live_api.request("DELETE", f"/transcribes/{job}")


# -- requests that are refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "bad_request"),
        ({"audio_url": "https://example.com/a.wav", "audio_chunk": "AAAA"}, 400, "bad_request"),
        ({"audio_url": "https://example.com/a.wav", "session_id": "s"}, 400, "bad_request"),
        ({"audio_url": "https://example.com/a.wav", "unknown": 1}, 422, "invalid_request"),
        ({"audio_url": "https://example.com/a.wav", "batch_size": 0}, 422, "invalid_request"),
        ({"audio_url": "https://example.com/a.wav", "language": "klingon"}, 422, "invalid_request"),
        ({"audio_url": "https://example.com/a.wav", "model": "nonsense"}, 422, "unknown_model"),
        ({"audio_url": "https://example.com/a.wav", "model": "/etc"}, 422, "unknown_model"),
        ({"audio_url": "https://example.com/a.wav", "num_speakers": 2, "max_speakers": 3}, 422, "invalid_request"),
        ({"audio_url": "https://example.com/a.wav", "metadata": {"a=b": "c"}}, 422, "invalid_request"),
        ({"audio_url": "https://example.com/a.wav", "initial_prompt": "a\0b"}, 422, "invalid_request"),
        ([], 422, "invalid_request"),
    ],
)
def test_what_cannot_be_is_refused(live_api: LiveApi, body: Any, status: int, code: str) -> None:
    problem(live_api.post("/transcribes", json=body), status, code)


def test_bodies_that_are_none_are_refused(live_api: LiveApi, tmp_path: Path) -> None:
    problem(
        live_api.post("/transcribes", content="audio_url=x", headers={"Content-Type": "text/plain"}),
        415,
        "unsupported_media_type",
    )
    headers = {"Content-Type": "application/json"}
    for content in ("{", "", '{"batch_size": NaN}', "[" * 100_000):
        problem(live_api.post("/transcribes", content=content, headers=headers), 400, "invalid_json")
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    cut = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF'
    problem(live_api.post("/transcribes", content=cut, headers=form), 400, "invalid_form")
    problem(live_api.post("/transcribes", files={"file": ("a.wav", b"")}), 422, "empty_media")
    problem(
        live_api.post("/transcribes", files={"file": b"x"}, data={"audio_url": "https://example.com/a.wav"}), 400, "bad_request"
    )
    problem(live_api.post("/transcribes", files={"recording": ("a.wav", b"x")}), 400, "invalid_form")
    problem(live_api.post("/transcribes", files={"file": b"x"}, data={"metadata": "["}), 400, "invalid_json")
    problem(live_api.get("/nowhere"), 404, "not_found")
    assert {"GET", "POST"} <= set(live_api.request("PATCH", "/transcribes").headers["allow"].split(", "))


def test_addresses_with_secrets_are_not_shown_to_prefect(live_api: LiveApi) -> None:
    url = live_api.recording("signed.wav") + "?X-Amz-Signature=verysecret"
    job = live_api.submit({"audio_url": url})
    assert live_api.ended(job)["status"] == "completed"
    kept = json.dumps([live_api.deployed.run(job), live_api.deployed.artifacts(job), live_api.deployed.logs(job)])
    assert "verysecret" not in kept and "verysecret" not in live_api.log()


def test_the_service_says_what_it_is(live_api: LiveApi) -> None:
    assert set(live_api.get("/health").json()) == {"status", "service", "timestamp"}
    document = live_api.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status, answer in operation["responses"].items():
                documented = set(answer.get("content", {}))
                known = path.startswith("/v1") or path == "/health/ready"
                assert status[0] in "23" or documented == {PROBLEM} or known, (
                    path,
                    method,
                    status,
                    documented,
                )
    names = {reference.rpartition("/")[2] for reference in _references(document)}
    assert names <= set(document["components"]["schemas"])


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [reference for child in value.values() for reference in _references(child)]
    return [reference for child in value for reference in _references(child)] if isinstance(value, list) else []


def test_when_prefect_is_away_callers_are_told_to_come_back(live_api: LiveApi) -> None:
    job = live_api.submit({"audio_url": live_api.recording()})
    live_api.ended(job)
    live_api.deployed.kill_server()
    try:
        time.sleep(5)  # what was read is good for less
        answer = live_api.get(f"/transcribes/{job}", timeout=90)
        problem(answer, 503, "orchestrator")
        assert int(answer.headers["retry-after"]) >= 1
        assert live_api.get("/health").status_code == 200
    finally:
        live_api.deployed.restart_server()
    assert live_api.job(job)["status"] == "completed"
