"""Chunks of audio at the API's door: what is taken, what a session keeps, and what happens when its worker dies."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI

from api import npy, problems
from api.auth import ANYBODY, Caller
from api.chunks import Chunks
from api.dependencies import current_caller, jobs_of
from api.errors import ApiError, TooLarge, Unavailable, Unprocessable
from api.limits import Limits
from api.routes import submit
from api.schemas import JobRequest
from api.sessions import Sessions
from infra.api_settings import ApiSettings
from infra.settings import StenoSettings
from stenoflow.jobs import ChunkResult
from tests import media

RATE = 16_000
PIECE = 5 * RATE


def encoded(samples: np.ndarray) -> str:
    """As callers send it."""
    out = io.BytesIO()
    np.save(out, samples)
    return base64.b64encode(out.getvalue()).decode()


def raw(header: str, data: bytes = b"", magic: bytes = b"\x93NUMPY\x01\x00", length: int | None = None) -> str:
    """A file whose header says whatever it likes."""
    text = header.encode("latin-1")
    size = len(text) if length is None else length
    return base64.b64encode(magic + size.to_bytes(2, "little") + text + data).decode()


def described(descr: str = "'<f4'", order: str = "False", shape: str = "(4,)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


SILENCE = np.zeros(4, dtype=np.float32)


# -- the array ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "samples",
    [
        SILENCE,
        SILENCE[:0],
        SILENCE.astype(">f4"),
        SILENCE.reshape(1, -1),
        SILENCE.reshape(-1, 1),
        np.asfortranarray(SILENCE),
        SILENCE.astype(np.float64),
        SILENCE.astype(">f8"),
        SILENCE.astype(np.int16),
        SILENCE.astype(">i2"),
    ],
)
def test_one_channel_of_floats_or_of_16_bit_integers_is_taken(samples: np.ndarray) -> None:
    data = npy.decoded(encoded(samples), 60.0)
    assert np.load(io.BytesIO(data), allow_pickle=False).size == samples.size


def test_base64_may_be_broken_into_lines() -> None:
    assert npy.decoded(base64.encodebytes(base64.b64decode(encoded(np.zeros(500, np.float32)))).decode(), 60.0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no base64!",
        "AAAA",
        encoded(SILENCE)[:-7],
        encoded(SILENCE.astype(np.float16)),
        encoded(SILENCE.astype(np.int32)),
        encoded(SILENCE.astype(np.complex64)),
        encoded(np.full(4, np.nan)),
        encoded(np.zeros((2, 4), np.float32)),
        encoded(np.float32(1.0)),
        encoded(np.asarray(["a", None], dtype=object)),
        encoded(np.zeros(4, dtype=[("a", "<f4")])),
        raw(described(shape="(400000000,)"), bytes(16)),
        raw(described(shape="(3,)"), bytes(16)),
        raw(described(shape="(-4,)"), bytes(16)),
        raw(described(shape="(4.0,)"), bytes(16)),
        raw(described(shape="(True, 4)"), bytes(16)),
        raw(described(shape="4"), bytes(16)),
        raw(described(shape="(99999999999999999999999999,)"), bytes(16)),
        raw(described(descr="'|O'"), bytes(16)),
        raw(described(descr="[('a', '<f4')]"), bytes(16)),
        raw(described(shape="__import__('os').getpid()"), bytes(16)),
        raw("{" + "(" * 900 + ")" * 900, bytes(16)),
        raw("{'descr': '<f4'}", bytes(16)),
        raw("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), 'more': 1}", bytes(16)),
        raw("[]", bytes(16)),
        raw("", bytes(16)),
        raw(described(), bytes(16), length=60_000),
        raw(described(), bytes(16), magic=b"\x93NUMPY\x09\x00"),
        raw(described(), bytes(16), magic=b"PK\x03\x04\x00\x00\x00\x00"),
    ],
)
def test_what_is_no_such_array_is_refused(text: str) -> None:
    with pytest.raises(ApiError) as refused:
        npy.decoded(text, 60.0)
    assert refused.value.status in (413, 422)
    assert refused.value.detail.startswith("audio_chunk: ")


def test_a_chunk_may_be_as_long_as_the_settings_say_and_no_longer() -> None:
    assert npy.decoded(encoded(np.zeros(RATE, np.float32)), 1.0)
    for samples in (RATE + 1, 4 * RATE):
        with pytest.raises(TooLarge, match="longer than the limit of 1 s"):
            npy.decoded(encoded(np.zeros(samples, np.float32)), 1.0)


@pytest.mark.parametrize("kind", ["<f4", ">f8", "<i2", ">i2"])
def test_a_long_chunk_is_cut_where_it_is_quiet(kind: str) -> None:
    samples = np.random.default_rng(0).uniform(-1000, 1000, 130 * RATE).astype(kind)
    pauses = [int(50.2 * RATE), int(107.3 * RATE)]
    for pause in pauses:
        samples[pause : pause + RATE // 2] = 0
    cut = [np.load(io.BytesIO(piece), allow_pickle=False) for piece in npy.pieces(base64.b64decode(encoded(samples)))]
    assert np.array_equal(np.concatenate(cut), samples) and all(piece.dtype == samples.dtype for piece in cut)
    borders = np.cumsum([len(piece) for piece in cut])[:-1]
    assert all(pause < border < pause + RATE // 2 for border, pause in zip(borders, pauses, strict=True))
    assert max(len(piece) for piece in cut) <= 60 * RATE


def test_a_chunk_without_samples_is_one_piece_without_any() -> None:
    (piece,) = npy.pieces(base64.b64decode(encoded(SILENCE[:0])))
    assert np.load(io.BytesIO(piece), allow_pickle=False).shape == (0,)


# -- sessions -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    return Sessions(tmp_path / "sessions", limit=3, seconds=100.0)


def test_a_session_is_its_callers_own(sessions: Sessions) -> None:
    sessions.save("one", "talk", b"mine")
    assert sessions.load("one", "talk") == b"mine"
    assert sessions.load("two", "talk") == b""


def test_nobody_else_on_the_machine_can_read_a_session(sessions: Sessions, tmp_path: Path) -> None:
    sessions.save("one", "talk", b"mine")
    (file,) = (tmp_path / "sessions").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert "talk" not in file.name


def test_a_session_expires(sessions: Sessions, tmp_path: Path) -> None:
    sessions.save("one", "talk", b"mine")
    (file,) = (tmp_path / "sessions").iterdir()
    os.utime(file, (time.time() - 101, time.time() - 101))
    sessions.trim()
    assert not file.exists()
    assert sessions.load("one", "talk") == b""


def test_the_least_recently_used_session_of_who_has_most_gives_way(sessions: Sessions, tmp_path: Path) -> None:
    for age, (key, name) in enumerate([("modest", "only"), ("greedy", "1"), ("greedy", "2")]):
        sessions.save(key, name, b"state")
        newest = max((tmp_path / "sessions").iterdir(), key=lambda file: file.stat().st_mtime)
        os.utime(newest, (time.time() - 50 + age, time.time() - 50 + age))
    sessions.save("greedy", "3", b"state")
    kept = {(key, name) for key, name in [("modest", "only"), *(("greedy", n) for n in "123")] if sessions.load(key, name)}
    assert kept == {("modest", "only"), ("greedy", "2"), ("greedy", "3")}


# -- the worker ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as started:
        yield started


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> StenoSettings:
    home = tmp_path_factory.mktemp("chunks")
    api = ApiSettings(max_chunk_seconds=30.0, chunk_queue=3)
    return StenoSettings(home=home, models_dir=models_dir, model="tiny.en", offline=True, api=api)


@pytest.fixture(scope="module")
def service(portal: BlockingPortal, settings: StenoSettings) -> Iterator[Chunks]:
    """The door with a real worker and real models, in an event loop of its own."""

    async def made() -> Chunks:
        return Chunks(settings)

    chunks = portal.call(made)
    with portal.wrap_async_context_manager(chunks.at_work()):
        yield chunks


Ask = Callable[..., ChunkResult]


@pytest.fixture(scope="module")
def ask(portal: BlockingPortal, service: Chunks) -> Ask:
    def asked(samples: np.ndarray, caller: Caller = ANYBODY, **fields: Any) -> ChunkResult:
        return portal.call(service.transcribe, JobRequest(audio_chunk=encoded(samples), **fields), caller)

    return asked


def said(result: ChunkResult) -> str:
    return " ".join(segment["text"] for segment in result.segments)


def call_piece(number: int) -> np.ndarray:
    return media.speech()[number * PIECE : (number + 1) * PIECE]


@pytest.mark.slow
def test_chunks_of_a_session_continue_each_other_although_the_worker_is_killed_between_them(ask: Ask, service: Chunks) -> None:
    first = ask(call_piece(3), session_id="call", diarize=True)
    (worker,) = service.pool.workers
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    second = ask(call_piece(4), session_id="call", diarize=True)
    words = [*first.word_segments, *second.word_segments]
    assert "Chicago" in said(first)
    assert "New Jersey" in said(second)
    assert all(before["start"] <= after["start"] for before, after in itertools.pairwise(words))
    assert 4.0 < second.word_segments[0]["start"] < 6.0
    assert {word["speaker"] for word in words} <= {"SPEAKER_00", "SPEAKER_01"}
    assert second.language == "en"


@pytest.mark.slow
def test_a_session_of_the_same_name_is_another_callers_own(ask: Ask) -> None:
    ask(call_piece(2), session_id="shared")
    other = ask(call_piece(3), caller=Caller("other", "Other"), session_id="shared")
    assert other.word_segments[0]["start"] < 2.0


@pytest.mark.slow
def test_chunks_of_one_session_that_come_at_once_take_turns(ask: Ask) -> None:
    with ThreadPoolExecutor(3) as threads:
        results = list(threads.map(lambda _: ask(np.zeros(RATE, np.float32), session_id="turns"), range(3)))
    assert all(result.segments == [] for result in results)
    late = ask(call_piece(3), session_id="turns")
    assert 3.0 <= late.word_segments[0]["start"] < 5.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("samples", "fields", "code"),
    [
        (np.full(100, np.nan, np.float32), {}, "invalid_chunk"),
        (np.full(100, np.inf, np.float32), {}, "invalid_chunk"),
        (np.full(100, 20_000.0, np.float32), {}, "invalid_option"),
        (SILENCE, {"language": "fr"}, "invalid_option"),
        (SILENCE, {"language": "no such language"}, "invalid_request"),
        (SILENCE, {"min_speakers": 3, "max_speakers": 2}, "invalid_request"),
        (SILENCE, {"model": "large-v3"}, "unknown_model"),
        (SILENCE, {"model": "/etc"}, "unknown_model"),
    ],
)
def test_values_that_cannot_be_are_refused(ask: Ask, samples: np.ndarray, fields: dict[str, Any], code: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        ask(samples, **fields)
    assert refused.value.problem_code == code


@pytest.mark.slow
def test_a_session_used_with_other_options_is_refused_and_goes_on_with_its_own(ask: Ask) -> None:
    ask(np.zeros(RATE, np.float32), session_id="steady", diarize=True)
    with pytest.raises(Unprocessable, match="another diarize"):
        ask(np.zeros(RATE, np.float32), session_id="steady")
    assert ask(np.zeros(RATE, np.float32), session_id="steady", diarize=True).status == "completed"


@pytest.mark.slow
def test_more_chunks_than_may_wait_are_told_to_come_back(ask: Ask) -> None:
    def one(_: int) -> ChunkResult | Unavailable:
        try:
            return ask(call_piece(3))
        except Unavailable as error:
            return error

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(one, range(8)))
    refused = [result for result in results if isinstance(result, Unavailable)]
    assert refused
    assert len(results) - len(refused) >= 4
    assert all(error.retry_after and error.problem_code == "busy" for error in refused)


@pytest.mark.slow
def test_a_chunk_whose_worker_is_killed_at_work_is_answered_by_the_next_one(ask: Ask, service: Chunks) -> None:
    ask(SILENCE)
    pid = service.pool.workers[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(ask, call_piece(3))
        time.sleep(0.3)
        os.kill(pid, signal.SIGKILL)
        assert "Chicago" in said(waiting.result(120))


@pytest.mark.slow
def test_the_route_answers_chunks_and_refuses_what_contradicts_itself(
    portal: BlockingPortal, service: Chunks, settings: StenoSettings
) -> None:
    async def post(body: dict[str, Any]) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as client:
            return await client.post("/transcribes", json=body, timeout=120)

    app = FastAPI()
    problems.install(app)
    app.include_router(submit.router)
    app.dependency_overrides[current_caller] = lambda: ANYBODY
    app.dependency_overrides[jobs_of] = lambda: SimpleNamespace(settings=settings, limits=Limits(), chunks=service)
    chunk = encoded(call_piece(3))
    answer = portal.call(post, {"audio_chunk": chunk, "session_id": "routed"})
    assert answer.status_code == 200
    assert set(answer.json()) == {"status", "session_id", "language", "segments", "word_segments"}
    assert answer.json()["session_id"] == "routed"
    both = portal.call(post, {"audio_chunk": chunk, "audio_url": "https://example.org/a.wav"})
    webhook = portal.call(post, {"audio_chunk": chunk, "webhook_url": "https://example.org/hook"})
    too_long = portal.call(post, {"audio_chunk": encoded(np.zeros(31 * RATE, np.float32))})
    assert [both.status_code, webhook.status_code, too_long.status_code] == [400, 400, 413]


def test_a_model_that_cannot_be_had_is_said_once_and_not_tried_with_every_chunk(tmp_path: Path, models_dir: Path) -> None:
    wanting = StenoSettings(home=tmp_path, models_dir=models_dir, model="no-such-model", offline=True)

    async def twice() -> list[Unavailable]:
        chunks = Chunks(wanting)
        async with chunks.at_work():
            errors = []
            for _ in range(2):
                with pytest.raises(Unavailable) as refused:
                    await chunks.transcribe(JobRequest(audio_chunk=encoded(SILENCE)), ANYBODY)
                errors.append(refused.value)
            return errors

    first, second = asyncio.run(twice())
    assert first.problem_code == "unknown_model"
    assert second is first


def test_a_service_without_workers_says_that_it_takes_no_chunks(tmp_path: Path) -> None:
    async def asked() -> None:
        await Chunks(StenoSettings(home=tmp_path, api=ApiSettings(chunk_workers=0))).transcribe(
            JobRequest(audio_chunk=encoded(SILENCE)), ANYBODY
        )

    with pytest.raises(Unavailable, match="does not accept audio chunks"):
        asyncio.run(asked())


_ONE_CHUNK_THEN_WAIT = """
import asyncio, sys, time
from api.auth import ANYBODY
from api.chunks import Chunks
from api.schemas import JobRequest
from infra.settings import get_settings

async def main():
    chunks = Chunks(get_settings())
    async with chunks.at_work():
        await chunks.transcribe(JobRequest(audio_chunk=sys.stdin.read(), diarize=True), ANYBODY)
        print(chunks.pool.workers[0].pid, [name for name in ("torch", "ctranslate2", "numpy") if name in sys.modules], flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.slow
def test_the_worker_ends_with_the_api_which_itself_loads_no_model_and_logs_no_word(tmp_path: Path, models_dir: Path) -> None:
    env = os.environ | {
        "STENO_HOME": str(tmp_path),
        "STENO_MODELS_DIR": str(models_dir),
        "STENO_MODEL": "tiny.en",
        "STENO_OFFLINE": "true",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    with subprocess.Popen(
        [sys.executable, "-c", _ONE_CHUNK_THEN_WAIT], env=env, stdin=-1, stdout=-1, stderr=-1, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(encoded(call_piece(3)))
        process.stdin.close()
        pid, _, loaded = process.stdout.readline().partition(" ")
        process.kill()
        assert loaded.strip() == "[]"
        assert "Chicago" not in process.stderr.read()  # which ends when the worker has ended, too
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()
