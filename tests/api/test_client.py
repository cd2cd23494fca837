"""The client: when it asks again, what it makes of answers, and jobs from a file to a transcript against a served API."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import subprocess
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import stenoflow.client
from api import schemas
from api.npy import decoded
from stenoflow import client
from stenoflow.client import (
    AsyncStenoClient,
    ClientError,
    JobDeleted,
    JobFailed,
    KeyRefused,
    LimitReached,
    Progress,
    RequestRefused,
    ServiceBroken,
    ServiceUnavailable,
    StenoClient,
    WaitTimeout,
    errors,
    options,
    values,
)
from stenoflow.client.core import Core
from stenoflow.client.uploads import encoded_chunk
from tests import client_options
from tests.api.live import LiveApi
from tests.test_layering import drawn

ROOT = Path(__file__).parents[2]
ACCEPTED = {"job_id": "1", "status": "queued", "message": "The job is queued."}
JOB = {
    "job_id": "1",
    "status": "completed",
    "progress": 100,
    "message": "Completed.",
    "created_at": "2026-01-01T00:00:00Z",
    "updated_at": "2026-01-01T00:00:01Z",
}
Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses are taken note of, and not made."""
    pauses: list[float] = []
    pause = Core.pause

    def noted(self: Core, attempt: int, failure: ClientError) -> float:
        pauses.append(pause(self, attempt, failure))
        return 0.0 if pauses[-1] < 100 else pauses[-1]

    monkeypatch.setattr(Core, "pause", noted)
    return pauses


