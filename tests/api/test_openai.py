"""The OpenAI-compatible door, through the official client."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import pytest
import soundfile
from openai import (
    APIError,
    APIStatusError,
    APITimeoutError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    OpenAI,
    RateLimitError,
)
from openai.types.audio import Transcription, TranscriptionDiarized, TranscriptionVerbose, Translation, TranslationVerbose

from api.openai.forms import job_of, transcription
from bench.demo import sample_recording
from tests.api.guarded import GuardedApi
from tests.api.live import LiveApi
from tests.api.test_events import Source
from tests.media import speech

pytestmark = pytest.mark.slow

TEXT = "good morning everyone"
"""What the stages' double hears."""


def client_of(live: LiveApi, key: str = "any", **options: Any) -> OpenAI:
    http = httpx.Client(trust_env=False, timeout=280)
    return OpenAI(base_url=f"{live.url}/v1", api_key=key, http_client=http, **{"max_retries": 0, **options})


@pytest.fixture
def client(live_api: LiveApi) -> Iterator[OpenAI]:
    with client_of(live_api) as found:
        yield found


@pytest.fixture
def wav(live_api: LiveApi) -> Path:
    """A recording of two seconds, of its own content."""
    return live_api.file(seconds=2)


@pytest.fixture(scope="module")
def hasty_api(served_api: LiveApi) -> Iterator[LiveApi]:
    """A further process of the API, which waits for a second and takes three jobs a minute."""
    env = served_api.deployed.env | {
        "STENO_API__PORT": "0",
        "STENO_API__OPENAI_WAIT": "1",
        "STENO_API__OPENAI_STREAM_WAIT": "1",
        "STENO_API__RATE_SUBMIT": "5",
    }
    live = LiveApi(served_api.deployed, served_api.files, served_api.files_url, env)
    try:
        live.start_api()
        yield live
    finally:
        live.stop_api()


@pytest.fixture(autouse=True, scope="module")
def _same(served_api: LiveApi) -> None:
    """`same.wav`, for calls that are refused."""
    served_api.file("same.wav", seconds=2)


