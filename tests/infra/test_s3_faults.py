"""The store on S3 when S3 misbehaves: throttled, failing, slow, cut off, away, and with what crashes leave behind."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from infra.artifacts import ArtifactRef
from infra.settings import S3Settings
from infra.store import Store
from stenoflow.errors import ArtifactMissing, Retry, TransientError
from tests.s3_faults import FaultyS3

pytestmark = pytest.mark.slow

SMALL = random.Random(1).randbytes(3_000)
LARGE = random.Random(2).randbytes(33 << 20)
"""Travels in parts, both ways."""


def opened(service: FaultyS3, bucket: str, folder: Path, **settings: Any) -> Store:
    return Store(f"s3://{bucket}/team/store", folder / "scratch", service.settings.model_copy(update=settings))


@pytest.fixture
def bucket(faulty_s3: FaultyS3) -> str:
    return faulty_s3.bucket()


@pytest.fixture
def store(faulty_s3: FaultyS3, bucket: str, tmp_path: Path) -> Store:
    return opened(faulty_s3, bucket, tmp_path)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    path = tmp_path / "output.json"
    path.write_bytes(SMALL)
    return path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.npz"
    path.write_bytes(LARGE)
    return path


def content(store: Store, ref: ArtifactRef) -> bytes:
    with store.local(ref) as path:
        return path.read_bytes()


def test_five_in_a_hundred_errors_are_not_noticed(store: Store, faulty_s3: FaultyS3, tmp_path: Path) -> None:
    faulty_s3.set({"fault": "error", "rate": 0.05})
    for number in range(25):
        path = tmp_path / f"{number}.json"
        path.write_bytes(SMALL + bytes([number]))
        ref = store.put(path, "asr")
        store.write_record(f"r{number}", b"%d" % number)
        assert content(store, ref) == SMALL + bytes([number])
        assert store.read_record(f"r{number}") == b"%d" % number
    assert faulty_s3.state()["faults"]["error"] >= 3


@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "error", "status": 503, "times": 3},
        {"fault": "error", "status": 500, "times": 3},
        {"fault": "error", "status": 429, "times": 3},
        {"fault": "refuse", "times": 3},
        {"fault": "lost", "times": 2},
        {"fault": "cut_up", "times": 2},
        {"fault": "cut_down", "times": 2},
    ],
    ids=lambda fault: f"{fault['fault']} {fault.get('status', '')}".strip(),
)
def test_a_fault_that_passes_is_not_noticed(store: Store, faulty_s3: FaultyS3, output: Path, fault: dict[str, Any]) -> None:
    faulty_s3.set(fault | {"method": "PUT"}) if fault["fault"] != "cut_down" else None
    ref = store.put(output, "asr")
    store.write_record("key", SMALL)
    faulty_s3.set(fault | {"method": "GET"}) if fault["fault"] != "cut_up" else None
    assert content(store, ref) == SMALL
    assert store.read_record("key") == SMALL
    assert faulty_s3.state()["faults"].get(fault["fault"], 0) == (fault["times"] if fault["fault"] != "cut_up" else 2)


def test_large_artifacts_travel_in_parts_through_faults(store: Store, faulty_s3: FaultyS3, large: Path) -> None:
    faulty_s3.set({"fault": "error", "every": 3}, {"fault": "cut_up", "every": 4}, {"fault": "cut_down", "every": 3})
    ref = store.put(large, "segmentation")
    assert content(store, ref) == LARGE
    state = faulty_s3.state()
    assert sum("partNumber" in request for request in state["requests"]) >= 3
    assert set(state["faults"]) == {"error", "cut_up", "cut_down"}


def test_what_hangs_or_trickles_is_asked_for_again(faulty_s3: FaultyS3, bucket: str, tmp_path: Path, output: Path) -> None:
    store = opened(faulty_s3, bucket, tmp_path, timeout=0.5)
    ref = store.put(output, "asr")
    store.write_record("key", SMALL)
    for fault in ({"fault": "hang", "times": 1}, {"fault": "trickle", "bytes_per_second": 400, "times": 1, "method": "GET"}):
        faulty_s3.set(fault)
        assert store.read_record("key") == SMALL
        faulty_s3.set(fault)
        assert content(store, ref) == SMALL
        assert faulty_s3.state()["faults"] == {fault["fault"]: 1}


def test_a_service_that_stays_away_is_transient_and_then_back(
    faulty_s3: FaultyS3, bucket: str, tmp_path: Path, output: Path
) -> None:
    store = opened(faulty_s3, bucket, tmp_path, patience=0)
    ref = store.put(output, "asr")
    for rule in ({"fault": "refuse"}, {"fault": "error"}):
        faulty_s3.set(rule)
        for work in (lambda: store.write_record("key", b"1"), lambda: content(store, ref)):
            with pytest.raises(TransientError, match="try again later") as failure:
                work()
            assert failure.value.retry is Retry.LATER
    faulty_s3.clear()
    assert content(store, ref) == SMALL


def test_one_owner_of_retries(faulty_s3: FaultyS3, bucket: str, tmp_path: Path) -> None:
    """botocore, s3fs and the store each retry by themselves; multiplied, a dead service would be asked for minutes."""
    store = opened(faulty_s3, bucket, tmp_path, patience=0)
    for rule in ({"fault": "refuse"}, {"fault": "error", "status": 500}, {"fault": "error", "status": 503}):
        faulty_s3.set(rule)
        with pytest.raises(TransientError):
            store.read_record("key")
        # aiohttp repeats a request once by itself when a kept connection turns out to be closed.
        assert len(faulty_s3.requests()) <= (6 if rule["fault"] == "refuse" else 3)


def test_an_outage_shorter_than_the_patience_is_waited_for(store: Store, faulty_s3: FaultyS3, output: Path) -> None:
    faulty_s3.outage(2)
    ref = store.put(output, "asr")
    assert content(store, ref) == SMALL


def test_a_damaged_object_is_never_used_and_makes_way(store: Store, faulty_s3: FaultyS3, bucket: str, output: Path) -> None:
    ref = store.put(output, "asr")
    for damaged in (SMALL[:1000], b"", SMALL[:-1] + b"x"):
        faulty_s3.client().put_object(Bucket=bucket, Key=f"team/store/{ref.path}", Body=damaged)
        with pytest.raises(ArtifactMissing, match="run again"), store.local(ref):
            pass
        assert store.put(output, "asr") == ref
        assert content(store, ref) == SMALL


def test_a_miss_is_one_request(store: Store, faulty_s3: FaultyS3) -> None:
    assert store.read_record("key") is None
    assert not store.exists("artifacts/asr/aa/none.json")
    assert len(faulty_s3.requests()) == 2


def test_a_writer_that_is_killed_leaves_nothing_that_can_be_read(
    faulty_s3: FaultyS3, bucket: str, store: Store, large: Path
) -> None:
    """Killed in the middle of a parted upload: no artifact, and the parts are aborted by the collector."""
    faulty_s3.set({"fault": "hang", "method": "PUT", "path": "partNumber=3"})
    writer = subprocess.Popen([sys.executable, "-c", WRITER, faulty_s3.endpoint, store.url, str(large)])
    while "hang" not in faulty_s3.state()["faults"]:
        time.sleep(0.05)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    faulty_s3.clear()
    digest = hashlib.sha256(LARGE).hexdigest()
    assert not store.exists(f"artifacts/segmentation/{digest[:2]}/{digest}.npz")
    assert store.abort_uploads(3600, dry_run=True) == 1  # for moto every upload was begun in 2010
    assert store.abort_uploads(3600) == 1
    assert store.abort_uploads(3600) == 0
    assert content(store, store.put(large, "segmentation")) == LARGE


WRITER = """
import sys
from pathlib import Path
from infra.settings import S3Settings
from infra.store import Store
endpoint, url, path = sys.argv[1:]
s3 = S3Settings(endpoint_url=endpoint, region="us-east-1", key="testing", secret="testing", addressing_style="path")
Store(url, Path(path).parent / "writer", s3).put(Path(path), "segmentation")
"""


@pytest.mark.parametrize(
    ("style", "address"), [("path", "http://localhost:9/bucket/key?"), ("virtual", "http://bucket.localhost:9/key?")]
)
def test_settings_say_how_buckets_are_addressed(style: Any, address: str) -> None:
    from infra.storage.s3_files import PatientS3

    s3 = S3Settings(endpoint_url="http://localhost:9", region="eu-north-1", key="who", secret="s", addressing_style=style)
    signed = PatientS3.of(s3).url("bucket/key")
    assert signed.startswith(address)
    assert "Credential=who" in signed
    assert "eu-north-1" in signed
