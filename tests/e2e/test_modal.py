"""The flow with its models on Modal: the real client, real containers with real models, a server of our own in between."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.outcome import read_outcome
from flows.request import TranscribeRequest
from flows.transcribe import transcribe
from infra.collect import Limits, collect
from infra.compute import get_store
from infra.removal import remove_run
from infra.settings import StenoSettings, get_settings
from infra.usage import CLAIM
from stenoflow.errors import ModalDenied, StenoError, WorkerLost
from tests import nemo
from tests.deployed import Deployed
from tests.modal_app import attempts, bursts, call, deployed, unfinished, until
from tests.modal_server import ModalServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REMOTE = {"Voices.segment": 1, "Speech.asr": 1, "Voices.embed": 1}


@pytest.fixture(scope="module")
def modal_server(models_dir: Path) -> Iterator[ModalServer]:
    with deployed(models_dir) as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_server: None) -> Iterator[StenoSettings]:
    """Everything under the test's folder; nothing known from other tests."""
    monkeypatch.setenv("STENO_HOME", str(tmp_path / "home"))
    get_settings.cache_clear()
    yield get_settings()
    get_settings.cache_clear()


@pytest.fixture
def server(modal_server: ModalServer) -> Iterator[ModalServer]:
    modal_server.clear_faults()
    yield modal_server
    modal_server.clear_faults()


def request(source: Path, **options: Any) -> TranscribeRequest:
    return TranscribeRequest(source=str(source), output_dir=str(source.parent / "out"), **options)


def made(server: ModalServer, since: int) -> Counter[str]:
    """The calls that compute something."""
    return Counter(each["function"] for each in server.calls[since:] if not each["function"].endswith(".ready"))


