"""Enrolled voices at the API: each owner's own, computed by the engine, never shown, and gone when they are deleted."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator

import pytest
import soundfile

from infra.voices import consent_of, enrol, forget_all, set_of, voices_in
from speech.enrolled import Voiceprint
from stenoflow.client import ClientError, StenoClient
from stenoflow.client.errors import RequestRefused
from stenoflow.edits import NameSpeaker
from tests.api.guarded import GuardedApi
from tests.media import speech

pytestmark = pytest.mark.slow

NAME = "Zoë Unmistakable"


@pytest.fixture(autouse=True)
def _nobody_left(guarded_api: GuardedApi) -> Iterator[None]:
    guarded_api.live.deployed.plan()
    yield
    for owner in (guarded_api.key_id, guarded_api.other_id):
        forget_all(guarded_api.store, set_of(owner))


@pytest.fixture
def client(guarded_api: GuardedApi) -> Iterator[StenoClient]:
    with StenoClient(guarded_api.live.url, guarded_api.key) as found:
        yield found


def sample(start: float, end: float) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, speech()[int(start * 16_000) : int(end * 16_000)], 16_000, format="FLAC")
    return content.getvalue()


def known(guarded_api: GuardedApi, owner: str) -> None:
    """Enrol the voice that the stages' double hears."""
    print_ = Voiceprint(model="double@1", embedding=(1.0, 0.0), seconds=10.0)
    enrol(guarded_api.store, set_of(owner), NAME, [print_], consent_of("asked", "a test"))


def test_a_voice_is_enrolled_listed_and_forgotten_by_its_owner_alone(guarded_api: GuardedApi, client: StenoClient) -> None:
    voice = client.enrol_voice(NAME, sample(22.0, 27.5), consent="asked by mail")
    assert (voice.name, voice.recordings, voice.consent, voice.enrolled_by) == (NAME, 1, "asked by mail", "tester")
    assert 3.5 < voice.seconds < 5.5
    assert client.enrol_voice(NAME.upper(), sample(14.8, 17.9), consent="again").recordings == 2
    assert [one.voice_id for one in client.voices()] == [voice.voice_id]
    answer = guarded_api.live.get("/voices")
    assert "embedding" not in answer.text
    with StenoClient(guarded_api.live.url, guarded_api.other) as other:
        assert other.voices() == []
        with pytest.raises(ClientError) as refused:
            other.forget_voice(voice)
        assert refused.value.reason == "unknown_voice"
    assert client.forget_voice(voice).voice_id == voice.voice_id
    assert client.voices() == []
    assert "Unmistakable" not in guarded_api.live.log()


@pytest.mark.parametrize(
    ("recording", "fields", "code"),
    [
        ((10.0, 22.0), {"consent": "asked"}, "unusable_voice"),
        ((0.0, 5.0), {"consent": "asked"}, "unusable_voice"),
        ((22.0, 27.5), {"consent": " "}, "invalid_request"),
        ((22.0, 27.5), {"consent": "asked", "diarization_model": "/etc"}, "unknown_model"),
    ],
)
def test_what_cannot_be_enrolled_is_refused(
    guarded_api: GuardedApi, client: StenoClient, recording: tuple[float, float], fields: dict[str, str], code: str
) -> None:
    with pytest.raises(RequestRefused) as refused:
        client.enrol_voice(NAME, sample(*recording), **fields)
    assert refused.value.reason == code
    assert client.voices() == []


def test_a_job_that_asks_names_the_speakers_of_its_owner(guarded_api: GuardedApi, client: StenoClient) -> None:
    live = guarded_api.live
    known(guarded_api, guarded_api.key_id)
    path = live.file(seconds=4)
    job = client.submit(path, diarize=True, voices=True)
    assert client.wait(job).status == "completed"
    transcript = client.transcript(job)
    assert {label: match.name for label, match in transcript.speaker_matches.items()} == {"SPEAKER_00": NAME}
    assert transcript.speaker_names == {"SPEAKER_00": NAME}
    assert {segment.speaker for segment in transcript.segments} == {"SPEAKER_00"}
    assert client.text(job, "txt").startswith(NAME)
    page = live.get(f"/transcribes/{job.job_id}/segments").json()
    assert page["speakers"] == {"SPEAKER_00": NAME}
    unasked = client.submit(path, diarize=True)
    client.wait(unasked)
    assert client.transcript(unasked).speaker_names == {}


def test_a_job_is_not_compared_with_the_voices_of_another_owner(guarded_api: GuardedApi, client: StenoClient) -> None:
    known(guarded_api, guarded_api.other_id)
    job = client.submit(guarded_api.live.file(seconds=4), diarize=True, voices=True)
    client.wait(job)
    assert client.transcript(job).speaker_matches == {}


def test_a_correction_comes_before_a_recognised_name(guarded_api: GuardedApi, client: StenoClient) -> None:
    known(guarded_api, guarded_api.key_id)
    job = client.submit(guarded_api.live.file(seconds=4), diarize=True, voices=True)
    client.wait(job)
    changed = client.edit(job, 0, NameSpeaker(speaker="SPEAKER_00", name="Chair"))
    assert changed.speakers == {"SPEAKER_00": "Chair"}
    assert client.transcript(job).speaker_names == {"SPEAKER_00": "Chair"}
    assert client.text(job, "txt", revision=0).startswith(NAME)


def test_what_a_call_brought_goes_with_its_job(guarded_api: GuardedApi, client: StenoClient) -> None:
    live, store = guarded_api.live, guarded_api.store
    answer = live.post(
        "/v1/audio/transcriptions",
        files={"file": ("talk.wav", live.file(seconds=4).read_bytes())},
        data={
            "model": "whisper-1",
            "response_format": "diarized_json",
            "known_speaker_names[]": [NAME],
            "known_speaker_references[]": [data_url(22.0, 27.5)],
        },
    )
    job = answer.headers["X-Steno-Job-Id"]
    client.wait(job)
    kept = [file.path.split("/")[2] for file in store.files("records/voices") if "call-" in file.path]
    assert len(kept) == 1 and [voice.name for voice in voices_in(store, kept)] == [NAME]
    client.delete(job)
    end = time.monotonic() + 60
    while voices_in(store, kept) and time.monotonic() < end:
        time.sleep(0.2)
    assert voices_in(store, kept) == []


def data_url(start: float, end: float) -> str:
    return f"data:audio/flac;base64,{base64.b64encode(sample(start, end)).decode()}"
