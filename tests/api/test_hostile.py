"""Hostile URLs and bodies: none gets through, none hangs, none leaks. `pytest -s` prints the table."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.guarded import GuardedApi
from tests.api.hostile import TRACES, Answer, Case, cases, exchange
from tests.api.hostile_server import SECRET

TABLE = list(cases())
BOUND = 20.0
"""Seconds within which every one of them is answered."""
LEAKS = (
    re.compile(r"\b\d{1,3}(\.\d{1,3}){3}\b"),
    re.compile(r"Traceback|site-packages|File \"|\.py\b|line \d+"),
    re.compile(r"/(usr|home|root|tmp|etc|var|work)/"),
    re.compile(r"sk-steno-|[0-9a-f]{64}"),
    re.compile(SECRET),
    re.compile(r"prefect|sqlite|postgres|pydantic|uvicorn|starlette|fastapi", re.IGNORECASE),
)

JOBS = {
    "redirect to loopback": ("to-loopback.wav", {"source_forbidden"}),
    "length that is more than comes": ("long.wav", {"download_failed"}),
    "gzip bomb": ("bomb.wav", {"source_too_large"}),
    "body that drips": ("drip.wav", {"download_failed"}),
    "name that was public at the door": ("http://rebound.test:PORT/inside", {"source_forbidden"}),
}
"""Path of the hostile server, or URL; the codes that are right."""
MORE_JOBS = {
    "name that changes between two connections": ("http://flips.test:PORT/inside", {"source_forbidden", "download_failed"}),
    "redirect to localhost": ("to-localhost.wav", {"source_forbidden"}),
    "redirect to one number": ("to-decimal.wav", {"source_forbidden"}),
    "redirect to a mapped address": ("to-mapped.wav", {"source_forbidden"}),
    "redirect to a name that is loopback": ("to-name.wav", {"source_forbidden"}),
    "redirect to the metadata service": ("to-metadata.wav", {"source_forbidden"}),
    "redirect to a file": ("to-file.wav", {"source_forbidden"}),
    "redirect to gopher": ("to-gopher.wav", {"source_forbidden"}),
    "redirect in a redirect": ("hops.wav", {"source_forbidden"}),
    "redirects without end": ("loop.wav", {"source"}),
    "body without end": ("endless.wav", {"source_too_large"}),
    "length that is less than comes": ("short.wav", {"source", "download_failed", "truncated_media"}),
    "length of gigabytes": ("huge.wav", {"source_too_large"}),
    "answer that never comes": ("silent.wav", {"download_failed"}),
    "head without end": ("headers.wav", {"download_failed", "source"}),
    "no bytes": ("empty.wav", {"empty_media"}),
    "noise": ("noise.wav", {"unreadable_media", "corrupt_media"}),
    "a page in place of a recording": ("page.wav", {"unreadable_media"}),
    "playlist in place of a recording": ("list.mp3", {"forbidden_media", "unreadable_media"}),
    "concat script": ("concat.mp3", {"forbidden_media", "unreadable_media"}),
    "header that lies about its length": ("lying.wav", {"truncated_media"}),
    "two minutes in few bytes": ("hour.flac", {"media_too_long"}),
    "denied": ("denied.wav", {"source_denied"}),
    "broken": ("broken.wav", {"download_failed"}),
}


@pytest.fixture(scope="module", autouse=True)
def printed() -> Iterator[list[str]]:
    """The table's rows."""
    rows: list[str] = []
    shutil.rmtree(TRACES, ignore_errors=True)
    TRACES.mkdir()
    yield rows
    print("\n" + "\n".join(rows))


