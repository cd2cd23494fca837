"""The whole of it, nothing stood in for: `steno api`, a Prefect server, a worker, the models, and a real conversation."""

from __future__ import annotations

import itertools
import re
import time
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jiwer
import numpy as np
import pytest
import soundfile

from bench.demo import sample_recording
from flows.options import FORMATS
from speech.scoring import diarization_errors
from stenoflow.client import Job, JobDeleted, Progress, RequestRefused, StenoClient
from tests import media
from tests.api.live import LiveApi

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RATE = 16_000


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[LiveApi]:
    env = {
        "STENO_COMPUTE__BACKEND": "local",
        "STENO_MODEL": "tiny.en",
        "STENO_MODELS_DIR": str(models_dir),
        "STENO_OFFLINE": "1",
    }
    with LiveApi.start(tmp_path_factory.mktemp("contract"), env) as live:
        yield live


@pytest.fixture(scope="module")
def steno(service: LiveApi) -> Iterator[StenoClient]:
    with StenoClient(service.url) as client:
        yield client


@pytest.fixture(scope="module")
def told() -> list[Progress]:
    """What was told of `talk` while it was at work."""
    return []


@pytest.fixture(scope="module")
def talk(service: LiveApi, steno: StenoClient, told: list[Progress]) -> Job:
    """The conversation, fetched from a URL and transcribed."""
    (service.files / "talk.wav").write_bytes(sample_recording().read_bytes())
    job = steno.submit(f"{service.files_url}/talk.wav", language="en", diarize=True, max_speakers=4, metadata={"call": "1"})
    return steno.wait(job, timeout=240, on_progress=told.append)


def truth(extension: str) -> list[list[str]]:
    return [line.split() for line in sample_recording().with_suffix(extension).read_text().splitlines() if line.strip()]


def turns() -> list[tuple[str, float, float]]:
    """Who spoke, from when, until when."""
    return [(line[7], float(line[3]), float(line[3]) + float(line[4])) for line in truth(".rttm")]


