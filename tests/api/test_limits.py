"""What one caller may ask for, what a body may be, what is logged and counted, and which URLs pass the door."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from api import guard, logs, observe, problems
from api.auth import ANYBODY, Caller
from api.ceiling import Ceiling
from api.errors import TooMany, Unprocessable
from api.keys import KeyLimits
from api.limits import Limits, max_upload_bytes
from infra.api_settings import ApiSettings
from infra.settings import StenoSettings, get_settings

ALICE, BOB = Caller("a" * 12, "alice"), Caller("b" * 12, "bob")


pytestmark = pytest.mark.usefixtures("steno")


@pytest.fixture
def limits() -> Limits:
    return Limits()


def configure(monkeypatch: pytest.MonkeyPatch, **values: Any) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"STENO_{name.upper()}", value if isinstance(value, str) else json.dumps(value))
    get_settings.cache_clear()


async def none_pending() -> int:
    return 0


async def granted(limits: Limits, caller: Caller, times: int) -> int:
    """How many of so many requests at once are allowed."""
    count = 0
    for _ in range(times):
        try:
            await limits.may_request(caller)
            count += 1
        except TooMany:
            pass
    return count


# -- rates and pending jobs ---------------------------------------------------------------------------------------------


async def test_each_caller_has_a_rate_of_its_own(limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, api__rate=5)
    assert await granted(limits, ALICE, 20) == 5
    assert await granted(limits, BOB, 20) == 5


async def test_a_key_may_have_another_rate(limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, api__rate=5)
    assert await granted(limits, Caller("c" * 12, "carol", KeyLimits(rate=9)), 20) == 9


async def test_the_keys_of_an_owner_share_what_the_service_allows(limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, api__rate=5)
    first, second = (Caller(letter * 12, letter, owner="acme") for letter in "gh")
    assert await granted(limits, first, 3) + await granted(limits, second, 20) == 5
    limited = Caller("i" * 12, "i", KeyLimits(rate=2), owner="acme")
    assert await granted(limits, limited, 20) == 2, "a limit of its own is the key's alone"
    assert await granted(limits, first, 20) == 0, "and fills nobody else's"


async def test_polling_at_the_limit_leaves_room_to_delete(limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, api__rate=5)
    await granted(limits, ALICE, 20)
    for _ in range(5):
        await limits.may_request(ALICE, writes=True)
    with pytest.raises(TooMany):
        await limits.may_request(ALICE, writes=True)


async def test_who_is_refused_is_told_when_to_come_back(limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, api__rate=6)
    await granted(limits, ALICE, 6)
    with pytest.raises(TooMany) as refused:
        await limits.may_request(ALICE)
    assert refused.value.retry_after is not None
    assert 5 < refused.value.retry_after <= 10


async def test_a_rate_fills_up_again(limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, api__rate=1200)
    await granted(limits, ALICE, 1300)
    await asyncio.sleep(0.2)
    assert await granted(limits, ALICE, 1) == 1


async def test_submissions_have_a_rate_of_their_own(limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, api__rate_submit=2)
    for _ in range(2):
        await limits.may_submit(ALICE, none_pending)
    with pytest.raises(TooMany, match="new jobs"):
        await limits.may_submit(ALICE, none_pending)
    await limits.may_submit(BOB, none_pending)


async def test_no_more_jobs_are_pending_than_allowed(limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, api__pending_jobs=3)
    jobs: list[int] = []

    async def pending() -> int:
        return len(jobs)

    async def submit() -> None:
        await limits.may_submit(ALICE, pending)
        jobs.append(1)

    for _ in range(3):
        await submit()
    with pytest.raises(TooMany) as refused:
        await submit()
    assert refused.value.problem_code == "too_many_pending_jobs" and refused.value.retry_after
    jobs.pop()
    await submit()
    small = Caller("d" * 12, "dave", KeyLimits(pending_jobs=1))
    with pytest.raises(TooMany, match="limit of 1 pending jobs"):
        await limits.may_submit(small, pending)


async def test_uploads_are_limited_by_key_and_by_service(monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, api__max_upload_bytes=1000)
    assert max_upload_bytes(ANYBODY) == 1000
    assert max_upload_bytes(Caller("e" * 12, "eve", KeyLimits(max_upload_bytes=10))) == 10
    assert max_upload_bytes(Caller("f" * 12, "finn", KeyLimits(max_upload_bytes=10**9))) == 1000


# -- bodies -------------------------------------------------------------------------------------------------------------


def careless() -> FastAPI:
    """An application that reads whatever comes, and takes every error for a bad request."""
    app = FastAPI()
    problems.install(app)

    @app.post("/")
    async def read(request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    app.add_middleware(Ceiling, settings=ApiSettings(max_upload_bytes=900, max_body_bytes=100, body_timeout=0.3))
    return app


async def post(app: FastAPI, content: Any, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api", timeout=10) as client:
        return await client.post("/", content=content, headers=headers)


async def pieces(piece: bytes, times: int, pause: float = 0.0) -> AsyncIterator[bytes]:
    for _ in range(times):
        yield piece
        await asyncio.sleep(pause)


async def test_a_ceiling_holds_whatever_a_route_does() -> None:
    app = careless()
    assert (await post(app, b"x" * 1000)).json() == {"bytes": 1000}
    for content, headers, status in (
        (b"x" * 1001, {}, 413),
        (pieces(b"x" * 100, 1000), {}, 413),
        (b"x", {"Content-Length": "9" * 18}, 413),
        (pieces(b"x", 20, 0.1), {}, 408),
        (pieces(b"x", 2, 5), {}, 408),
    ):
        answer = await post(app, content, **headers)
        assert answer.status_code == status
        assert answer.json()["error"] == answer.json()["detail"]
        assert answer.headers["connection"] == "close"


# -- what is seen -------------------------------------------------------------------------------------------------------


def observed(steno: StenoSettings) -> FastAPI:
    app = FastAPI()
    app.state.settings = steno
    problems.install(app)

    @app.get("/jobs/{job_id}")
    async def job(job_id: str) -> dict[str, str]:
        if job_id == "broken":
            raise RuntimeError(f"cannot use https://u:p@host/x?token={job_id} of sk-steno-{'a' * 12}-{'b' * 43}")
        return {"id": job_id}

    observe.instrument(app)
    return app


async def get(app: FastAPI, path: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as client:
        return await client.get(path, headers=headers)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the service logs."""
    root, api, uvicorn = (logging.getLogger(name) for name in (None, "api", "uvicorn"))
    before = [(logger, logger.handlers[:], logger.level) for logger in (root, api, uvicorn)]
    stream = io.StringIO()
    logs.configure(stream)
    yield stream
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)