def logged(guarded_api: GuardedApi) -> list[dict[str, Any]]:
    return [json.loads(line) for line in guarded_api.live.log().splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def before(guarded_api: GuardedApi) -> list[dict[str, Any]]:
    """What other modules' tests had logged: they submit with keys of their own."""
    return logged(guarded_api)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", TABLE, ids=[case.name for case in TABLE])
@pytest.mark.usefixtures("before")
def test_what_is_hostile_is_refused_at_the_door(guarded_api: GuardedApi, printed: list[str], case: Case) -> None:
    answer = exchange(guarded_api, case.sent(guarded_api), BOUND)
    printed.append(f"{case.name:<58} {answer.status or 'closed':<7}{answer.code:<24}{answer.seconds:6.2f} s")
    assert answer.status in case.right, answer
    assert not case.code or answer.code == case.code
    _documented(answer)
    _silent(answer.body)
    assert not guarded_api.canary.visits


def _documented(answer: Answer) -> None:
    """It is a problem as RFC 9457 has it, with the older `error`."""
    if not answer.status:
        return
    assert answer.headers["content-type"] == "application/problem+json"
    problem = json.loads(answer.body)
    assert problem["status"] == answer.status
    assert problem["error"] == problem["detail"] and problem["code"]
    assert answer.status != 401 or answer.headers["www-authenticate"] == "Bearer"


def _silent(body: str) -> None:
    """It tells nothing of the inside, and repeats no secret."""
    said = json.loads(body) if body.startswith("{") else {}
    said.pop("instance", None)  # the path that was asked for
    for leak in LEAKS:
        assert not leak.search(json.dumps(said)), (leak.pattern, body)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_only_the_fetch_can_know_fails_the_job(guarded_api: GuardedApi, printed: list[str]) -> None:
    _fail(JOBS, guarded_api, printed)


@pytest.mark.matrix
@pytest.mark.timeout(900)
def test_every_other_thing_that_only_the_fetch_can_know(guarded_api: GuardedApi, printed: list[str]) -> None:
    _fail(MORE_JOBS, guarded_api, printed)


def _fail(table: dict[str, tuple[str, set[str]]], api: GuardedApi, printed: list[str]) -> None:
    """Submit all of them at once; each job ends, failed for its own reason."""
    port = str(api.canary.port)
    urls = {name: path.replace("PORT", port) if "://" in path else api.server.url(path) for name, (path, _) in table.items()}
    jobs = {name: api.live.submit({"audio_url": url}) for name, url in urls.items()}
    wrong = []
    for name, job_id in jobs.items():
        job = api.live.ended(job_id, 280)
        printed.append(f"{'job: ' + name:<58} {job['status']:<7}{job.get('error_code', ''):<24}")
        if job["status"] != "failed" or job["error_code"] not in table[name][1]:
            wrong.append((name, job["status"], job.get("error_code"), job.get("error")))
        assert SECRET not in json.dumps(job)
    assert not wrong
    assert not api.canary.visits


@pytest.mark.slow
def test_an_upload_named_like_a_path_stays_in_the_store(guarded_api: GuardedApi, tmp_path: Path) -> None:
    from tests.api.hostile import field_head, form, uploaded

    before = set(tmp_path.parent.rglob("*evil*"))
    for name in ("../../../../evil.wav", "/var/evil.wav", "..\\\\..\\\\evil.wav", "evil.wav%00.txt", "C:\\\\evil.wav"):
        content = form((field_head("file", name), f"RIFF {name}".encode()))
        answer = exchange(guarded_api, uploaded(content)(guarded_api))
        assert answer.status == 202, answer
        job = json.loads(answer.body)["job_id"]
        assert guarded_api.live.request("DELETE", f"/transcribes/{job}").status_code == 200
    assert set(tmp_path.parent.rglob("*evil*")) == before
    assert not Path("/var/evil.wav").exists()


@pytest.mark.slow
def test_somebody_elses_job_is_not_there(guarded_api: GuardedApi) -> None:
    live = guarded_api.live
    job = live.submit({"audio_url": guarded_api.server.url("good.wav"), "metadata": {"mine": "yes"}})
    theirs = {"Authorization": f"Bearer {guarded_api.other}"}
    for method, path in (
        ("GET", f"/transcribes/{job}"),
        ("GET", f"/transcribes?job_id={job}"),
        ("GET", f"/transcribes/{job}.json"),
        ("GET", f"/transcribes/{job}/events"),
        ("GET", f"/result/{job}"),
        ("DELETE", f"/transcribes/{job}"),
        ("POST", f"/transcribes/{job}/retry"),
    ):
        answer = live.request(method, path, headers=theirs)
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found"), path
    assert job not in live.get("/transcribes", headers=theirs).text
    assert job in live.get("/transcribes").text
    for trick in ({"tag": f"owner:{guarded_api.key_id}"}, {"metadata": f"x=1&owner:{guarded_api.key_id}"}):
        assert job not in live.get("/transcribes", headers=theirs, params=trick).text


@pytest.mark.slow
def test_a_key_may_be_for_short_recordings_only(guarded_api: GuardedApi) -> None:
    theirs = dataclasses.replace(guarded_api.live, headers={"Authorization": f"Bearer {guarded_api.other}"})
    ended = theirs.ended(theirs.submit({"audio_url": guarded_api.server.url("good.wav")}), 240)
    assert (ended["status"], ended["error_code"]) == ("failed", "media_too_long")


@pytest.mark.slow
def test_the_service_is_well_and_its_log_holds_no_secret(guarded_api: GuardedApi, before: list[dict[str, Any]]) -> None:
    live = guarded_api.live
    assert live.get("/health").status_code == 200
    assert live.get("/health/ready").json()["status"] == "ready"
    log = live.log()
    for secret in (SECRET, guarded_api.key, guarded_api.key.split("-", 3)[3], guarded_api.other):
        assert secret not in log
    assert "Traceback" not in log
    lines = logged(guarded_api)
    assert not [line for line in lines if line["level"] == "error"]
    requests = [line for line in lines[len(before) :] if line["logger"] == "api.access"]
    assert {"method", "route", "status", "ms", "key", "request_id"} <= requests[-1].keys()
    submitters = {line["key"] for line in requests if line["route"] == "/transcribes" and line["status"] == 202}
    assert submitters == {guarded_api.key_id, guarded_api.other_id}
    assert not any(TRACES.iterdir())
