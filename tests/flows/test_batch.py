"""Batches: what is taken, what is skipped, what came of each, and that neither a poison recording nor `kill -9` loses any."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext

from bench import batch as bench
from flows.batch import BatchIncomplete, BatchRequest, BatchResult, batch
from flows.batching import lease
from flows.batching.drive import BatchEvent, watching
from flows.batching.lease import BatchBusy, Lease, leased
from flows.options import TranscribeOptions
from infra.compute import get_store
from infra.settings import StenoSettings, get_settings
from tests.prefect_home import prefect_home
from tests.stage_double import recording
from tests.stub_compute import BACKEND, events, executions

pytestmark = [pytest.mark.usefixtures("prefect_server", "steno"), pytest.mark.slow]


class Place:
    """A folder to list, one for outputs, and what the stages do."""

    def __init__(self, home: Path) -> None:
        self.source, self.out, self.log, self._plan = home / "in", home / "out", home / "stages.log", home / "plan.json"
        self.plan()

    def plan(self, **changes: Any) -> None:
        self._plan.write_text(json.dumps({"log": str(self.log)} | changes))

    def request(self, **options: Any) -> BatchRequest:
        return BatchRequest(**{"source": str(self.source), "output_dir": str(self.out)} | options)

    def outputs(self) -> list[str]:
        return sorted(str(path.relative_to(self.out)) for path in self.out.rglob("*.json"))

    def table(self) -> dict[str, dict[str, str]]:
        """The last CSV's rows by recording."""
        path = max(self.out.glob("batch-*.csv"), key=lambda path: path.stat().st_mtime_ns)
        with path.open(newline="") as file:
            return {row["name"]: row for row in csv.DictReader(file)}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("STENO_COMPUTE__BACKEND", BACKEND)
    monkeypatch.setenv("STUB_PLAN", str(tmp_path / "plan.json"))
    monkeypatch.setenv("STENO_BATCH__SETTLE_SECONDS", "0")
    monkeypatch.setenv("STENO_BATCH__LEASE_SECONDS", "5")
    monkeypatch.setenv("STENO_RECOVERY__RESTARTS", "1")
    monkeypatch.setenv("STENO_MODEL", "tiny.en")
    get_settings.cache_clear()
    return Place(tmp_path)


async def run(request: BatchRequest) -> BatchResult:
    """What came of the batch, whether or not all of it went well."""
    try:
        return await batch(request)
    except BatchIncomplete as error:
        assert error.result is not None
        return error.result


async def children(batch_run: str) -> list[FlowRun]:
    async with get_client() as client:
        wanted = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId.model_validate({"any_": [batch_run]}))
        return list(await client.read_flow_runs(flow_run_filter=wanted))


def audio_sha256(path: Path) -> str:
    from speech.audio import normalise

    # Not beside it: whatever holds sound in the source is a recording, whatever it is called.
    return normalise(path, path.parents[1] / f"{path.stem}.flac", max_duration=60.0).sha256


