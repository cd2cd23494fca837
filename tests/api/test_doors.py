"""Who gets in: other sites' pages, other names, other machines, other owners; as an attacker meets the served API."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import re
import shutil
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from api import keyring, keys
from infra.store import Store
from tests.api.guarded import GuardedApi
from tests.api.live import LiveApi

pytestmark = pytest.mark.slow
EVIL = "https://evil.example"
PAGE = "https://app.example.com"
FORM = {"file": ("talk.wav", b"RIFF", "audio/wav")}
CHUNK = base64.b64encode(b"\x93NUMPY" + bytes(100)).decode()
OPEN_TO_ALL = ("/health", "/health/ready", "/openapi.json", "/docs", "/metrics", "/transcribes", "/webhooks", "/v1/models")


@contextlib.contextmanager
def beside(live: LiveApi, home: Path, **env: str) -> Iterator[LiveApi]:
    """Another process of `steno api` on the same Prefect, with a home and a store of its own."""
    home.mkdir(parents=True, exist_ok=True)
    own = live.env | {"STENO_HOME": str(home), "STENO_API__PORT": "0"} | env
    other = LiveApi(dataclasses.replace(live.deployed, home=home), live.files, live.files_url, own)
    other.start_api()
    try:
        yield other
    finally:
        other.stop_api()


def until(api: LiveApi, status: int, seconds: float = 90.0, **headers: str) -> None:
    """Keys are looked at again every other second."""
    end = time.monotonic() + seconds
    while (found := api.get("/transcribes", headers=headers).status_code) != status:
        assert time.monotonic() < end, f"still {found}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def ended_job(served_api: LiveApi) -> str:
    served_api.deployed.plan()
    job = served_api.submit({"audio_url": served_api.recording()})
    assert served_api.ended(job)["status"] == "completed"
    return job


@pytest.fixture(scope="module")
def allowing_api(served_api: LiveApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApi]:
    """One whose operator allows a page, a name and a model of their own."""
    settings = {
        "STENO_API__ALLOWED_ORIGINS": json.dumps([PAGE]),
        "STENO_API__ALLOWED_HOSTS": '["steno.example.com"]',
        "STENO_API__MODELS": '["acme/whisper-ct2"]',
    }
    with beside(served_api, tmp_path_factory.mktemp("allowing") / "home", **settings) as api:
        yield api


# -- other names, other sites ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", OPEN_TO_ALL)
@pytest.mark.parametrize("host", ["rebind.evil.example", "rebind.evil.example:8765", "127.0.0.1.evil.example", "", "a b"])
def test_a_name_that_is_not_the_services_is_not_answered(live_api: LiveApi, path: str, host: str) -> None:
    answer = live_api.get(path, headers={"Host": host})
    assert answer.status_code in (400, 421) and "jobs" not in answer.json(), answer.text


@pytest.mark.parametrize(
    "site", [{"Origin": EVIL}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {"Referer": f"{EVIL}/x"}]
)
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/transcribes", {"files": FORM}),
        ("POST", "/transcribes", {"json": {"audio_url": "https://example.org/a.wav"}}),
        ("POST", "/transcribes", {"json": {"audio_chunk": "AAAA"}}),
        ("POST", "/transcribes/8f0f5c6e-0000-4000-8000-000000000000/retry", {}),
        ("DELETE", "/transcribes/8f0f5c6e-0000-4000-8000-000000000000", {}),
        ("POST", "/v1/audio/transcriptions", {"files": FORM, "data": {"model": "whisper-1"}}),
        ("POST", "/webhooks/msg_00000000000000000000000000000000/redeliver", {}),
    ],
)
def test_a_page_of_another_site_changes_nothing(
    live_api: LiveApi, site: dict[str, str], method: str, path: str, body: dict[str, Any]
) -> None:
    before = live_api.get("/transcribes").json()["jobs"]
    answer = live_api.request(method, path, headers=site, **body)
    assert (answer.status_code, answer.json()["code"]) == (403, "origin_refused"), answer.text
    assert "access-control-allow-origin" not in answer.headers
    assert live_api.get("/transcribes").json()["jobs"] == before


@pytest.mark.parametrize("site", [{"Origin": EVIL}, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}])
def test_a_page_of_another_site_reads_nothing(live_api: LiveApi, site: dict[str, str]) -> None:
    job = live_api.submit({"audio_url": live_api.recording()})
    for path in ("/transcribes", f"/transcribes/{job}", f"/transcribes/{job}/events", f"/transcribes/{job}.txt"):
        assert live_api.get(path, headers=site).status_code == 403, path
    live_api.ended(job)


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "text/x+json"])
def test_what_a_browser_sends_without_asking_is_no_json(live_api: LiveApi, kind: str) -> None:
    """A simple request has one of three content types, or none."""
    answer = live_api.post(
        "/transcribes", content=b'{"audio_url": "https://example.org/a.wav"}', headers={"Content-Type": kind}
    )
    assert answer.status_code == 415, answer.text


def test_a_page_that_the_operator_lists_may_call(allowing_api: LiveApi) -> None:
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "GET"}
    wanted = {"Access-Control-Request-Headers": "authorization,last-event-id,idempotency-key"}
    answer = allowing_api.request("OPTIONS", "/transcribes/x/events", headers=asked | wanted)
    assert answer.status_code == 204 and answer.headers["access-control-allow-origin"] == PAGE
    assert "last-event-id" in answer.headers["access-control-allow-headers"]
    answer = allowing_api.get("/transcribes", headers={"Origin": PAGE})
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == PAGE
    assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
    assert allowing_api.request("OPTIONS", "/transcribes", headers=asked | {"Origin": EVIL}).status_code == 403


def test_a_name_that_the_operator_lists_is_answered_to_with_a_key(allowing_api: LiveApi) -> None:
    answer = allowing_api.get("/transcribes", headers={"Host": "steno.example.com"})
    assert answer.status_code == 401, "who calls it by a public name is not on this machine"
    assert allowing_api.get("/health", headers={"Host": "steno.example.com"}).status_code == 200


PROXIES = (
    "Via",
    "X-Forwarded-Host",
    "X-Real-IP",
    "X-Client-IP",
    "Fastly-Client-IP",
    "CF-Ray",
    "Tailscale-User-Login",
    "X-Amzn-Trace-Id",
)


def test_what_a_proxy_passes_on_needs_a_key_though_it_comes_from_this_machine(live_api: LiveApi) -> None:
    for name in PROXIES:
        assert live_api.get("/transcribes", headers={name: "203.0.113.9"}).status_code == 401, name
    host, _, port = live_api.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        # As nginx does when it is told no more than `proxy_pass`.
        connection.sendall(f"GET /transcribes HTTP/1.0\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        assert connection.recv(65_536).split()[1] == b"401"
    assert live_api.get("/transcribes").status_code == 200


# -- keys that are gone -------------------------------------------------------------------------------------------------


def test_keys_whose_records_vanish_let_nobody_in(live_api: LiveApi, tmp_path: Path) -> None:
    home = tmp_path / "home"
    store = Store(str(home / "store"), home / "scratch")
    with beside(live_api, home) as api:
        assert api.get("/transcribes").status_code == 200
        made = keys.make(store, "alice")
        until(api, 401)
        until(api, 200, Authorization=f"Bearer {made.secret}")
        shutil.rmtree(home / "store" / "records")
        until(api, 401, Authorization=f"Bearer {made.secret}")
        assert api.get("/transcribes").status_code == 401
        api.stop_api()
        shutil.rmtree(home / "store")
        api.start_api()
        assert api.get("/transcribes").status_code == 401, "the service's home remembers"
    (home / keyring.HOME_MARK).unlink()
    keys.make(store, "bob")
    shutil.rmtree(home / "store" / "records")
    with beside(live_api, home) as api:
        assert api.get("/transcribes").status_code == 401, "and so does the store"
    with beside(live_api, home, STENO_API__REQUIRE_KEYS="false") as api:
        assert api.get("/transcribes").status_code == 200, "unless the operator says otherwise"
        assert api.get("/transcribes", headers={"X-Forwarded-For": "203.0.113.9"}).status_code == 401


def test_beyond_loopback_keys_are_required_at_every_request(live_api: LiveApi, tmp_path: Path) -> None:
    home = tmp_path / "home"
    keys.make(Store(str(home / "store"), home / "scratch"), "alice")
    with beside(live_api, home, STENO_API__HOST="0.0.0.0") as api:
        shutil.rmtree(home / "store")
        (home / keyring.HOME_MARK).unlink(missing_ok=True)
        for _ in range(3):
            assert api.get("/transcribes").status_code == 401
            time.sleep(1)


# -- what callers may name ----------------------------------------------------------------------------------------------

FOREIGN_MODELS = (
    "evil/repo",
    "Systran/faster-whisper-base",
    "/etc",
    "../x",
    "./folder",
    "~/.ssh",
    "folder/",
    "hf://evil/repo",
    "https://evil.example/model",
    "base\u0000/etc",
    "BASE",
    " base",
    "community-1",
    "*",
)


@pytest.mark.parametrize("model", FOREIGN_MODELS)
def test_a_model_that_is_not_published_is_refused_at_every_door(live_api: LiveApi, ended_job: str, model: str) -> None:
    before = live_api.get("/transcribes").json()["jobs"]
    url = live_api.recording()
    for answer in (
        live_api.post("/transcribes", json={"audio_url": url, "model": model}),
        live_api.post("/transcribes", files=FORM, data={"model": model}),
        live_api.post(f"/transcribes/{ended_job}/retry", json={"from": "asr", "model": model}),
        live_api.post("/transcribes", json={"audio_chunk": CHUNK, "model": model}),
    ):
        assert answer.status_code == 422, answer.text
    for path in ("transcriptions", "translations"):
        answer = live_api.post(f"/v1/audio/{path}", files=FORM, data={"model": model})
        assert answer.status_code in (400, 404), answer.text
    assert live_api.get("/transcribes").json()["jobs"] == before


def test_the_refusal_says_which_models_there_are_and_which_setting_adds_one(live_api: LiveApi) -> None:
    answer = live_api.post("/transcribes", json={"audio_url": "https://example.org/a.wav", "model": "evil/repo"})
    assert answer.json()["code"] == "unknown_model" and answer.json()["errors"][0]["field"] == "model"
    assert "`large-v3`" in answer.json()["detail"] and "STENO_API__MODELS" in answer.json()["detail"]


def test_a_model_that_the_operator_adds_may_be_named(allowing_api: LiveApi) -> None:
    answer = allowing_api.post("/transcribes", json={"audio_url": allowing_api.recording(), "model": "acme/whisper-ct2"})
    assert answer.status_code == 202, answer.text
    allowing_api.request("DELETE", f"/transcribes/{answer.json()['job_id']}")
    assert "acme/whisper-ct2" in [model["id"] for model in allowing_api.get("/v1/models").json()["data"]]
    other = allowing_api.post("/transcribes", json={"audio_url": "https://example.org/a", "model": "acme/other"})
    assert other.status_code == 422


@pytest.mark.parametrize(
    "url", ["s3://bucket/a.wav", "S3://bucket/a.wav", "s3a://b/a", "gs://b/a", "gcs://b/a", "az://b/a", "memory://a"]
)
def test_no_bucket_may_be_named_that_is_not_listed(live_api: LiveApi, url: str) -> None:
    answer = live_api.post("/transcribes", json={"audio_url": url})
    assert (answer.status_code, answer.json()["code"]) == (422, "audio_url_refused")


# -- what does not fit --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "created_before=9999-12-31T23:59:59-23:59",
        "created_after=9999-12-31T23:59:59.999999-00:01",
        "created_after=0001-01-01T00:00:00%2B23:59",
        "created_before=0001-01-01T00:00:00%2B00:01",
        "created_before=10000-01-01T00:00:00Z",
        "created_before=2026-02-30",
        "created_before=2026-01-01T00:00:00%2B99:99",
        f"limit={10**30}",
        "limit=1e2",
        "limit=nan",
        f"cursor={'W' * 3000}",
        "cursor=WyI5OTk5LTEyLTMxVDIzOjU5OjU5LTIzOjU5IixbXV0",
        "cursor=WyIwMDAxLTAxLTAxVDAwOjAwOjAwKzIzOjU5IixbXV0",
    ],
)
@pytest.mark.parametrize("path", ["/transcribes", "/webhooks"])
def test_a_number_or_time_that_overflows_is_the_callers_mistake(live_api: LiveApi, path: str, query: str) -> None:
    if path == "/webhooks" and query.startswith("created"):
        query = query.replace("created", "status=pending&limit=0&created")
    answer = live_api.get(f"{path}?{query}")
    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize(
    "query",
    [
        "created_before=9999-12-31T23:59:59.999999Z",
        "created_after=0001-01-01T00:00:00Z",
        "created_after=0001-01-01",
        "created_after=9999-12-31",
        "created_before=1970-01-01T00:00:00-23:59",
    ],
)
def test_the_first_and_the_last_moment_are_times(live_api: LiveApi, query: str) -> None:
    answer = live_api.get(f"/transcribes?{query}")
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("wait", ["nan", "inf", "-1", "1e400", "3601", "9" * 400])
def test_a_wait_that_is_no_number_of_seconds_is_refused(live_api: LiveApi, wait: str) -> None:
    assert live_api.get(f"/transcribes/8f0f5c6e-0000-4000-8000-000000000000?wait={wait}").status_code == 422


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5",
        b"HTTP/1.1\r\nContent-Length: 5\r\nTransfer_Encoding: chunked",
        b"HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent_Length: 5",
        b"HTTP/1.0\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1\r\nTransfer-Encoding: chunked, identity",
        b"HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6",
    ],
)
def test_a_request_that_hides_another_is_refused_and_nothing_after_it_is_read(live_api: LiveApi, head: bytes) -> None:
    hidden = b"0\r\n\r\nGET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    sent = b"POST /transcribes " + head + b"\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\r\n" + hidden
    host, _, port = live_api.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(sent)
        received = b""
        while piece := connection.recv(65_536):
            received += piece
    assert received.startswith(b"HTTP/1.1 400 ") and received.count(b"HTTP/1.1 ") == 1, received


def test_the_documentation_loads_nothing_and_runs_nothing(live_api: LiveApi) -> None:
    answer = live_api.get("/docs")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src" not in policy and "unsafe" not in policy
    assert "<script" not in answer.text and "src=" not in answer.text and "//cdn" not in answer.text
    assert all(link.startswith(("#", "/")) for link in re.findall(r'href="([^"]*)"', answer.text))
    for path in ("/transcribes/{job_id}/events", "/v1/audio/transcriptions", "JobRequest", "audio_url"):
        assert path in answer.text
    assert live_api.get("/redoc").status_code == 404


# -- owners -------------------------------------------------------------------------------------------------------------


def test_the_keys_of_an_owner_see_its_jobs_and_a_rotated_key_keeps_them(guarded_api: GuardedApi) -> None:
    live = guarded_api.live
    first = keys.make(guarded_api.store, "acme-1", owner="acme")
    second = keys.make(guarded_api.store, "acme-2", owner="acme")

    def headers(secret: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {secret}"}

    until(live, 200, **headers(second.secret))
    job = live.submit({"audio_url": guarded_api.server.url("good.wav")}, headers=headers(first.secret))

    def sees(secret: str) -> None:
        until(live, 200, **headers(secret))
        assert live.get(f"/transcribes/{job}", headers=headers(secret)).status_code == 200
        assert [one["job_id"] for one in live.get("/transcribes", headers=headers(secret)).json()["jobs"]] == [job]

    sees(first.secret)
    sees(second.secret)
    sees(keys.rotate(guarded_api.store, "acme-1").secret)
    until(live, 401, **headers(first.secret))
    assert live.get(f"/transcribes/{job}").status_code == 404, "another owner's key"
    keys.revoke(guarded_api.store, "acme-2")
    again = keys.make(guarded_api.store, "acme-2")
    until(live, 200, **headers(again.secret))
    assert live.get(f"/transcribes/{job}", headers=headers(again.secret)).status_code == 200


def test_the_job_of_another_owner_cannot_be_told_from_none(guarded_api: GuardedApi) -> None:
    live = guarded_api.live
    job = live.submit({"audio_url": guarded_api.server.url("good.wav")})
    other = {"Authorization": f"Bearer {guarded_api.other}"}
    none = "8f0f5c6e-0000-4000-8000-000000000000"
    for method, path in (("GET", ""), ("GET", "/events"), ("GET", ".txt"), ("POST", "/retry"), ("DELETE", "")):
        answers = [live.request(method, f"/transcribes/{one}{path}", headers=other) for one in (job, none)]
        facts = [(answer.status_code, answer.json()["detail"], answer.json()["code"]) for answer in answers]
        assert facts[0] == facts[1] and facts[0][0] == 404
    httpx.delete(f"{live.url}/transcribes/{job}", headers=live.headers, trust_env=False)


def test_the_numbers_of_all_owners_are_for_keys_that_were_made_for_them(guarded_api: GuardedApi) -> None:
    live = guarded_api.live
    refused = live.get("/metrics", headers={"Authorization": f"Bearer {guarded_api.other}"})
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden"), refused.text
    assert "steno keys make" in refused.json()["detail"]
    made = keys.make(guarded_api.store, "prometheus", metrics=True)
    until(live, 200, Authorization=f"Bearer {made.secret}")
    shown = live.get("/metrics", headers={"Authorization": f"Bearer {made.secret}"})
    assert shown.status_code == 200 and "steno_api_requests_total" in shown.text


def test_that_another_owner_sent_the_same_recording_does_not_show(guarded_api: GuardedApi) -> None:
    live = guarded_api.live
    other = {"Authorization": f"Bearer {guarded_api.other}"}
    recording = live.file(seconds=0.4)

    def sent(headers: dict[str, str]) -> dict[str, Any]:
        answer = live.post("/transcribes", files={"file": recording.open("rb")}, headers=headers)
        assert answer.status_code == 202, answer.text
        end = time.monotonic() + 120
        while (job := live.job(answer.json()["job_id"], headers=headers))["status"] not in ("completed", "failed"):
            assert time.monotonic() < end, job
            time.sleep(0.3)
        return job

    def told(job: dict[str, Any]) -> dict[str, tuple[str, int]]:
        return {stage["stage"]: (stage["state"], stage["attempts"]) for stage in job["stages"]}

    first, others, again = sent({}), sent(other), sent({})
    assert first["status"] == others["status"] == again["status"] == "completed"
    assert told(others) == told(first) and "cached" not in json.dumps(others)
    assert others["cost"] == first["cost"]
    assert told(again)["asr"] == ("cached", 0), "one's own does"


def test_one_owner_holds_no_more_than_its_share(live_api: LiveApi, tmp_path: Path) -> None:
    live_api.deployed.plan(seconds={"asr": 600})
    size = live_api.file().stat().st_size
    caps = {"STREAMS": "2", "WAITS": "2", "STORED_BYTES": str(3 * size + size // 2), "RATE": "40", "MAX_WAIT": "20"}
    with beside(live_api, tmp_path / "home", **{f"STENO_API__{name}": value for name, value in caps.items()}) as api:
        jobs = [api.upload(live_api.file()) for _ in range(3)]
        with live_api.file().open("rb") as file:
            answer = api.post("/transcribes", files={"file": ("one-more.wav", file)})
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_bytes"), answer.text

        with contextlib.ExitStack() as open_calls:
            client = open_calls.enter_context(httpx.Client(base_url=api.url, trust_env=False, timeout=30))
            lines = []  # httpx closes a stream whose iterator is gone
            for _ in range(2):
                stream = open_calls.enter_context(client.stream("GET", f"/transcribes/{jobs[0]}/events"))
                lines.append(stream.iter_lines())
                assert next(lines[-1]).startswith("retry:")
            with client.stream("GET", f"/transcribes/{jobs[0]}/events") as refused:
                assert refused.status_code == 429
                assert json.loads(refused.read())["code"] == "too_many_open"
        end = time.monotonic() + 10
        while not _streams(api, jobs[0]):
            assert time.monotonic() < end, "closed streams count no more"
            time.sleep(0.5)

        with ThreadPoolExecutor() as pool:
            waiting = [pool.submit(api.get, f"/transcribes/{jobs[0]}", params={"wait": 15}) for _ in range(3)]
            statuses = sorted(call.result().status_code for call in waiting)
        assert statuses == [200, 200, 429]

        with ThreadPoolExecutor(8) as pool:
            polled = list(pool.map(lambda _: api.get("/transcribes").status_code, range(80)))
        assert 429 in polled
        for job in jobs:
            assert api.request("DELETE", f"/transcribes/{job}").status_code == 200, "who polls too much can still delete"


def _streams(api: LiveApi, job: str) -> bool:
    with (
        httpx.Client(base_url=api.url, trust_env=False) as client,
        client.stream("GET", f"/transcribes/{job}/events") as stream,
    ):
        return stream.status_code == 200