async def test_a_request_has_an_id_that_is_logged_and_given_back(steno: StenoSettings, lines: io.StringIO) -> None:
    app = observed(steno)
    answer = await get(app, "/jobs/7?token=secret", **{"X-Request-ID": "mine-1"})
    assert answer.headers["X-Request-ID"] == "mine-1"
    line = json.loads(lines.getvalue().splitlines()[-1])
    assert (line["request_id"], line["route"], line["method"], line["status"]) == ("mine-1", "/jobs/{job_id}", "GET", 200)
    assert "secret" not in lines.getvalue() and "/jobs/7" not in lines.getvalue()


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a\tb", '"><script>', "../x", "ä"])
async def test_an_insane_request_id_is_replaced(steno: StenoSettings, given: str) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(observed(steno)), base_url="http://api") as client:
        answer = await client.get("/jobs/7", headers=[(b"X-Request-ID", given.encode())])
    assert answer.headers["X-Request-ID"].isalnum() and len(answer.headers["X-Request-ID"]) == 32


async def test_an_error_nobody_foresaw_shows_nothing_of_itself(steno: StenoSettings, lines: io.StringIO) -> None:
    answer = await get(observed(steno), "/jobs/broken")
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal" and answer.json()["request_id"] == answer.headers["X-Request-ID"]
    for text in (answer.text, lines.getvalue()):
        assert "token" not in text and "b" * 43 not in text and "Traceback" not in text
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [line["error"] for line in told if line["level"] == "error"] == ["RuntimeError"]
    assert any("test_limits.py" in frame for line in told for frame in line.get("at", ()))