async def test_a_batch_takes_what_is_new_and_says_what_came_of_each(place: Place) -> None:
    for number in range(2):
        recording(place.source / f"talk-{number}.wav", seed=number, seconds=1.0)
    (place.source / "broken.mp3").write_bytes(b"no sound at all")
    seen: list[BatchEvent] = []
    with watching(seen.append):
        result = await run(place.request())

    assert (result.done, result.failed, result.exit_code) == (2, 1, 3)
    assert place.outputs() == ["talk-0.json", "talk-1.json"]
    rows = place.table()
    assert {name: row["state"] for name, row in rows.items()} == {
        "talk-0.wav": "done",
        "talk-1.wav": "done",
        "broken.mp3": "failed",
    }
    assert rows["broken.mp3"]["code"] == "unreadable_media"
    assert float(rows["talk-0.wav"]["duration_seconds"]) == 1.0
    started = next(event.run for event in seen if event.kind == "started")
    runs = await children(started)
    assert {child.name: child.state_name for child in runs} == {
        "talk-0.wav": "Completed",
        "talk-1.wav": "Completed",
        "broken.mp3": "Failed",
    }
    async with get_client() as client:
        ended = await client.read_flow_run(started)  # type: ignore[arg-type]
        assert (ended.state_name, ended.name) == ("Incomplete", "batch of in")
        assert ended.state is not None
        assert "2 done, 1 failed" in (ended.state.message or "")
        artifacts = (
            await client.request("POST", "/artifacts/filter", json={"artifacts": {"flow_run_id": {"any_": [started]}}})
        ).json()
    assert {"batch", "batch-recordings"} <= {artifact["key"] for artifact in artifacts}

    again = await run(place.request())
    assert (again.skipped, again.done, again.exit_code, again.table) == (3, 0, 0, None)
    assert executions(place.log)["asr"] == 2

    recording(place.source / "talk-2.wav", seed=2, seconds=1.0)
    (place.out / "talk-0.json").unlink()
    third = await run(place.request())
    assert (third.done, third.skipped) == (2, 2)
    assert place.outputs() == ["talk-0.json", "talk-1.json", "talk-2.json"]
    assert executions(place.log)["asr"] == 3  # what was deleted is written again, not computed again


async def test_a_poison_recording_is_set_aside_and_the_innocent_are_done(place: Place) -> None:
    for number in range(5):
        recording(place.source / f"talk-{number}.wav", seed=number, seconds=1.0)
    poison = audio_sha256(place.source / "talk-1.wav")
    place.plan(poison=[poison], seconds={"segment": 0.3})
    result = await run(place.request(concurrency=3))
    assert (result.done, result.quarantined, result.exit_code) == (4, 1, 8)
    assert place.table()["talk-1.wav"]["state"] == "quarantined"
    assert "died" in place.table()["talk-1.wav"]["detail"]

    place.plan()
    later = await run(place.request())
    assert (later.skipped, later.done) == (5, 0)
    retried = await run(place.request(retry_failed=True))
    assert (retried.done, retried.skipped) == (1, 4)


async def test_rows_of_a_manifest_have_options_and_names_of_their_own(place: Place) -> None:
    one = recording(place.source / "one/talk.wav", seed=1, seconds=1.0)
    two = recording(place.source / "two/talk.wav", seed=2, seconds=1.0)
    manifest = place.source / "list.csv"
    manifest.write_text(
        f'source,diarize,name,formats\n{one},false,,\n{two},,,\none/talk.wav,,Named / so,"srt,json"\n{one},maybe,,\n,,,\ngone.wav,,,\n'
    )
    result = await run(place.request(source=str(manifest), options=TranscribeOptions(language="en"), concurrency=1))
    assert (result.done, result.failed) == (3, 2)
    assert place.outputs() == ["Named - so.json", "talk.json", "talk_wav.json"]
    assert (place.out / "Named - so.srt").is_file()
    speakers = {name: json.loads((place.out / name).read_text())["options"]["diarize"] for name in place.outputs()}
    assert speakers == {"Named - so.json": True, "talk.json": False, "talk_wav.json": True}
    failed = {(row["line"], row["code"]) for row in place.table().values() if row["state"] == "failed"}
    assert failed == {("5", "invalid_option"), ("7", "source_not_found")}


async def test_a_limit_leaves_the_rest_for_the_next_time(place: Place) -> None:
    for number in range(3):
        path = recording(place.source / f"talk-{number}.wav", seed=number, seconds=1.0)
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))
    first = await run(place.request(limit=2, order="newest"))
    assert (first.done, first.more) == (2, True)
    assert place.outputs() == ["talk-1.json", "talk-2.json"]
    second = await run(place.request(limit=2, order="newest"))
    assert (second.done, second.skipped, second.more) == (1, 2, False)