class Service:
    """Answers one request after the other as it is told, and keeps them."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.bodies: list[bytes] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.bodies.append(request.read())
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, **options: Any) -> StenoClient:
        return StenoClient("http://steno.test", "secret-key", transport=httpx.MockTransport(self), **options)


def ok(body: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, json=body)


def refusal(status: int, code: str, **headers: str) -> httpx.Response:
    body = {"title": "t", "status": status, "detail": f"Because of {code}.", "code": code, "error": "x", "request_id": "r-1"}
    return httpx.Response(status, json=body, headers={"content-type": "application/problem+json"} | headers)


# -- what it is ---------------------------------------------------------------------------------------------------------


def test_both_clients_offer_the_same() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert public(StenoClient) == public(AsyncStenoClient)
    assert public(stenoflow.client.ChunkSession) == public(stenoflow.client.AsyncChunkSession)


def test_options_are_those_of_the_service() -> None:
    assert client_options.PATH.read_text() == client_options.written(), "run `make options`"
    assert set(typing.get_type_hints(options.Options)) == set(schemas.JobOptions.model_fields) - {"name"}
    without = {"audio_url", "audio_chunk", "session_id", "final", "name"}
    assert set(typing.get_type_hints(values.JobFields)) == set(schemas.JobRequest.model_fields) - without
    assert set(typing.get_type_hints(options.Changes)) == set(schemas.RetryRequest.model_fields) - {"from_"}


def test_the_drawn_tree_of_its_errors_is_the_real_one() -> None:
    tree = drawn(errors)
    classes = {
        name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and kind.__module__ == errors.__name__
    }
    assert set(tree) - {"StenoError"} == set(classes)
    assert all(classes[name].__bases__[0].__name__ == parent for name, parent in tree.items() if parent)
    codes = [kind.code for kind in classes.values()]
    assert len(set(codes)) == len(codes)
    assert set(classes) <= set(client.__all__)


def test_the_key_is_sent_and_never_shown(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STENO_API_KEY", "key-of-the-environment")
    caplog.set_level(logging.DEBUG)
    service = Service(ok(JOB), refusal(401, "unauthenticated"))
    with StenoClient("http://steno.test/", transport=httpx.MockTransport(service)) as steno:
        steno.job("1")
        assert service.requests[0].headers["authorization"] == "Bearer key-of-the-environment"
        with pytest.raises(KeyRefused) as refused:
            steno.job("1")
        assert repr(steno) == "StenoClient('http://steno.test')"
        said = f"{steno!r} {vars(steno)!r} {refused.value!r} {caplog.text}"
    assert "key-of-the-environment" not in said


@pytest.mark.parametrize(
    ("url", "key"),
    [("steno.test", None), ("ftp://steno.test", None), ("http://", None), ("http://a:b@steno.test", None), (None, "a\nb")],
)
def test_what_is_no_address_or_no_key_is_refused_at_once(url: str | None, key: str | None) -> None:
    with pytest.raises(RequestRefused):
        StenoClient(url, key)


# -- again, and not again -----------------------------------------------------------------------------------------------


def test_a_submission_that_is_sent_again_is_the_same_one(tmp_path: Path, hasty: list[float]) -> None:
    (tmp_path / "talk.wav").write_bytes(b"RIFF" * 50_000)
    service = Service(
        httpx.ReadError("cut"),
        refusal(503, "orchestrator", **{"Retry-After": "3"}),
        refusal(429, "rate_limited", **{"Retry-After": "7"}),
        httpx.Response(502, text="<html>"),
        httpx.Response(202, json=ACCEPTED),
        httpx.Response(202, json=ACCEPTED),
    )
    with service.client() as steno:
        assert steno.submit(tmp_path / "talk.wav", diarize=True, tags=["a"], metadata={"k": "v"}).job_id == "1"
        steno.submit(tmp_path / "talk.wav")
    keys = [request.headers["idempotency-key"] for request in service.requests]
    assert len(set(keys[:5])) == 1 and keys[5] != keys[4]
    assert all(b"RIFF" * 50_000 in body for body in service.bodies)
    assert all(field in service.bodies[4] for field in (b'filename="talk.wav"', b'{"k": "v"}', b"true"))
    assert hasty[0] <= 1 and 3 <= hasty[1] < 4 and 7 <= hasty[2] < 8 and hasty[3] <= 8


def test_patience_ends() -> None:
    busy = refusal(429, "too_many_pending_jobs", **{"Retry-After": "1"})
    with Service(*[busy] * 3).client(patience=0) as steno, pytest.raises(LimitReached) as refused:
        steno.submit("https://example.org/a.mp3")
    assert (refused.value.reason, refused.value.retry_after, refused.value.status) == ("too_many_pending_jobs", 1.0, 429)
    for_an_hour = refusal(429, "rate_limited", **{"Retry-After": "3600"})
    with Service(for_an_hour).client(patience=1000) as steno, pytest.raises(LimitReached):
        steno.job("1")
    down = httpx.ConnectError("refused http://user:secret@steno.test")
    with Service(*[down] * 9).client(patience=0) as steno, pytest.raises(ServiceUnavailable) as away:
        steno.job("1")
    assert "secret" not in away.value.message and away.value.exit_code == 6


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (refusal(400, "bad_request"), RequestRefused, "bad_request"),
        (refusal(403, "forbidden"), KeyRefused, "forbidden"),
        (refusal(404, "job_not_found"), client.JobNotFound, "job_not_found"),
        (refusal(404, "job_deleted"), JobDeleted, "job_deleted"),
        (refusal(404, "not_found"), ServiceBroken, "not_found"),
        (refusal(409, "no_transcript"), client.JobConflict, "no_transcript"),
        (refusal(410, "result_expired"), client.ResultExpired, "result_expired"),
        (refusal(413, "too_large"), RequestRefused, "too_large"),
        (refusal(422, "invalid_request"), RequestRefused, "invalid_request"),
        (refusal(500, "internal"), ServiceBroken, "internal"),
        (httpx.Response(301, headers={"location": "https://elsewhere"}), ServiceBroken, "service_broken"),
        (httpx.Response(404, text="<html>not here</html>"), ServiceBroken, "service_broken"),
        (httpx.Response(200, text="<html>"), ServiceBroken, "service_broken"),
        (httpx.Response(200, json={"job_id": 1}), ServiceBroken, "service_broken"),
    ],
)
def test_each_refusal_is_an_error_of_its_own_and_final(answer: httpx.Response, kind: type[ClientError], reason: str) -> None:
    service = Service(answer)
    with service.client() as steno, pytest.raises(ClientError) as refused:
        steno.job("1")
    assert (type(refused.value), refused.value.reason) == (kind, reason)
    assert refused.value.message.endswith((".", "?")) and "<" not in refused.value.message
    assert not service.answers and len(service.requests) == 1


def test_deleting_and_retrying_again_after_a_lost_answer_succeed() -> None:
    with Service(httpx.ReadTimeout("lost"), refusal(404, "job_deleted")).client() as steno:
        assert steno.delete("1").job_id == "1"
    with Service(refusal(404, "job_deleted")).client() as steno, pytest.raises(JobDeleted):
        steno.delete("1")
    with Service(httpx.ReadTimeout("lost"), refusal(409, "run_under_way"), ok({**JOB, "status": "queued"})).client() as steno:
        assert steno.retry("1").status == "queued"


def test_a_chunk_of_a_session_is_never_heard_twice() -> None:
    chunk = {"session_id": "s", "language": "en", "segments": [], "word_segments": []}
    for lost in (httpx.ReadTimeout("lost"), httpx.Response(504)):
        service = Service(lost, ok(chunk))
        with service.client() as steno, pytest.raises(ServiceUnavailable):
            steno.session("s").send(np.zeros(4, np.float32))
    service = Service(refusal(503, "busy"), httpx.ConnectError("down"), ok(chunk), httpx.ReadError("lost"), ok(chunk))
    with service.client() as steno:
        steno.session("s", diarize=True).send(np.zeros(4, np.float32))
        steno.chunk(np.zeros(4, np.float32))
    body = json.loads(service.bodies[2])
    assert body["session_id"] == "s" and body["diarize"] is True


# -- what is sent -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [np.arange(8, dtype=np.float32), np.arange(8, dtype=np.float32).reshape(8, 1)[::2]])
def test_chunks_are_sent_as_numpy_writes_them(samples: np.ndarray) -> None:
    for given in (samples, samples.tobytes()):
        sent = np.load(io.BytesIO(decoded(encoded_chunk(given), 60)), allow_pickle=False)
        assert sent.dtype == np.float32 and sent.tolist() == samples.reshape(-1).tolist()


@pytest.mark.parametrize("samples", [np.zeros(4), np.zeros((2, 4), np.float32), b"abc", [0.1, 0.2], np.zeros(4, np.int16)])
def test_what_is_no_chunk_is_refused_before_it_is_sent(samples: Any) -> None:
    with pytest.raises(RequestRefused):
        encoded_chunk(samples)


@pytest.mark.parametrize("source", ["/nowhere/talk.wav", "/"])
def test_what_is_no_file_is_refused_before_it_is_sent(source: str) -> None:
    with Service().client() as steno, pytest.raises(RequestRefused):
        steno.submit(source)


def test_a_pipe_is_sent_once_as_it_comes() -> None:
    service = Service(httpx.Response(202, json=ACCEPTED), httpx.ReadError("cut"))
    with service.client() as steno:
        for _ in range(2):
            with subprocess.Popen(["printf", "some sound"], stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                expected = pytest.raises(ServiceUnavailable) if _ else contextlib.nullcontext()
                with expected:
                    steno.submit(process.stdout, name="piped.wav")
    assert b"some sound" in service.bodies[0] and b'filename="piped.wav"' in service.bodies[0]


# -- waiting ------------------------------------------------------------------------------------------------------------


def events(*lines: str) -> httpx.Response:
    return httpx.Response(200, text="\n".join(lines) + "\n", headers={"content-type": "text/event-stream"})


def test_waiting_follows_events_and_asks_where_there_are_none() -> None:
    streamed = events(
        ": waiting",
        'event: stage\ndata: {"stage": "asr",\ndata:  "state": "running"}\n',
        'event: progress\ndata: {"progress": 40, "message": "asr"}\n',
    )
    service = Service(
        streamed,  # and ends in the middle
        ok({**JOB, "status": "processing", "progress": 60}),
        httpx.Response(503),
        ok({**JOB, "status": "processing", "progress": 70}),
        httpx.Response(200, text="no stream"),
        ok({**JOB, "status": "processing", "progress": 80}),
        ok(JOB),
    )
    told: list[Progress] = []
    with service.client() as steno:
        assert steno.wait("1", on_progress=told.append).status == "completed"
    assert [now.percent for now in told] == [0, 40, 60, 70, 80, 100]
    assert told[1].stages["asr"].state == "running"
    assert "wait" not in service.requests[1].url.params and "wait" in service.requests[-1].url.params


def test_waiting_ends_when_its_time_is_over() -> None:
    service = Service(httpx.Response(404), ok({**JOB, "status": "queued"}))
    with service.client() as steno, pytest.raises(WaitTimeout):
        steno.wait("1", timeout=0)


def test_a_failed_job_is_an_error_with_the_exit_code_of_its_cause() -> None:
    failed = {**JOB, "status": "failed", "error": "There is no file.", "error_code": "source_not_found"}
    service = Service(httpx.Response(202, json=ACCEPTED), events('event: failed\ndata: {"job_id": "1"}\n'), ok(failed))
    with service.client() as steno, pytest.raises(JobFailed) as ended:
        steno.transcribe("https://example.org/none.mp3")
    assert ended.value.job.status == "failed" and errors.exit_code(ended.value) == 3


async def test_awaited_waiting_can_be_cancelled_and_awaits_its_listener() -> None:
    told: list[float] = []

    async def listener(now: Progress) -> None:
        await asyncio.sleep(0)
        told.append(now.percent)

    service = Service(events('event: progress\ndata: {"progress": 40}\n'), ok(JOB))
    async with AsyncStenoClient("http://steno.test", transport=httpx.MockTransport(service)) as steno:
        assert (await steno.wait("1", on_progress=listener)).status == "completed"
        assert told == [40, 100]
        stuck = AsyncStenoClient("http://steno.test", transport=httpx.MockTransport(lambda _: asyncio.sleep(60)))  # type: ignore[arg-type,return-value]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await stuck.wait("1")


# -- against a served API; the guide and the contract are tested with the other client -----------------------------------


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_file_becomes_a_transcript_although_the_api_is_killed_meanwhile(live_api: LiveApi, tmp_path: Path) -> None:
    live_api.deployed.plan(seconds={"asr": 4.0})
    told: list[Progress] = []
    async with AsyncStenoClient(live_api.url) as steno:
        with live_api.file("Gespräch.wav", seconds=2.5).open("rb") as file:
            job = await steno.submit(file, name="Gespräch.wav", align=False, tags=["killed"], metadata={"order": "7"})
        waiting = asyncio.create_task(steno.wait(job, timeout=400, on_progress=told.append))
        await asyncio.to_thread(live_api.until, job.job_id, {"processing"})
        await asyncio.to_thread(live_api.kill_api)
        await asyncio.sleep(1)
        await asyncio.to_thread(live_api.start_api)
        ended = await waiting
        assert ended.status == "completed" and (ended.name, ended.metadata) == ("Gespräch.wav", {"order": "7"})
        assert told[-1].percent == 100 and told[-1].stages["asr"].state == "computed"
        assert [event.name async for event in steno.events(job)][-1] == "completed"
        assert (await steno.transcript(job)).word_segments == ()
        assert await steno.save(job, tmp_path / "out" / "talk.txt") == [tmp_path / "out" / "talk.txt"]
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["talk.txt"]
        assert [found.job_id async for found in steno.jobs(tag="killed", status="completed")] == [job.job_id]
        await steno.delete(job)
        with pytest.raises(JobDeleted):
            await steno.job(job)
