"""What a page needs, at the API: audio by ranges, peaks, segments, corrections that are never lost, their history, exports."""

from __future__ import annotations

import concurrent.futures
import io
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import soundfile

from tests.api.guarded import GuardedApi
from tests.api.live import LiveApi


@pytest.fixture(scope="module")
def job(served_api: LiveApi) -> Iterator[str]:
    """A job with speakers, of four seconds of a recording."""
    served_api.deployed.plan()
    job_id = served_api.submit({"audio_url": served_api.recording(seconds=4.0), "diarize": True, "max_speakers": 1})
    assert served_api.ended(job_id)["status"] == "completed"
    yield job_id
    served_api.request("DELETE", f"/transcribes/{job_id}")


def edit(live: LiveApi, job: str, base: int, *operations: dict[str, Any]) -> httpx.Response:
    return live.request("PATCH", f"/transcribes/{job}/edits", json={"base": base, "operations": operations})


def segments(live: LiveApi, job: str, **params: Any) -> dict[str, Any]:
    answer = live.get(f"/transcribes/{job}/segments", params=params)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def latest(live: LiveApi, job: str) -> int:
    return int(segments(live, job)["revision"])


def test_audio_is_played_from_anywhere(live_api: LiveApi, job: str) -> None:
    whole = live_api.get(f"/transcribes/{job}/audio")
    assert (whole.status_code, whole.headers["content-type"]) == (200, "audio/flac")
    samples, rate = soundfile.read(io.BytesIO(whole.content))
    assert (rate, len(samples)) == (16_000, 64_000)
    for asked, begin, end in (("0-99", 0, 100), ("100-", 100, None), ("-50", -50, None)):
        part = live_api.get(f"/transcribes/{job}/audio", headers={"Range": f"bytes={asked}"})
        assert (part.status_code, part.content) == (206, whole.content[begin:end])
        assert re.fullmatch(rf"bytes \d+-\d+/{len(whole.content)}", part.headers["content-range"])
    beyond = live_api.get(f"/transcribes/{job}/audio", headers={"Range": f"bytes={len(whole.content)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(whole.content)}")
    assert beyond.headers["content-type"] == "application/problem+json"


def test_peaks_are_those_of_the_recording(live_api: LiveApi, job: str) -> None:
    for _ in range(2):  # computed, and kept
        found = live_api.get(f"/transcribes/{job}/peaks").json()
        assert (found["duration"], found["per_second"], len(found["peaks"])) == (4.0, 20, 80)
    samples, _ = soundfile.read(io.BytesIO(live_api.get(f"/transcribes/{job}/audio").content))
    assert found["peaks"][10] == int(abs(samples[8000:8800]).max() * 255)


def test_a_corrected_transcript_is_what_every_export_shows_until_it_is_undone(live_api: LiveApi, job: str) -> None:
    base = latest(live_api, job)
    before = {kind: live_api.get(f"/transcribes/{job}.{kind}").content for kind in ("json", "srt", "txt", "rttm")}
    first = segments(live_api, job)["segments"][0]
    words = [word["word"].strip() for word in first["words"]]
    text = " ".join(["<b>Good</b>", *words[1:]])
    made = edit(
        live_api,
        job,
        base,
        {"op": "text", "segment": first["id"], "text": text},
        {"op": "name", "speaker": first["speaker"], "name": 'Anna "<i>" Müller'},
    ).json()
    assert made["revision"] == base + 1
    assert [word["word"].strip() for word in made["segments"][0]["words"]] == text.split()
    assert made["segments"][0]["words"][1:] == first["words"][1:]
    assert made["segments"][0]["words"][0]["timing"] == "edited"
    srt = live_api.get(f"/transcribes/{job}.srt").text
    assert "<b>Good</b>" in srt
    assert 'Anna "<i>" Müller' in srt
    file = live_api.get(f"/transcribes/{job}.json").json()
    assert file["speaker_names"] == {first["speaker"]: 'Anna "<i>" Müller'}
    assert file["segments"][0]["speaker"] == first["speaker"]
    assert live_api.get(f"/transcribes/{job}.srt", params={"revision": base}).content == before["srt"]
    assert live_api.get(f"/transcribes/{job}.srt", params={"revision": base + 9}).json()["code"] == "unknown_revision"
    undone = edit(live_api, job, base + 1, {"op": "undo", "revision": base + 1}).json()
    assert (undone["undo"], undone["redo"]) == (None, base + 2)
    for kind, content in before.items():
        assert live_api.get(f"/transcribes/{job}.{kind}").content == content, kind
    redone = edit(live_api, job, base + 2, {"op": "undo", "revision": base + 2}).json()
    assert (redone["undo"], redone["redo"]) == (base + 1, None)
    assert live_api.get(f"/transcribes/{job}.srt").text == srt
    edit(live_api, job, base + 3, {"op": "undo", "revision": base + 1})
    history = live_api.get(f"/transcribes/{job}/revisions").json()["revisions"]
    assert [one["active"] for one in history[base:]] == [False, False, True, True]
    diff = live_api.get(f"/transcribes/{job}/revisions/{base + 1}", params={"since": base}).json()
    assert [one["text"] for one in diff["segments"]] == [text]


def test_corrections_of_an_old_revision_are_merged_or_refused(live_api: LiveApi, job: str) -> None:
    base = latest(live_api, job)
    words = segments(live_api, job)["segments"][0]["words"]
    one = edit(live_api, job, base, {"op": "replace", "words": [words[0]["id"]], "text": "Fine"})
    assert (one.status_code, one.json()["merged"]) == (200, False)
    other = edit(live_api, job, base, {"op": "replace", "words": [words[1]["id"]], "text": "evening"})
    assert (other.status_code, other.json()["merged"]) == (200, True)
    shown = [word["word"].strip() for word in other.json()["segments"][0]["words"]]
    assert shown[:2] == ["Fine", "evening"]
    same = edit(live_api, job, base, {"op": "replace", "words": [words[0]["id"]], "text": "Great"})
    assert (same.status_code, same.json()["code"], same.json()["revision"]) == (409, "edits_overlap", base + 2)
    assert [since["revision"] for since in same.json()["since"]] == [base + 1, base + 2]
    assert same.json()["since"][0]["operations"][0]["text"] == "Fine"
    assert latest(live_api, job) == base + 2
    for wrong, status in (
        ({"op": "replace", "words": ["w999"], "text": "x"}, 409),
        ({"op": "split", "before": words[0]["id"]}, 409),
        ({"op": "name", "speaker": "SPEAKER_77", "name": "x"}, 409),
        ({"op": "undo", "revision": base + 99}, 409),
        ({"op": "burn"}, 422),
    ):
        assert edit(live_api, job, base + 2, wrong).status_code == status, wrong
    assert latest(live_api, job) == base + 2


def test_another_number_of_speakers_keeps_what_was_corrected(live_api: LiveApi, job: str) -> None:
    base = latest(live_api, job)
    first = segments(live_api, job)["segments"][0]
    words = [word["word"].strip() for word in first["words"]]
    text = " ".join([*words[:-1], "carried-4711"])
    edit(
        live_api,
        job,
        base,
        {"op": "text", "segment": first["id"], "text": text},
        {"op": "name", "speaker": first["speaker"], "name": "Anna"},
    ).raise_for_status()
    again = live_api.post(f"/transcribes/{job}/retry", json={"from": "diarize", "max_speakers": 3}).json()["job_id"]
    assert again != job
    assert live_api.ended(again)["status"] == "completed"
    found = segments(live_api, again)
    assert "carried-4711" in " ".join(one["text"] for one in found["segments"])
    assert "Anna" in found["speakers"].values()
    history = live_api.get(f"/transcribes/{again}/revisions").json()["revisions"]
    assert "carried-4711" in live_api.get(f"/transcribes/{again}.srt").text
    edit(live_api, job, base + 1, {"op": "undo", "revision": base + 1}).raise_for_status()
    edit(live_api, again, len(history), {"op": "undo", "revision": len(history)}).raise_for_status()
    assert "carried-4711" not in live_api.get(f"/transcribes/{again}.srt").text


def test_no_correction_is_lost_when_many_write_at_once_and_the_service_is_killed(live_api: LiveApi, job: str) -> None:
    base = latest(live_api, job)
    labels = [f"SPEAKER_{number:02d}" for number in range(20, 28)]
    first = segments(live_api, job)["segments"][0]["id"]

    def insert(label: str) -> int:
        made = {"op": "insert", "after": first, "start": 3.5, "end": 3.6, "text": label, "speaker": label}
        for _ in range(50):
            answer = edit(live_api, job, latest(live_api, job), made)
            if answer.status_code == 200:
                return 200
        return answer.status_code

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        assert set(threads.map(insert, labels)) == {200}
    live_api.kill_api()
    live_api.start_api()
    found = segments(live_api, job)
    assert found["revision"] == base + len(labels)
    assert {one["text"] for one in found["segments"]} >= set(labels)
    pages = [segments(live_api, job, first=at, limit=3)["segments"] for at in range(0, found["total"], 3)]
    assert [one["id"] for page in pages for one in page] == [one["id"] for one in found["segments"]]


def test_what_is_deleted_takes_its_corrections_and_waveform_with_it(live_api: LiveApi) -> None:
    job = live_api.submit({"audio_url": live_api.recording(seconds=2.0)})
    live_api.ended(job)
    live_api.get(f"/transcribes/{job}/peaks").raise_for_status()
    first = segments(live_api, job)["segments"][0]["id"]
    edit(live_api, job, 0, {"op": "text", "segment": first, "text": "whispered-7319"}).raise_for_status()
    store = live_api.deployed.home
    kept = [path for path in store.rglob("*") if path.is_file() and b"whispered-7319" in path.read_bytes()]
    assert [path.parent.name for path in kept] == ["edits"]
    waveforms = set(store.rglob("peaks-*"))
    live_api.request("DELETE", f"/transcribes/{job}").raise_for_status()
    deadline = time.monotonic() + 60
    while kept[0].exists() or not set(store.rglob("peaks-*")) < waveforms:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert segments_status(live_api, job) == 404


def segments_status(live: LiveApi, job: str) -> int:
    return live.get(f"/transcribes/{job}/segments").status_code


def test_another_owners_audio_waveform_and_corrections_do_not_exist(guarded_api: GuardedApi) -> None:
    live = guarded_api.live
    alice, bob = ({"Authorization": f"Bearer {key}"} for key in (guarded_api.key, guarded_api.other))
    nobody = {"Authorization": ""}
    path = live.file(seconds=1.0)
    with path.open("rb") as file:
        job = live.request("POST", "/transcribes", files={"file": (path.name, file)}, headers=alice).json()["job_id"]
    while live.get(f"/transcribes/{job}?wait=1", headers=alice).json()["status"] != "completed":
        pass
    for place in ("audio", "peaks", "segments", "revisions", "revisions/0"):
        assert live.get(f"/transcribes/{job}/{place}", headers=alice).status_code == 200, place
        assert live.get(f"/transcribes/{job}/{place}", headers=bob).status_code == 404, place
        assert live.get(f"/transcribes/{job}/{place}", headers=nobody).status_code == 401, place
    body = {"base": 0, "operations": [{"op": "delete", "segments": ["s0"]}]}
    for headers, status in ((bob, 404), (nobody, 401), (alice | {"Origin": "https://evil.example"}, 403), (alice, 200)):
        assert live.request("PATCH", f"/transcribes/{job}/edits", json=body, headers=headers).status_code == status