async def test_metrics_have_no_label_that_callers_can_invent(steno: StenoSettings) -> None:
    from prometheus_client import generate_latest

    from api.metrics import REGISTRY

    app = observed(steno)
    for number in range(5):
        await get(app, f"/jobs/{number}-invented")
        await get(app, f"/{number}-invented")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as client:
        await client.request("INVENTED", "/jobs/1")
    text = generate_latest(REGISTRY).decode()
    assert "invented" not in text.lower()
    assert 'steno_api_requests_total{method="GET",route="/jobs/{job_id}",status="200"}' in text
    assert 'route="(none)",status="404"' in text and 'method="OTHER"' in text
    assert "steno_api_request_seconds_bucket" in text


def test_secrets_are_kept_out_of_log_lines() -> None:
    text = logs.redacted(f"GET https://user:pw@host/a.wav?sig=s3cr3t with sk-steno-{'a' * 12}-{'b' * 43} failed")
    assert text == f"GET https://…@host/a.wav?… with sk-steno-{'a' * 12}-… failed"


# -- which URLs pass ----------------------------------------------------------------------------------------------------


async def refused(url: str) -> bool:
    try:
        await guard.check_audio_url(url)
    except Unprocessable:
        return True
    return False


async def test_honest_urls_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, api__s3_sources=["bucket"])
    for url in ("https://93.184.216.34/talk.mp3?sig=a%20b", "http://[2606:2800:220:1::1]:8080/x", "s3://bucket/a/b.wav"):
        assert not await refused(url), url


async def test_the_services_own_store_is_not_read_for_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, store="s3://shared/steno", api__s3_sources=["shared"])
    for url in ("s3://shared/steno/artifacts/audio/aa/x.flac", "s3://shared//steno/records/api-keys/x", "S3://shared/steno/x"):
        assert await refused(url), url
    assert not await refused("s3://shared/stenographers/talk.wav")


async def test_no_bucket_is_read_unless_it_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("s3://bucket/a.wav", "S3://bucket/a.wav", "s3a://bucket/a.wav", "gs://bucket/a.wav", "az://box/a.wav"):
        with pytest.raises(Unprocessable, match="STENO_API__S3_SOURCES" if url[:3].lower() == "s3:" else "s3 URL"):
            await guard.check_audio_url(url)
    configure(monkeypatch, store="s3://own/steno", api__s3_sources=["*"])
    assert not await refused("s3://bucket/a.wav") and await refused("s3://own/steno/uploads/aa/x.wav")
    configure(monkeypatch, store="s3://own/steno", api__s3_sources=["", "/", "s3://"])
    assert await refused("s3://bucket/a.wav")


async def test_only_the_buckets_that_are_listed_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, api__s3_sources=["calls", "shared/incoming"])
    assert not await refused("s3://calls/a.wav") and not await refused("s3://shared/incoming/a.wav")
    for url in ("s3://other/a.wav", "s3://shared/a.wav", "s3://shared/incoming-not/a.wav", "s3://shared/incoming/../a.wav"):
        assert await refused(url), url


async def test_an_operator_may_allow_a_private_host(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await refused("http://10.0.0.7/talk.wav")
    configure(monkeypatch, net__allow_hosts=["10.0.0.7"])
    assert not await refused("http://10.0.0.7/talk.wav")
    await guard.check_webhook_url("http://10.0.0.7/hook")
    with pytest.raises(Unprocessable, match="https"):
        await guard.check_webhook_url("http://93.184.216.34/hook")


async def test_where_a_host_leads_is_not_told() -> None:
    with pytest.raises(Unprocessable) as error:
        await guard.check_audio_url("http://10.0.0.7/talk.wav")
    assert "10.0" not in error.value.detail and "private" not in error.value.detail