async def test_an_error_that_passes_is_tried_again_by_the_next_batch(place: Place) -> None:
    recording(place.source / "talk.wav", seed=1, seconds=1.0)
    place.plan(fail={"asr": {"error": "TransientError", "times": 100}})
    first = await run(place.request())
    assert (first.failed, first.exit_code) == (1, 6)
    place.plan()
    assert (await run(place.request())).done == 1
    assert executions(place.log)["segment"] == 1


async def test_two_batches_of_the_same_do_not_overlap(place: Place) -> None:
    recording(place.source / "talk.wav", seed=1, seconds=1.0)
    request = place.request()
    async with leased(request.key(get_settings()), "another"):
        with pytest.raises(BatchBusy, match="another"):
            await batch(request)
    assert (await run(request)).done == 1


async def test_the_lease_of_a_batch_that_died_is_taken_over(steno: StenoSettings) -> None:
    for changes in ({}, {"run": "mine", "until": time.time() + 999}, {"until": 0.0}):
        dead = {"campaign": "before", "run": "dead", "process": "elsewhere/boot/1/1/x", "until": time.time() + 1.0} | changes
        get_store().write_record("batches/key", Lease.model_validate(dead).model_dump_json().encode())
        async with leased("key", "mine") as taken:
            assert taken == "before"
    async with leased("key", "mine") as fresh:
        assert fresh != "before"  # the last one ended well and gave it back


