"""The artifact store on a folder, on an object store (moto's S3), and in memory."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.artifacts import ArtifactRef
from infra.settings import S3Settings
from infra.store import Store
from stenoflow.errors import ArtifactMissing, OutputNotWritable, Retry, StorageFull, TransientError
from tests.damage import flac
from tests.infra.conftest import BODY, SHA256, FaultServer, make_settings, s3_client


@pytest.fixture(params=["folder", "s3", "memory", "google_storage", "azure_storage"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store(str(tmp_path / "store"), tmp_path / "scratch")
    if request.param == "memory":
        return Store(f"memory://{uuid.uuid4().hex}/store", tmp_path / "scratch")
    if request.param != "s3":
        return Store(f"{request.getfixturevalue(request.param)()}/team/store", tmp_path / "scratch")
    bucket, s3 = request.getfixturevalue("bucket"), request.getfixturevalue("s3")
    return Store(f"s3://{bucket}/team/store", tmp_path / "scratch", s3)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    path = tmp_path / "output.json"
    path.write_bytes(BODY)
    return path


def written(store: Store) -> set[str]:
    """Every file under the store's root, relative to it."""
    return {file.path for file in store.files("", parts=True)}


def test_what_is_put_can_be_read(store: Store, output: Path) -> None:
    ref = store.put(output, "asr", meta={"language": "en"})
    assert (ref.kind, ref.sha256, ref.bytes, ref.meta) == ("asr", SHA256, len(BODY), {"language": "en"})
    assert ref.path == f"artifacts/asr/{SHA256[:2]}/{SHA256}.json"
    with store.local(ref) as path:
        assert path.read_bytes() == BODY
    assert store.exists(ref.path)
    assert store.uri(ref).endswith(ref.path)
    assert written(store) == {ref.path}


def test_the_same_content_is_written_once(store: Store, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = store.put(output, "asr")
    before = list(store.files("artifacts"))
    assert store.put(output, "asr") == first
    assert list(store.files("artifacts")) == before


def test_audio_named_by_its_samples_keeps_the_file_that_was_first(store: Store, tmp_path: Path) -> None:
    """Another encoder gives other bytes for the same samples; the reference tells what is stored."""
    first_file, digest = flac(tmp_path / "a.flac", compression=0.0)
    second_file, _ = flac(tmp_path / "b.flac", compression=1.0)
    content = first_file.read_bytes()
    assert content != second_file.read_bytes()
    first = store.put(first_file, "audio", sha256=digest)
    assert store.put(second_file, "audio", sha256=digest) == first
    with store.local(first) as path:
        assert path.read_bytes() == content


def test_a_damaged_artifact_is_written_again(store: Store, output: Path) -> None:
    ref = store.put(output, "asr")
    store.storage.write(ref.path, BODY[:10])
    assert store.put(output, "asr") == ref
    with store.local(ref) as path:
        assert path.read_bytes() == BODY


def test_a_missing_artifact_is_said_to_be_missing(store: Store, output: Path) -> None:
    ref = store.put(output, "asr")
    store.storage.delete(ref.path)
    assert not store.exists(ref.path)
    with pytest.raises(ArtifactMissing, match="run again") as failure, store.local(ref):
        pass
    assert failure.value.retry is Retry.LATER


def test_a_file_missing_inside_the_block_is_not_the_artifact(store: Store, output: Path) -> None:
    ref = store.put(output, "asr")
    with pytest.raises(FileNotFoundError), store.local(ref):
        Path("no such model").read_bytes()


def test_local_copies_do_not_stay_behind(store: Store, output: Path, tmp_path: Path) -> None:
    ref = store.put(output, "asr")
    with store.local(ref):
        pass
    with pytest.raises(ZeroDivisionError), store.local(ref):
        _ = 1 / 0
    assert not (tmp_path / "scratch").exists() or list((tmp_path / "scratch").iterdir()) == []


def test_records_are_replaced_whole_and_deleted(store: Store) -> None:
    assert store.read_record("key") is None
    store.write_record("key", b"{}")
    store.write_record("key", b'{"a": 1}')
    assert store.read_record("key") == b'{"a": 1}'
    store.delete_record("key")
    store.delete_record("key")
    assert store.read_record("key") is None


def test_another_machines_writes_are_seen(store: Store, output: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    s3 = request.getfixturevalue("s3") if store.url.startswith("s3://") else None
    other = Store(store.url, tmp_path / "other", s3)
    path = f"artifacts/asr/{SHA256[:2]}/{SHA256}.json"
    assert not store.exists(path)
    ref = other.put(output, "asr")
    assert store.exists(path)
    other.storage.delete(ref.path)
    assert not store.exists(path)


@pytest.mark.parametrize("store", ["folder", "s3", "google_storage", "azure_storage"], indirect=True)
def test_threads_share_a_store(store: Store, tmp_path: Path) -> None:
    def work(number: int) -> bytes:
        path = tmp_path / f"{number}"
        path.write_bytes(b"%d" % (number % 4) * 1000)
        ref = store.put(path, "asr")
        store.write_record(f"r{number % 3}", path.read_bytes())
        with store.local(ref) as copy:
            return copy.read_bytes()

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(24)))
    assert results == [b"%d" % (number % 4) * 1000 for number in range(24)]
    claims = {f"records/uses/claim-{Path(path).stem}" for path in written(store)}
    assert len(written(store) - claims) == 4 + 3


# -- a folder -----------------------------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from infra.store import Store
print("ready", flush=True)
Store(sys.argv[1], Path(sys.argv[1] + ".scratch")).put(Path(sys.argv[2]), "audio", sha256=sys.argv[3])
print("done", flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), tmp_path / "scratch")


def _writer(folder: Store, source: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, folder.root, str(source), SHA256],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