def plain(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def words_wrong(text: str) -> float:
    """The word error rate."""
    said = [word for line in truth(".stm") for word in plain(" ".join(line[5:]))]
    return jiwer.wer(" ".join(said), " ".join(plain(text)))


def stages(job: Job) -> dict[str, str]:
    return {stage.stage: stage.state for stage in job.stages}


def test_a_url_becomes_a_transcript_of_who_said_what(talk: Job, steno: StenoClient, told: list[Progress]) -> None:
    assert talk.status == "completed" and not talk.degraded and talk.metadata == {"call": "1"}
    assert set(stages(talk).values()) == {"computed"}
    assert [now.status for now in told][-1] == "completed" and any(0 < now.percent < 100 for now in told)
    transcript = steno.transcript(talk)
    assert transcript.speakers == ("SPEAKER_00", "SPEAKER_01")
    assert words_wrong(" ".join(segment.text for segment in transcript.segments)) <= 0.12
    found = [(turn.speaker, turn.start, turn.end) for turn in transcript.turns]
    assert diarization_errors(turns(), found, transcript.duration).rate <= 0.08
    assert all(word.speaker in transcript.speakers for word in transcript.word_segments)
    assert talk.segments is not None and talk.segments[0]["text"] == transcript.segments[0].text


def test_it_is_to_be_had_in_every_format(talk: Job, steno: StenoClient, tmp_path: Path) -> None:
    written = steno.save(talk, tmp_path, FORMATS, name="talk")
    assert [path.suffix[1:] for path in written] == list(FORMATS)
    text = {path.suffix[1:]: path.read_text() for path in written if path.suffix != ".docx"}
    assert zipfile.is_zipfile(tmp_path / "talk.docx")
    with pytest.raises(RequestRefused, match="save"):
        steno.text(talk, "docx")
    assert text["srt"].startswith("1\n00:00:0") and text["vtt"].startswith("WEBVTT\n")
    assert all("Chicago" in text[name] for name in ("json", "srt", "vtt", "txt", "tsv", "aud"))
    assert {line.split()[7] for line in text["rttm"].splitlines()} == {"SPEAKER_00", "SPEAKER_01"}
    assert text["tsv"].splitlines()[0].split("\t")[:2] == ["start", "end"]


def test_retrying_the_speakers_computes_nothing_else(talk: Job, steno: StenoClient) -> None:
    again = steno.wait(steno.retry(talk, "diarize", max_speakers=1), timeout=240)
    assert again.job_id != talk.job_id and again.status == "completed"
    done = stages(again)
    assert {name: done[name] for name in ("segment", "asr", "align", "embed")} == dict.fromkeys(
        ("segment", "asr", "align", "embed"), "cached"
    )
    assert (done["diarize"], done["merge"]) == ("computed", "computed")
    transcript = steno.transcript(again)
    assert transcript.speakers == ("SPEAKER_00",)
    before = steno.transcript(talk)
    assert [word.word for word in transcript.word_segments] == [word.word for word in before.word_segments]
    assert len(before.speakers) == 2
    steno.delete(again)


def test_an_upload_is_transcribed_and_one_at_work_is_cancelled(service: LiveApi, steno: StenoClient, tmp_path: Path) -> None:
    part, whole = tmp_path / "part.flac", tmp_path / "whole.wav"
    soundfile.write(part, media.speech()[14 * RATE : 21 * RATE], RATE)
    # Three minutes, of which nothing is known yet.
    soundfile.write(whole, np.concatenate([media.speech()[::-1]] * 6), RATE)
    with ThreadPoolExecutor() as pool:
        long = steno.submit(whole, language="en")
        short = pool.submit(lambda: steno.wait(steno.submit(part, language="en", formats=["txt"]), timeout=240))
        service.until(long.job_id, {"processing"}, 240)
        began = _at_work(steno, long.job_id, "asr")
        assert began.status == "processing"
        steno.delete(long)
        with pytest.raises(JobDeleted):
            steno.job(long)
        assert service.deployed.wait(long.job_id, {"CANCELLED"}, 120)["state_type"] == "CANCELLED"
        job = short.result()
    assert job.status == "completed" and job.name == "part.flac" and set(job.links) == {"txt"}
    assert "Chicago" in steno.text(job, "txt")
    assert job.duration == pytest.approx(7.0, abs=0.1)


def _at_work(steno: StenoClient, job_id: str, stage: str) -> Job:
    """The job once that stage of it has begun."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        job = steno.job(job_id)
        if stages(job).get(stage) == "running" or job.status in ("completed", "failed"):
            return job
        time.sleep(0.2)
    raise AssertionError(f"{stage} was not begun")


def test_a_session_of_pieces_keeps_its_two_speakers(steno: StenoClient) -> None:
    session, samples = steno.session(language="en", diarize=True), media.speech()
    answers = [session.send(samples[first : first + 5 * RATE]) for first in range(0, len(samples), 5 * RATE)]
    answers.append(session.finish())
    words = [word for answer in answers for word in answer.word_segments]
    assert {answer.session_id for answer in answers} == {session.session_id}
    assert all(before["start"] <= after["start"] for before, after in itertools.pairwise(words))
    assert words_wrong(" ".join(segment["text"] for answer in answers for segment in answer.segments)) <= 0.25

    heard: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for word in words:
        middle = (word["start"] + word["end"]) / 2
        (speaker, *others) = [name for name, start, end in turns() if start <= middle <= end] or [""]
        if speaker and not others:
            heard[speaker][word["speaker"]] += 1
    names = {speaker: max(found, key=lambda name: found[name]) for speaker, found in heard.items()}
    assert len(names) == 2 and set(names.values()) == {word["speaker"] for word in words}
    right = sum(heard[speaker][name] for speaker, name in names.items())
    assert right >= 0.9 * sum(sum(found.values()) for found in heard.values())


def test_deleting_leaves_nothing_but_a_tombstone(talk: Job, service: LiveApi, steno: StenoClient) -> None:
    kept = service.deployed.home / "steno" / "store" / "artifacts"
    assert talk.job_id in {job.job_id for job in steno.jobs(metadata={"call": "1"})}
    before = len(_files(kept))
    steno.delete(talk)
    with pytest.raises(JobDeleted):
        steno.transcript(talk)
    assert not list(steno.jobs(metadata={"call": "1"}))
    deadline = time.monotonic() + 120
    while len(_files(kept)) >= before and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(_files(kept)) < before


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