async def test_a_lease_that_is_given_back_while_it_is_renewed_is_gone(
    steno: StenoSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STENO_BATCH__LEASE_SECONDS", "5")
    get_settings.cache_clear()
    write, writing = lease._write, threading.Event()

    def slowly(*arguments: Any) -> None:
        writing.set()
        time.sleep(0.5)
        write(*arguments)

    async with leased("key", "mine"):
        monkeypatch.setattr(lease, "_write", slowly)
        await asyncio.to_thread(writing.wait, 60)
    await asyncio.sleep(0.7)
    assert lease._read("key") is None


async def test_a_batch_whose_lease_another_has_taken_over_stops(place: Place) -> None:
    async def hold() -> None:
        async with leased("key", "mine"):
            get_store().write_record(
                "batches/key",
                Lease(campaign="c", run="other", process="elsewhere/boot/1/1/x", until=time.time() + 99)
                .model_dump_json()
                .encode(),
            )
            await asyncio.sleep(60)

    with pytest.raises(BatchBusy):
        await hold()
    assert b"other" in (get_store().read_record("batches/key") or b"")


async def test_a_transcript_without_speakers_counts_as_done_where_that_was_asked_for(place: Place) -> None:
    recording(place.source / "talk.wav", seed=1, seconds=1.0)
    place.plan(fail={"cluster": {"error": "GatedModel", "times": 100}})
    strict = await run(place.request())
    assert (strict.failed, strict.exit_code) == (1, 7)
    lenient = await run(place.request(options=TranscribeOptions(on_diarization_failure="degrade")))
    assert (lenient.done, lenient.exit_code) == (1, 0)
    assert "without speakers" in place.table()["talk.wav"]["detail"]


async def test_retry_of_a_failed_batch_tries_again_what_failed(place: Place) -> None:
    from prefect.flow_engine import run_flow_async
    from prefect.states import Scheduled

    recording(place.source / "talk.wav", seed=1, seconds=1.0)
    place.plan(fail={"asr": {"error": "GatedModel", "times": 100}})
    seen: list[BatchEvent] = []
    with watching(seen.append):
        assert (await run(place.request())).failed == 1
    place.plan()
    async with get_client() as client:
        batch_run = seen[0].run
        await client.set_flow_run_state(batch_run, Scheduled(name="AwaitingRetry"), force=True)  # type: ignore[arg-type]
        again = await client.read_flow_run(batch_run)  # type: ignore[arg-type]
    assert FlowRunContext.get() is None
    state: Any = await run_flow_async(batch, flow_run=again, parameters=dict(again.parameters), return_type="state")
    assert state.is_completed()
    assert place.outputs() == ["talk.json"]


async def test_the_table_of_a_retried_batch_tells_of_all_its_recordings(place: Place) -> None:
    from prefect.flow_engine import run_flow_async
    from prefect.states import Scheduled

    for number in range(2):
        recording(place.source / f"talk-{number}.wav", seed=number, seconds=1.0)
    (place.source / "talk-2.wav").write_text("no sound at all, " * 50)
    seen: list[BatchEvent] = []
    with watching(seen.append):
        first = await run(place.request())
    assert (first.done, first.failed) == (2, 1)
    recording(place.source / "talk-2.wav", seed=2, seconds=1.0)
    async with get_client() as client:
        await client.set_flow_run_state(seen[0].run, Scheduled(name="AwaitingRetry"), force=True)  # type: ignore[arg-type]
        again = await client.read_flow_run(seen[0].run)  # type: ignore[arg-type]
    state: Any = await run_flow_async(batch, flow_run=again, parameters=dict(again.parameters), return_type="state")
    result = await state.aresult()
    assert (result.done, result.skipped, result.sentence) == (3, 0, "3 done.")
    assert {row["state"] for row in place.table().values()} == {"done"}
    assert set(place.table()) == {f"talk-{number}.wav" for number in range(3)}
    later = await run(place.request())
    assert (later.done, later.skipped) == (0, 3)


async def test_a_batch_killed_on_the_way_goes_on_where_it_was(place: Place, tmp_path: Path) -> None:
    """The user gives the command again: nothing finished is computed again, nothing stays running in Prefect."""
    from prefect.settings import get_current_settings

    for number in range(4):
        recording(place.source / f"talk-{number}.wav", seed=number, seconds=1.0)
    place.plan(seconds={"asr": 1.5})
    env = os.environ | get_current_settings().to_environment_variables(exclude_unset=True)
    command = [
        sys.executable,
        "-m",
        "stenoflow.cli.main",
        "batch",
        str(place.source),
        "-o",
        str(place.out),
        "--concurrency",
        "2",
        "--json",
    ]
    first = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: ASYNC220
    try:
        await until(lambda: len(events(place.log, "end")) >= 10 and bool(unfinished(place.log)))
    finally:
        first.kill()
        first.wait()
    done = await asyncio.to_thread(subprocess.run, command, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert Counter(line["state"] for line in told if line["type"] == "recording") == {"done": 4}
    assert told[-1]["type"] == "batch"
    assert place.outputs() == [f"talk-{number}.json" for number in range(4)]
    finished = Counter((line["stage"], line["key"]) for line in events(place.log, "end"))
    assert set(finished.values()) == {1}
    async with get_client() as client:
        runs = [
            child
            for child in await client.read_flow_runs(limit=200)
            if child.name.startswith("talk-") and "in/talk" in str(child.parameters)
        ]
    mine = [child for child in runs if str(tmp_path) in str(child.parameters)]
    assert Counter(child.state_name for child in mine) == {"Completed": 4}


def unfinished(log: Path) -> set[str]:
    """Keys of stages that were begun and have not ended."""
    return {line["key"] for line in events(log, "begin")} - {line["key"] for line in events(log, "end")}


async def until(happened: Any, patience: float = 120) -> None:
    deadline = time.monotonic() + patience
    while not happened():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


@pytest.mark.timeout(900)
def test_a_batch_under_fire_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """A slice of `bench.batch`: S3 with faults, a poison recording, errors that pass, the command killed and given again."""
    prefect_home(tmp_path / "prefect")
    outcome = bench.run(8, 1, 4, tmp_path, restarts=1)
    assert bench.problems(outcome) == []
    assert outcome.faults


@pytest.mark.matrix
@pytest.mark.timeout(7200)
def test_a_thousand_recordings_under_fire(tmp_path: Path) -> None:
    outcome = bench.run(1000, 2, 8, tmp_path, verbose=True)
    bench.show(outcome, 8)
    assert bench.problems(outcome) == []
    for process in ("batch", "executor"):
        early, late = outcome.usage.peak(process, 200), outcome.usage.peak(process, 1000)
        assert late < 1.3 * early