@pytest.fixture
def half_written(folder: Store, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has written half of an artifact and waits for the rest, which comes through a pipe."""
    source = tmp_path / "source"
    os.mkfifo(source)
    process = _writer(folder, source)
    feed = os.open(source, os.O_WRONLY)
    os.write(feed, BODY[:30_000])
    threading.Event().wait(0.2)
    yield process
    os.close(feed)
    process.kill()
    process.wait()


def test_a_half_written_artifact_is_never_there(folder: Store, half_written: subprocess.Popen[str], output: Path) -> None:
    path = f"artifacts/audio/{SHA256[:2]}/{SHA256}.flac"
    ref = ArtifactRef(kind="audio", path=path, sha256=SHA256, bytes=len(BODY))
    assert not folder.exists(path)
    half_written.send_signal(signal.SIGKILL)
    half_written.wait()
    assert not folder.exists(path)
    with pytest.raises(ArtifactMissing), folder.local(ref):
        pass
    folder.put(output, "audio", sha256=SHA256)
    with folder.local(ref) as whole:
        assert whole.read_bytes() == BODY


def test_processes_that_write_the_same_artifact_do_not_disturb_each_other(folder: Store, output: Path) -> None:
    writers = [_writer(folder, output) for _ in range(4)]
    assert [process.communicate()[0].split() for process in writers] == [["ready", "done"]] * 4
    path = f"artifacts/audio/{SHA256[:2]}/{SHA256}.flac"
    assert written(folder) - {f"records/uses/claim-{SHA256}"} == {path}
    assert hashlib.sha256(Path(folder.root, path).read_bytes()).hexdigest() == SHA256


@pytest.fixture
def no_space_beyond() -> Iterator[None]:
    """The kernel refuses to let any file of this process grow beyond 100 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_space_while_writing_is_storage_full(folder: Store, output: Path, no_space_beyond: None) -> None:
    with pytest.raises(StorageFull, match="STENO_STORE"):
        folder.put(output, "asr")
    with pytest.raises(StorageFull):
        folder.write_record("key", BODY)
    assert written(folder) == set()


def test_a_full_disk_is_storage_full(folder: Store, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = uuid.UUID(int=1)
    monkeypatch.setattr(uuid, "uuid4", lambda: name)
    target = Path(folder.root, f"artifacts/asr/{SHA256[:2]}/.{SHA256}.json.{name.hex}.part")
    target.parent.mkdir(parents=True)
    target.symlink_to("/dev/full")
    with pytest.raises(StorageFull, match="No space left"):
        folder.put(output, "asr")
    assert written(folder) == set()


def test_a_store_that_is_no_folder_is_not_writable(tmp_path: Path, output: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(OutputNotWritable, match="STENO_STORE"):
        Store(str(tmp_path / "store"), tmp_path / "scratch").put(output, "asr")


def test_the_store_is_a_folder_under_home_by_default(tmp_path: Path, output: Path) -> None:
    store = Store.from_settings(make_settings(tmp_path / "home"))
    ref = store.put(output, "asr")
    assert (tmp_path / "home" / "store" / ref.path).read_bytes() == BODY


# -- S3 -----------------------------------------------------------------------------------------------------------------


def test_no_space_for_a_local_copy_is_storage_full(
    bucket: str, s3: S3Settings, tmp_path: Path, output: Path, request: pytest.FixtureRequest
) -> None:
    store = Store(f"s3://{bucket}/store", tmp_path / "scratch", s3)
    ref = store.put(output, "asr")
    request.getfixturevalue("no_space_beyond")
    with pytest.raises(StorageFull), store.local(ref):
        pass


def test_a_bucket_that_does_not_exist_is_not_writable(s3: S3Settings, moto_endpoint: str, tmp_path: Path, output: Path) -> None:
    store = Store("s3://no-such-bucket/store", tmp_path / "scratch", s3)
    with pytest.raises(OutputNotWritable, match="bucket"):
        store.put(output, "asr")
    with pytest.raises(OutputNotWritable, match="bucket"):
        store.write_record("key", b"{}")


def test_a_refused_write_is_not_writable(server: FaultServer, tmp_path: Path, output: Path) -> None:
    s3 = S3Settings(endpoint_url=server.url(""), region="us-east-1", key="k", secret="s", addressing_style="path")
    denial = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
    path = f"/bucket/store/artifacts/asr/{SHA256[:2]}/{SHA256}.json"
    server.answers[path] = lambda handler, turn: handler.reply(403, denial)
    with pytest.raises(OutputNotWritable, match="credentials"):
        Store("s3://bucket/store", tmp_path / "scratch", s3).put(output, "asr")


def test_an_s3_service_that_cannot_be_reached_is_transient(tmp_path: Path, output: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        s3 = S3Settings(
            endpoint_url=f"http://127.0.0.1:{taken.getsockname()[1]}", region="us-east-1", key="k", secret="s", patience=1
        )
        store = Store("s3://bucket/store", tmp_path / "scratch", s3)
        with pytest.raises(TransientError, match="try again later") as failure:
            store.put(output, "asr")
    assert failure.value.retry is Retry.LATER


def test_s3_artifacts_lie_under_the_prefix(
    bucket: str, s3: S3Settings, moto_endpoint: str, tmp_path: Path, output: Path
) -> None:
    store = Store(f"s3://{bucket}/team/store", tmp_path / "scratch", s3)
    ref = store.put(output, "asr")
    listed = s3_client(moto_endpoint).list_objects_v2(Bucket=bucket)["Contents"]
    assert [item["Key"] for item in listed] == [f"team/store/{ref.path}"]
    assert store.uri(ref) == f"s3://{bucket}/team/store/{ref.path}"