async def test_the_transcript_is_byte_for_byte_that_of_this_machine(
    server: ModalServer, home: StenoSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # The test server's containers have no GPU. What one computes has another key: its numbers are rounded otherwise.
    monkeypatch.setenv("STENO_MODAL__GPU", "[]")
    get_settings.cache_clear()
    caplog.set_level(logging.INFO, "prefect.task_runs")
    source, before = call(tmp_path / "call.wav", seconds=24.0), len(server.calls)
    on_modal = await transcribe(request(source, output_file="modal.json"))
    assert made(server, before) == REMOTE
    assert {stage.stage: stage.backend for stage in on_modal.stages if stage.backend} == {
        "segment": "modal",
        "asr": "modal",
        "embed": "modal",
        "align": "local",
        "diarize": "local",
        "merge": "local",
    }
    monkeypatch.setenv("STENO_HOME", str(tmp_path / "another"))
    get_settings.cache_clear()
    here = await transcribe(request(source, output_file="local.json", compute="local"))
    assert made(server, before) == REMOTE
    assert (tmp_path / "out/modal.json").read_bytes() == (tmp_path / "out/local.json").read_bytes()
    assert [stage.key for stage in here.stages] == [stage.key for stage in on_modal.stages]
    assert on_modal.words > 30
    # What the containers said is in the log of the tasks, with the page of each call.
    said = [record.getMessage() for record in caplog.records if record.name == "prefect.task_runs"]
    assert sum("/id/fc-" in line for line in said) == 3
    assert sum("began in container" in line for line in said) == 3
    assert not any("token" in line.lower() for line in said)


async def test_a_second_engine_runs_in_the_containers_as_it_does_here(
    server: ModalServer, home: StenoSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights, a folder of this machine, go to the volume."""
    monkeypatch.setenv("STENO_MODAL__GPU", "[]")
    get_settings.cache_clear()
    weights = str(nemo.transducer(tmp_path / "stand-in"))
    source, before = call(tmp_path / "call.wav", seed=31), len(server.calls)
    asked = {"model": weights, "language": "en", "diarize": False}
    on_modal = await transcribe(request(source, output_file="modal.json", **asked))
    assert made(server, before) == {"Voices.segment": 1, "Speech.asr": 1}
    monkeypatch.setenv("STENO_HOME", str(tmp_path / "another"))
    get_settings.cache_clear()
    await transcribe(request(source, output_file="local.json", compute="local", **asked))
    assert made(server, before) == {"Voices.segment": 1, "Speech.asr": 1}
    assert (tmp_path / "out/modal.json").read_bytes() == (tmp_path / "out/local.json").read_bytes()
    assert on_modal.words > 0
    assert {word["timing"] for word in json.loads((tmp_path / "out/modal.json").read_text())["word_segments"]} <= {
        "tokens",
        "interpolated",
    }


@pytest.mark.matrix
async def test_shards_on_several_containers_are_the_whole(
    server: ModalServer, home: StenoSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, before = bursts(tmp_path / "talk.wav", 10), len(server.calls)
    await transcribe(request(source, output_file="local.json", compute="local"))
    divided = {"HOME": str(tmp_path / "another"), "SHARDS__THRESHOLD": "5", "MODAL__SHARD_SECONDS": "10"}
    for name, value in divided.items():
        monkeypatch.setenv(f"STENO_{name}", value)
    get_settings.cache_clear()
    result = await transcribe(request(source, output_file="modal.json"))
    assert (tmp_path / "out/modal.json").read_bytes() == (tmp_path / "out/local.json").read_bytes()
    calls = made(server, before)
    assert min(calls[function] for function in REMOTE) >= 2
    assert result.words >= 20


async def test_deleting_a_run_deletes_what_it_left_on_the_volume(
    server: ModalServer, home: StenoSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Audio, words and voices, those of shards included; and later, where Modal was out of reach."""

    def on_volume() -> set[str]:
        return {name for name in server.volume("stenoflow-artifacts")["files"] if "/artifacts/" in f"/{name}"}

    for name, value in {"SHARDS__THRESHOLD": "15", "MODAL__SHARD_SECONDS": "10"}.items():
        monkeypatch.setenv(f"STENO_{name}", value)
    get_settings.cache_clear()
    before, store = on_volume(), get_store()
    await transcribe(request(call(tmp_path / "call.wav", seed=21)))
    await transcribe(request(bursts(tmp_path / "talk.wav", 10)))
    kinds = Counter(
        name.split("artifacts/")[1].split("/")[0]
        for name in on_volume() - before
        if name.endswith((".flac", ".json", ".npz", ".part"))
    )
    assert kinds == {"audio": 2, "segmentation": 2, "asr": 1, "embeddings": 1}, "of what was divided the shards are gone"
    uses = [use.path.rpartition("/")[2] for use in store.files("records/uses")]
    runs = [use for use in uses if not use.startswith(CLAIM)]  # two shards that are alike leave a claim
    assert await asyncio.to_thread(remove_run, store, get_settings(), runs[0])
    for rpc in ("VolumeRemoveFile", "VolumeRemoveFile2"):
        server.fault("refuse", rpc=rpc, count=1000, status="PERMISSION_DENIED")
    assert await asyncio.to_thread(remove_run, store, get_settings(), runs[1])
    assert not list(store.files("artifacts"))
    assert on_volume() > before
    server.clear_faults()
    await asyncio.to_thread(collect, store, get_settings(), Limits())
    assert on_volume() == before


@pytest.mark.matrix
async def test_a_store_on_s3_is_read_and_written_by_the_containers_themselves(
    server: ModalServer, models_dir: Path, prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    key = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **key).create_bucket(Bucket="steno")
    s3 = {"ENDPOINT_URL": endpoint, "KEY": "testing", "SECRET": "testing", "REGION": "us-east-1", "ADDRESSING_STYLE": "path"}
    env = {f"STENO_S3__{name}": value for name, value in s3.items()}
    server.secret("bucket", **env)
    more = {"STENO_MODAL__APP": "shared", "STENO_MODAL__S3_SECRET": "bucket", "STENO_HOME": str(tmp_path / "home")}
    for name, value in (env | more | {"STENO_STORE": "s3://steno/store"}).items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    try:
        server.deploy("infra.modal_app")
        server.seed("shared-weights", models_dir, "/models")
        before = len(server.calls)
        result = await transcribe(request(call(tmp_path / "call.wav", seed=11)))
        assert made(server, before) == REMOTE
        assert result.words > 10
        assert server.volume("shared-artifacts")["files"] == []
    finally:
        get_settings.cache_clear()
        moto.stop()


# -- what goes wrong ----------------------------------------------------------------------------------------------------


class Fault:
    """A switch, how often a call of the stage is then made, how often begun, and how the run ends."""

    def __init__(self, kind: str, calls: int = 1, began: int | None = None, ends: str = "recovered", **options: Any) -> None:
        self.kind, self.calls, self.began, self.ends, self.options = kind, calls, began, ends, options

    def __repr__(self) -> str:
        return "-".join([self.kind, *(str(value) for value in self.options.values() if isinstance(value, str))])


FAULTS = {
    "killed": Fault("kill", began=2, after=0.1),
    # The interrupt cancels asynchronous methods, so that the call ends, and the task makes another.
    "preempted": Fault("preempt", calls=2, began=2, after=0.1),
    "out of memory, run again": Fault("oom", began=2, after=0.1),
    "out of memory, given up": Fault("oom", calls=2, after=0.1, final=True),
    "killed while idle": Fault("boot"),
    "timed out": Fault("timeout", calls=2, after=0.1),
    "failed inside Modal": Fault("fail", calls=2),
    "late": Fault("delay", seconds=1.0),
    "result expired": Fault("expire"),  # the stage's answer came during the call
    "disconnected": Fault("disconnect", after=0.1, seconds=3.0),
    "reply lost": Fault("lose", rpc="FunctionMap", seconds=0.1),
    "no capacity": Fault("refuse", status="RESOURCE_EXHAUSTED"),
    "unavailable": Fault("refuse", count=5, status="UNAVAILABLE"),
    "token refused": Fault("refuse", calls=0, status="UNAUTHENTICATED", ends=ModalDenied.code),
    "always killed": Fault("kill", calls=4, began=12, count=1000, after=0.1, ends=WorkerLost.code),
}
STAGES = {"segment": "Voices.segment", "asr": "Speech.asr", "embed": "Voices.embed"}
SLICE = [("killed", "asr"), ("result expired", "segment")]


async def ends_right(server: ModalServer, tmp_path: Path, name: str, stage: str) -> str:
    """Run a recording of its own under a fault; a row for the table."""
    fault, function = FAULTS[name], STAGES[stage]
    source = call(tmp_path / "call.wav", seed=zlib.crc32(f"{name} {stage}".encode()))
    before = len(server.calls)
    server.fault(fault.kind, function, **fault.options)
    try:
        result = await transcribe(request(source, on_diarization_failure="fail"))
        ended = "recovered" if not result.degraded else str(result.error)
    except StenoError as error:
        ended = getattr(getattr(error, "__cause__", None), "code", None) or error.code
    assert len(server.faults[0]["hits"]) >= 1
    server.clear_faults()
    await until(lambda: not unfinished(server))
    calls = made(server, before)
    began = sum(len(outcomes) for each, outcomes in attempts(server, before) if each == function)
    if fault.ends == "recovered":
        assert ended == "recovered"
        assert (tmp_path / "out" / "call.json").exists()
        assert calls == REMOTE | {function: fault.calls}
        if fault.began is not None:
            assert began == fault.began
    elif stage == "embed":
        # The transcript is there, and says why it has no speakers.
        assert ended == "diarization_failed"
        assert calls[function] == fault.calls
    else:
        assert ended == fault.ends
        assert calls[function] == fault.calls
    return f"| {name} | {stage} | {calls[function]} | {began} | {ended} |"


@pytest.mark.parametrize(("name", "stage"), SLICE)
async def test_a_fault_ends_right(server: ModalServer, home: StenoSettings, tmp_path: Path, name: str, stage: str) -> None:
    print(await ends_right(server, tmp_path, name, stage))


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    rows = ["| fault | stage | calls | begun | outcome |", "| --- | --- | --- | --- | --- |"]
    yield rows
    print("\n".join(rows))


@pytest.mark.matrix
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", FAULTS)
async def test_every_fault_at_every_stage_ends_right(
    server: ModalServer, home: StenoSettings, tmp_path: Path, table: list[str], name: str, stage: str
) -> None:
    table.append(await ends_right(server, tmp_path, name, stage))


@pytest.mark.matrix
async def test_memory_that_does_not_suffice_takes_half_the_batch_twice_and_then_a_larger_gpu(
    server: ModalServer, home: StenoSettings, tmp_path: Path
) -> None:
    before = len(server.calls)
    server.fault("oom", "Speech.asr", after=0.1, final=True, count=3)
    result = await transcribe(request(call(tmp_path / "call.wav", seed=9), diarize=False))
    asr = [each for each in server.calls[before:] if each["function"] == "Speech.asr"]
    assert [each["gpu"] for each in asr] == [["L4"], ["L4"], ["L4"], ["L40S"]]
    [report] = [stage for stage in result.stages if stage.stage == "asr"]
    assert (report.attempts, report.batch_size) == (4, 2)


_RUN = """
import asyncio, sys
from flows.request import TranscribeRequest
from flows.transcribe import transcribe
asyncio.run(transcribe(TranscribeRequest.model_validate_json(sys.argv[1])))
"""


async def test_a_run_that_was_killed_finds_its_call_again(server: ModalServer, home: StenoSettings, tmp_path: Path) -> None:
    """SIGKILL to the orchestrator during ASR, which goes on without it; the next run takes its result."""
    from prefect.settings import PREFECT_API_URL

    asked = request(bursts(tmp_path / "talk.wav", 16))
    before = len(server.calls)
    env = server.environ(PREFECT_API_URL=str(PREFECT_API_URL.value()))
    orchestrator = await asyncio.create_subprocess_exec(sys.executable, "-c", _RUN, asked.model_dump_json(), env=env)
    try:
        await until(lambda: any(each["state"] == "running" for each in server.calls_of("asr")[-1:]), seconds=120)
        first = server.calls_of("asr")[-1]
    finally:
        orchestrator.send_signal(signal.SIGKILL)
        await orchestrator.wait()
    assert first["state"] == "running"
    result = await transcribe(asked)
    assert result.words > 30
    assert made(server, before)["Speech.asr"] == 1
    [asr] = [each for each in server.calls[before:] if each["function"] == "Speech.asr"]
    assert (asr["id"], [one["outcome"] for one in asr["attempts"]]) == (first["id"], ["succeeded"])
    assert not unfinished(server)


async def test_cancelling_the_run_in_prefect_ends_its_input(server: ModalServer, home: StenoSettings, tmp_path: Path) -> None:
    from prefect import get_client
    from prefect.states import Cancelled

    # Longer than a fast machine transcribes in the time that a cancellation needs to get there.
    source, before = bursts(tmp_path / "talk.wav", 40), len(server.calls)
    async with get_client() as client:
        running = asyncio.create_task(transcribe(request(source), return_state=True))
        await until(lambda: any(each["state"] == "running" for each in server.calls_of("asr")[-1:]), seconds=120)
        run = max(await client.read_flow_runs(), key=lambda each: each.created or 0)
        await client.set_flow_run_state(run.id, Cancelled(), force=True)
        began = time.monotonic()
        await until(lambda: all(each["released"] for each in server.calls[before:]), seconds=30)
        print(f"the inputs ended {time.monotonic() - began:.1f} s after the run was cancelled")
        assert (await running).is_cancelled()
    assert server.calls_of("asr")[-1]["state"] == "cancelled"
    outcome = await read_outcome(str(run.id))
    assert outcome is not None
    assert outcome.state == "canceled"


@pytest.mark.matrix
def test_cancelling_a_batch_on_workers_cancels_its_calls(server: ModalServer, tmp_path: Path) -> None:
    """Of three recordings two are in containers, and one waits for a worker."""
    for number in range(3):
        bursts(tmp_path / f"in/talk-{number}.wav", 40 + number)
    before = len(server.calls)
    env = {name: value for name, value in os.environ.items() if name.startswith("STENO_") and name != "STENO_HOME"}
    quick = {"STENO_BATCH__SETTLE_SECONDS": "0", "STENO_BATCH__POLL_SECONDS": "0.5"}
    with Deployed.start(tmp_path / "deployed", env | quick, limit=3) as running:  # the batch's own run is one of them
        asked = {"source": str(tmp_path / "in"), "output_dir": str(tmp_path / "out"), "run_on": "workers", "concurrency": 3}
        batch = running.submit(asked, "batch/folder-or-feed")
        deadline = time.monotonic() + 240
        while sum(each["state"] == "running" for each in server.calls[before:] if each["function"] == "Speech.asr") < 2:
            assert time.monotonic() < deadline, running.logs(batch)
            time.sleep(0.2)
        running.cancel(batch)
        assert running.wait(batch, timeout=120)["state_type"] == "CANCELLED"
        children = running.runs("transcribe/recording-of-batch")
        assert {running.wait(child["id"], timeout=60)["state_type"] for child in children} == {"CANCELLED"}
        assert len(children) == 3
        deadline = time.monotonic() + 60
        while not all(each["released"] for each in server.calls[before:]):
            assert time.monotonic() < deadline, unfinished(server)
            time.sleep(0.2)
    states = Counter(each["state"] for each in server.calls[before:] if each["function"] == "Speech.asr")
    assert states == {"cancelled": 2}
    assert not unfinished(server)
    assert not list((tmp_path / "out").glob("*"))


def test_the_command_line_says_what_a_container_finds(server: ModalServer, home: StenoSettings, tmp_path: Path) -> None:
    """The app asks for a GPU, which this server has none of."""
    done = subprocess.run(
        [sys.executable, "-m", "stenoflow.cli.main", "modal", "check", "--json"],
        env=server.environ(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    facts = json.loads(done.stdout)
    assert done.returncode == 4
    assert facts["problems"] == ["The app requests a GPU, but torch finds none in its container."]
    assert (facts["device"], facts["whisper"], facts["encoded"][0]) == ("cpu", "tiny.en", 1)


def test_the_command_line_names_the_command_to_run(server: ModalServer, home: StenoSettings) -> None:
    def said(**env: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "stenoflow.cli.main", "modal", "status"],
            env=server.environ(**env),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    assert said()[0] == 0
    code, text = said(STENO_MODAL__APP="another")
    assert (code, "`steno modal deploy`" in text) == (4, True)
    code, text = said(MODAL_TOKEN_SECRET="wrong")
    assert (code, "`modal token new`" in text) == (4, True)
    assert os.environ["MODAL_TOKEN_SECRET"] not in text