def jobs_named(live: LiveApi, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = live.get("/transcribes", params={"limit": 100}).json()["jobs"]
    return [job for job in found if job["name"] == name]


# -- answers ------------------------------------------------------------------------------------------------------------


def test_a_transcription_is_the_text_of_a_job(live_api: LiveApi, client: OpenAI, wav: Path) -> None:
    def asked(**options: Any) -> Any:
        create = client.audio.transcriptions.with_raw_response.create
        return create(**{"file": wav, "model": "whisper-1", "prompt": "hello", "temperature": 0.2, **options})

    once = {"Idempotency-Key": "once"}
    answer = asked(extra_headers=once)
    found = answer.parse()
    assert isinstance(found, Transcription)
    assert found.text == TEXT
    assert found.usage is not None and found.usage.to_dict() == {"type": "duration", "seconds": 2.0}
    assert answer.headers["x-request-id"]
    job = live_api.job(answer.headers["x-steno-job-id"])
    assert job["status"] == "completed"
    assert job["segments"][0]["text"] == TEXT
    request = live_api.deployed.run(job["job_id"])["parameters"]["request"]
    assert (request["name"], request["model"], request["initial_prompt"]) == (wav.name, "auto", "hello")
    assert asked(extra_headers=once).headers["x-steno-job-id"] == job["job_id"]
    with pytest.raises(BadRequestError) as error:
        asked(extra_headers=once, model="base")
    assert error.value.code == "idempotency_key_reused"


def test_subtitles_come_as_text(client: OpenAI, wav: Path) -> None:
    found = client.audio.transcriptions.create(file=wav, model="base", response_format="srt", language="english")
    assert found == f"1\n00:00:00,500 --> 00:00:02,000\n{TEXT}\n\n"


def test_verbose_json_has_the_fields_of_openai(client: OpenAI, wav: Path) -> None:
    found = client.audio.transcriptions.create(
        file=wav, model="whisper-1", response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert isinstance(found, TranscriptionVerbose)
    TranscriptionVerbose.model_validate(found.to_dict(), strict=True)
    assert found.to_dict() == {
        "task": "transcribe",
        "language": "english",
        "duration": 2.0,
        "text": TEXT,
        "segments": [
            {
                "id": 0,
                "seek": 50,
                "start": 0.5,
                "end": 2.0,
                "text": TEXT,
                "tokens": [],
                "temperature": 0.0,
                "avg_logprob": 0.0,
                "compression_ratio": pytest.approx(0.72, abs=0.1),
                "no_speech_prob": 0.0,
            }
        ],
        "words": [
            {"word": "good", "start": 0.5, "end": 1.0},
            {"word": "morning", "start": 1.5, "end": 2.0},
            {"word": "everyone", "start": 2.0, "end": 2.0},
        ],
        "usage": {"type": "duration", "seconds": 2.0},
    }


def test_diarized_json_says_who_speaks(client: OpenAI, wav: Path) -> None:
    found = client.audio.transcriptions.create(
        file=wav,
        model="gpt-4o-transcribe-diarize",
        response_format="diarized_json",
        chunking_strategy="auto",
        extra_body={"max_speakers": 2},
    )
    assert isinstance(found, TranscriptionDiarized)
    TranscriptionDiarized.model_validate(found.to_dict(), strict=True)
    assert [segment.to_dict() for segment in found.segments] == [
        {"type": "transcript.text.segment", "id": "seg_000", "start": 0.5, "end": 2.0, "text": TEXT, "speaker": "A"}
    ]
    assert (found.task, found.text, found.duration) == ("transcribe", TEXT, 2.0)


async def test_the_asynchronous_client_does_the_same(live_api: LiveApi, wav: Path) -> None:
    http = httpx.AsyncClient(trust_env=False, timeout=280)
    async with AsyncOpenAI(base_url=f"{live_api.url}/v1", api_key="any", http_client=http, max_retries=0) as client:
        translating = asyncio.create_task(client.audio.translations.create(file=wav, model="whisper-1"))
        verbosely = asyncio.create_task(
            client.audio.translations.create(file=wav, model="whisper-1", response_format="verbose_json")
        )
        stream = await client.audio.transcriptions.create(
            file=wav, model="gpt-transcribe", stream=True, keywords=["Stenoflow", "wav2vec2"], response_format="text"
        )
        events = [event async for event in stream]
        translated, verbose = await translating, await verbosely
        models = [model.id async for model in client.models.list()]
    assert [event.to_dict() for event in events] == [
        {"type": "transcript.text.delta", "delta": TEXT},
        {"type": "transcript.text.done", "text": TEXT},
    ]
    job = live_api.deployed.run(stream.response.headers["x-steno-job-id"])
    assert job["parameters"]["request"]["hotwords"] == "Stenoflow wav2vec2"
    assert isinstance(translated, Translation)
    assert translated.text == TEXT
    assert isinstance(verbose, TranslationVerbose)
    assert (verbose.language, verbose.text, verbose.to_dict()["task"]) == ("english", TEXT, "translate")
    assert "whisper-1" in models


@pytest.mark.timeout(900)
def test_other_formats_with_every_parameter_are_what_the_client_expects(client: OpenAI, wav: Path) -> None:
    """Those that no other test here asks for; how each is rendered is in `test_openai_shapes`."""
    parameters: dict[str, Any] = {"file": wav, "model": "whisper-1", "prompt": "A talk.", "temperature": 0.5}
    more = parameters | {"language": "en", "keywords": ["Stenoflow"], "chunking_strategy": {"type": "server_vad"}}

    def transcribed(name: str, **options: Any) -> Any:
        return client.audio.transcriptions.create(response_format=cast(Any, name), **more | options)

    with ThreadPoolExecutor(4) as threads:
        stream = threads.submit(lambda: {event.type for event in transcribed("diarized_json", stream=True)})
        translation = threads.submit(lambda: client.audio.translations.create(response_format="srt", **parameters))
        vtt, text = threads.map(transcribed, ("vtt", "text"))
    assert vtt.startswith("WEBVTT") and TEXT in vtt
    assert text.strip() == TEXT
    assert translation.result().startswith("1\n00:00:00,500 -->")
    assert stream.result() == {"transcript.text.segment", "transcript.text.delta", "transcript.text.done"}


# -- errors -------------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "a format that is none": ({"response_format": "docx"}, "response_format", "invalid_value"),
    "words without verbose_json": ({"timestamp_granularities": ["word"]}, "timestamp_granularities[]", "invalid_value"),
    "a granularity that is none": (
        {"response_format": "verbose_json", "timestamp_granularities": ["letter"]},
        "timestamp_granularities[].0",
        "invalid_value",
    ),
    "subtitles in a stream": ({"stream": True, "response_format": "srt"}, "stream", "invalid_value"),
    "a language that is none": ({"language": "klingon"}, "language", "invalid_value"),
    "a temperature above 1": ({"temperature": 1.5}, "temperature", "invalid_value"),
    "a prompt of many pages": ({"prompt": "x" * 2001}, "prompt", "invalid_value"),
    "log probabilities": ({"include": ["logprobs"]}, "include", "unsupported_parameter"),
    "voices to recognise without speakers": (
        {"known_speaker_names": ["bob"], "known_speaker_references": ["data:audio/wav;base64,AA=="]},
        "known_speaker_names[]",
        "invalid_value",
    ),
    "a known speaker without a sample": (
        {"known_speaker_names": ["bob"], "response_format": "diarized_json"},
        "known_speaker_references[]",
        "invalid_value",
    ),
    "a sample that is an address": (
        {
            "known_speaker_names": ["bob"],
            "known_speaker_references": ["https://example.com/bob.wav"],
            "response_format": "diarized_json",
        },
        "known_speaker_references[]",
        "invalid_value",
    ),
    "a sample that is no audio": (
        {
            "known_speaker_names": ["bob"],
            "known_speaker_references": ["data:audio/wav;base64,AA=="],
            "response_format": "diarized_json",
        },
        "known_speaker_references",
        "unreadable_media",
    ),
    "thresholds of voice activity": (
        {"chunking_strategy": {"type": "server_vad", "threshold": 0.1}},
        "chunking_strategy",
        "unsupported_parameter",
    ),
    "too many keywords": ({"keywords": ["x" * 100] * 30}, "keywords[]", "invalid_value"),
    "a possible language nobody speaks": ({"languages": ["en", "klingon"]}, "language", "invalid_value"),
    "speakers that are not told apart": ({"extra_body": {"num_speakers": 2}}, "num_speakers", "invalid_value"),
    "more speakers than at most": (
        {"response_format": "diarized_json", "extra_body": {"min_speakers": 3, "max_speakers": 2}},
        None,
        "invalid_value",
    ),
    "an argument nobody knows": ({"extra_body": {"foo": 1}}, "foo", "unknown_parameter"),
    "no model": ({"model": ""}, "model", "missing_required_parameter"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_parameter_is_named(live_api: LiveApi, client: OpenAI, case: str) -> None:
    options, param, code = REFUSED[case]
    with pytest.raises(BadRequestError) as refused:
        client.audio.transcriptions.create(**{"file": live_api.files / "same.wav", "model": "whisper-1", **options})
    error = refused.value
    assert (error.param, error.code, error.type) == (param, code, "invalid_request_error")
    said = cast(dict[str, str], error.body)["message"]
    assert said.endswith(".")
    assert error.response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model_is_not_found(live_api: LiveApi, client: OpenAI, stream: Any) -> None:
    for model in ("whisper-99", "../../etc", "tts-1"):
        with pytest.raises(NotFoundError) as error:
            client.audio.transcriptions.create(file=live_api.files / "same.wav", model=model, stream=stream)
        assert (error.value.code, error.value.param) == ("model_not_found", "model")


def test_what_is_no_recording_is_a_bad_request(live_api: LiveApi, client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as empty:
        client.audio.transcriptions.create(file=("empty.wav", b""), model="whisper-1")
    assert (empty.value.code, empty.value.param) == ("empty_media", "file")
    with pytest.raises(BadRequestError) as unreadable:
        client.audio.transcriptions.create(file=("notes.wav", b"these are words, not sounds" * 50), model="whisper-1")
    assert (unreadable.value.code, unreadable.value.param) == ("unreadable_media", "file")
    assert "notes.wav is not in a supported format" in unreadable.value.message
    assert unreadable.value.response.headers["x-steno-job-id"]


def test_forms_that_are_none(live_api: LiveApi) -> None:
    path = "/v1/audio/transcriptions"
    answers = {
        "no file": live_api.post(path, files={"model": (None, "whisper-1")}),
        "JSON": live_api.post(path, json={"model": "whisper-1"}),
        "nothing": live_api.post(path),
        "cut short": live_api.post(path, content=b"--x\r\n", headers={"Content-Type": "multipart/form-data; boundary=x"}),
    }
    for name, answer in answers.items():
        assert answer.status_code == 400, name
        assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answers["no file"].json()["error"] == {
        "message": "Send the recording as the part `file`.",
        "type": "invalid_request_error",
        "param": "file",
        "code": "missing_required_parameter",
    }


def test_addresses_that_are_none(live_api: LiveApi) -> None:
    for method, path, status, code in (
        ("GET", "/v1/chat/completions", 404, "unknown_url"),
        ("GET", "/v1/audio/transcriptions", 405, "method_not_supported"),
        ("DELETE", "/v1/models/base", 405, "method_not_supported"),
    ):
        answer = live_api.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert "error" in live_api.get("/v2/models").json(), "elsewhere errors are problems"
    assert live_api.get("/v2/models").json()["status"] == 404


def test_a_failed_job_is_told_and_not_repeated(live_api: LiveApi) -> None:
    live_api.deployed.plan(fail={"asr": {"error": "StageFailed", "message": "The models are out of order."}})
    name = live_api.file(seconds=2).name
    with client_of(live_api, max_retries=2) as client, pytest.raises(InternalServerError) as error:
        client.audio.transcriptions.create(file=live_api.files / name, model="whisper-1")
    assert (error.value.code, error.value.type) == ("stage_failed", "server_error")
    assert "out of order" in error.value.message
    assert [job["status"] for job in jobs_named(live_api, name)] == ["failed"]


def test_missing_speakers_fail_diarized_json(live_api: LiveApi, client: OpenAI, wav: Path) -> None:
    live_api.deployed.plan(fail={"cluster": {"error": "StageFailed", "message": "No voices today."}})
    with pytest.raises(InternalServerError, match="No voices today") as error:
        client.audio.transcriptions.create(file=wav, model="whisper-1", response_format="diarized_json")
    assert error.value.code == "diarization_failed"


def test_a_stream_of_a_failed_job_ends_in_an_error(live_api: LiveApi, wav: Path) -> None:
    live_api.deployed.plan(fail={"asr": {"error": "StageFailed", "message": "The models are out of order."}})
    with wav.open("rb") as file:
        data = {"model": "whisper-1", "stream": "true"}
        answer = live_api.post("/v1/audio/transcriptions", files={"file": file}, data=data, timeout=120)
    assert answer.headers["content-type"].startswith("text/event-stream")
    first, *comments, error, end = answer.text.split("\n\n")
    assert first == f": job {answer.headers['x-steno-job-id']}"
    assert comments and all(line.startswith(": ") for line in comments), "it is kept alive meanwhile"
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "stage_failed"
    assert end == ""


def test_a_canceled_job_is_a_conflict(live_api: LiveApi, client: OpenAI) -> None:
    live_api.deployed.plan(seconds={"asr": 30})
    wav = live_api.file(seconds=2)
    stream = client.audio.transcriptions.create(file=wav, model="whisper-1", stream=True)
    live_api.request("DELETE", f"/transcribes/{stream.response.headers['x-steno-job-id']}")
    with pytest.raises(APIError) as error:
        list(stream)
    assert error.value.code == "job_canceled"


# -- time ---------------------------------------------------------------------------------------------------------------


def test_nobody_who_hangs_up_or_is_told_to_wait_loses_the_job(live_api: LiveApi, hasty_api: LiveApi, wav: Path) -> None:
    live_api.deployed.plan(before={"asr": 0}, hold=True)
    asked: dict[str, Any] = {"file": wav, "model": "whisper-1", "response_format": "diarized_json"}
    with client_of(hasty_api, max_retries=2) as hasty:
        with pytest.raises(InternalServerError) as error:
            hasty.audio.transcriptions.create(**asked)
        assert (error.value.status_code, error.value.code) == (504, "still_under_way")
        job = error.value.response.headers["x-steno-job-id"]
        assert f"/transcribes/{job}" in error.value.message
        stream = hasty.audio.transcriptions.create(**asked, stream=True)
        with pytest.raises(APIError, match="still being transcribed"):
            list(stream)
        assert stream.response.headers["x-steno-job-id"] == job, "the same recording and options: the same job"
    with client_of(live_api, timeout=2) as impatient, pytest.raises(APITimeoutError):
        impatient.audio.transcriptions.create(**asked)
    assert len(jobs_named(live_api, wav.name)) == 1
    live_api.deployed.plan()
    assert live_api.ended(job)["status"] == "completed"


def test_a_caller_in_a_hurry_is_told_when_to_come_back(hasty_api: LiveApi) -> None:
    with client_of(hasty_api) as client, pytest.raises(RateLimitError) as error:
        for _ in range(10):
            with pytest.raises(BadRequestError):
                client.audio.transcriptions.create(file=("empty.wav", b""), model="whisper-1")
    assert error.value.code == "rate_limit_exceeded"
    assert int(error.value.response.headers["retry-after"]) >= 1


# -- models and keys ----------------------------------------------------------------------------------------------------


def test_models_are_listed_and_found(client: OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}
    assert {"auto", "whisper-1", "gpt-4o-transcribe-diarize", "base", "tiny.en", "large-v3", "turbo"} <= set(models)
    assert "community-1" not in models, "it transcribes nothing"
    assert models["large-v3"].owned_by == "Systran"
    for name in ("whisper-1", "tiny.en", "large"):
        assert client.models.retrieve(name) == models[name]
    for name in ("tts-1", "someone/something", "community-1"):
        with pytest.raises(NotFoundError) as error:
            client.models.retrieve(name)
        assert error.value.type == "invalid_request_error"


def test_a_key_is_needed_where_one_was_made(guarded_api: GuardedApi) -> None:
    with client_of(guarded_api.live, guarded_api.key) as client:
        assert client.models.retrieve("whisper-1").id == "whisper-1"
    with client_of(guarded_api.live, "sk-wrong") as stranger, pytest.raises(AuthenticationError) as error:
        stranger.audio.transcriptions.create(file=("talk.wav", b"RIFF"), model="whisper-1")
    assert (error.value.code, error.value.type) == ("invalid_api_key", "invalid_request_error")
    assert "sk-wrong" not in error.value.message


def test_a_recording_that_is_too_large_is_refused(guarded_api: GuardedApi) -> None:
    with client_of(guarded_api.live, guarded_api.key) as client, pytest.raises(APIStatusError) as error:
        client.audio.transcriptions.create(file=("talk.wav", b"RIFF" + bytes(2 << 20)), model="whisper-1")
    assert error.value.status_code == 413
    assert error.value.type == "invalid_request_error"


# -- real models --------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(900)
def test_a_real_conversation(live_api: LiveApi, client: OpenAI, words: Callable[[str], list[str]]) -> None:
    live_api.deployed.plan(real=True)
    sample = sample_recording()
    stream = client.audio.transcriptions.create(file=sample, model="tiny.en", response_format="diarized_json", stream=True)
    events = list(stream)
    text = "".join(event.delta for event in events if event.type == "transcript.text.delta")
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == text
    speakers = {event.speaker for event in events if event.type == "transcript.text.segment"}
    assert speakers == {"A", "B"}
    verbose = client.audio.transcriptions.create(
        file=sample, model="tiny.en", response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    TranscriptionVerbose.model_validate(verbose.to_dict(), strict=True)
    assert words(verbose.text) == words(text)
    named = client.audio.transcriptions.create(
        file=sample,
        model="tiny.en",
        response_format="diarized_json",
        chunking_strategy="auto",
        known_speaker_names=["Sheila Smith"],
        known_speaker_references=[data_url(22.0, 27.5)],
    )
    assert {segment.speaker for segment in named.segments} == {"Sheila Smith", "A"}
    assert verbose.language == "english"
    assert verbose.duration == pytest.approx(30, abs=0.1)
    assert verbose.words and [word.word for word in verbose.words] == verbose.text.split()
    assert verbose.segments and all(segment.avg_logprob < 0 for segment in verbose.segments)
    translated = client.audio.translations.create(file=sample, model="base")
    assert len(set(words(translated.text)) & set(words(text))) > len(set(words(text))) / 2


def data_url(start: float, end: float) -> str:
    """These seconds of the sample call."""
    content = io.BytesIO()
    soundfile.write(content, speech()[int(start * 16_000) : int(end * 16_000)], 16_000, format="WAV")
    return f"data:audio/wav;base64,{base64.b64encode(content.getvalue()).decode()}"


@pytest.fixture
def words() -> Callable[[str], list[str]]:
    return lambda text: re.findall(r"\w+", text.casefold())


@pytest.mark.timeout(600)
def test_text_comes_while_the_recording_is_transcribed(live_api: LiveApi, client: OpenAI, tmp_path: Path) -> None:
    """At OpenAI's door and as a job's events: what came early is the beginning of what comes in the end, and nothing of it stays."""
    live_api.deployed.plan(real=True)
    samples, rate = soundfile.read(sample_recording())
    long = tmp_path / "long.wav"
    soundfile.write(long, np.tile(samples, 8), rate, subtype="PCM_16")
    stream = client.audio.transcriptions.create(file=long, model="tiny.en", response_format="json", stream=True)
    job = stream.response.headers["x-steno-job-id"]
    source = Source(live_api, job)
    listening = threading.Thread(target=source.open)
    listening.start()
    deltas, early, done = [], "", ""
    for event in stream:
        if event.type == "transcript.text.delta":
            deltas.append(event.delta)
            if live_api.job(job)["status"] == "processing":
                early = "".join(deltas)
        elif event.type == "transcript.text.done":
            done = event.text
    assert "".join(deltas) == done
    assert len(early.split()) > 20
    assert done.startswith(early)
    listening.join()
    told = " ".join(segment["text"] for name, data in source.events if name == "text" for segment in data["segments"])
    assert len(told.split()) > 20
    assert done.startswith(told)
    store = live_api.deployed.home / "store"
    assert not [path for path in store.rglob("records/drafts/*") if path.is_file()]


@pytest.mark.parametrize(
    ("fields", "language"),
    [
        ({"languages": ["en", "de"]}, "en,de"),
        ({"languages[]": ["fr"]}, "fr"),
        ({"language": ["en,fr"]}, "en,fr"),
        ({"language": ["fr"], "languages[]": ["en", "de"]}, "fr"),
        ({}, None),
    ],
)
def test_languages_that_may_be_spoken_are_given_as_to_openai_or_as_here(
    fields: dict[str, list[str]], language: str | None
) -> None:
    assert job_of(transcription({"model": ["whisper-1"], **fields}, has_file=True)).language == language
