"""Bringing sources to a local file: paths, pipes, object stores; and the names they get."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from infra import objects
from infra.settings import S3Settings
from infra.sources import display_name, fetch_source, output_stem
from stenoflow.errors import (
    DownloadFailed,
    EmptyMedia,
    Retry,
    SourceDenied,
    SourceError,
    SourceForbidden,
    SourceNotFound,
    SourceTooLarge,
    StageCancelled,
    StorageFull,
)
from tests.infra.conftest import BODY, SHA256, FaultServer, Handler, make_settings, s3_client

ROOT = Path(__file__).parents[2]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "talk.wav"
    path.write_bytes(BODY)
    return path


# -- local --------------------------------------------------------------------------------------------------------------


def test_a_path_is_read_where_it_is(recording: Path, tmp_path: Path) -> None:
    reports: list[tuple[int, int | None]] = []
    fetched = fetch_source(str(recording), tmp_path / "in", make_settings(tmp_path), lambda *seen: reports.append(seen))
    assert (fetched.path, fetched.sha256, fetched.bytes, fetched.name) == (recording, SHA256, len(BODY), "talk.wav")
    assert not (tmp_path / "in").exists()
    assert reports[-1] == (len(BODY), len(BODY))


@pytest.mark.parametrize("form", ["file://{}", "file://localhost{}"])
def test_a_file_url_is_a_path(form: str, tmp_path: Path) -> None:
    path = tmp_path / "a talk#1?.wav"
    path.write_bytes(BODY)
    url = form.format(str(path).replace(" ", "%20").replace("?", "%3F"))
    assert fetch_source(url, tmp_path / "in", make_settings(tmp_path)).path == path


def test_a_relative_path_comes_back_absolute(recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert fetch_source("talk.wav", tmp_path / "in", make_settings(tmp_path)).path == recording


@pytest.mark.parametrize("source", ["missing.wav", "talk.wav/inside", "a\0b", "x" * 5000, "", "http:/127.0.0.1/x"])
def test_what_is_not_there_is_not_found(source: str, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path / ".." / tmp_path.name)
    expected = SourceNotFound if source else SourceError
    with pytest.raises(expected):
        fetch_source(source, tmp_path / "in", make_settings(tmp_path))


def test_folders_and_devices_are_refused(tmp_path: Path) -> None:
    address = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(address)
        for source in (str(tmp_path), "/dev/zero", address):
            with pytest.raises(SourceError, match="not a recording"):
                fetch_source(source, tmp_path / "in", make_settings(tmp_path))


def test_a_file_on_another_host_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceForbidden):
        fetch_source("file://fileserver/share/talk.wav", tmp_path / "in", make_settings(tmp_path))


def test_an_unreadable_file_is_denied(recording: Path, tmp_path: Path) -> None:
    """As another user, since root may read everything."""
    recording.chmod(0)
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from infra.sources import fetch_source\n"
        "from infra.settings import StenoSettings\n"
        "from stenoflow.errors import SourceDenied\n"
        "settings = StenoSettings()\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try: fetch_source(sys.argv[1], Path(sys.argv[1] + '.in'), settings)\n"
        "except SourceDenied as error: print('denied:', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(recording)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout.startswith("denied:") and "permissions" in done.stdout, done.stderr


def test_a_local_file_has_the_same_cap(recording: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceTooLarge):
        fetch_source(str(recording), tmp_path / "in", make_settings(tmp_path, max_bytes=1000))


def test_an_empty_file_is_empty_media(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    with pytest.raises(EmptyMedia, match=r"empty\.wav"):
        fetch_source(str(tmp_path / "empty.wav"), tmp_path / "in", make_settings(tmp_path))


def test_a_cancel_stops_reading(recording: Path, tmp_path: Path) -> None:
    def report(done: int, total: int | None) -> None:
        raise StageCancelled("cancelled")

    with pytest.raises(StageCancelled):
        fetch_source(str(recording), tmp_path / "in", make_settings(tmp_path), report)


# -- pipes --------------------------------------------------------------------------------------------------------------


def test_standard_input_is_received(tmp_path: Path) -> None:
    fetched = fetch_source("-", tmp_path / "in", make_settings(tmp_path), stdin=io.BytesIO(BODY))
    assert (fetched.path.read_bytes(), fetched.sha256, fetched.name) == (BODY, SHA256, "stdin")


def test_a_real_pipe_is_received(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from infra.sources import fetch_source\n"
        "from infra.settings import StenoSettings\n"
        "print(fetch_source('-', Path(sys.argv[1]), StenoSettings()).sha256)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "in")], input=BODY, capture_output=True, check=True, cwd=ROOT
    )
    assert done.stdout.decode().strip() == SHA256


def test_standard_input_is_capped_and_may_not_be_empty(tmp_path: Path) -> None:
    with pytest.raises(SourceTooLarge):
        fetch_source("-", tmp_path / "in", make_settings(tmp_path, max_bytes=1000), stdin=io.BytesIO(BODY))
    with pytest.raises(EmptyMedia, match="stdin"):
        fetch_source("-", tmp_path / "in", make_settings(tmp_path), stdin=io.BytesIO())
    assert list((tmp_path / "in").iterdir()) == []


def test_a_terminal_is_no_recording(tmp_path: Path) -> None:
    controller, terminal = os.openpty()
    with os.fdopen(controller, "wb"), os.fdopen(terminal, "rb") as stdin, pytest.raises(SourceError, match="terminal"):
        fetch_source("-", tmp_path / "in", make_settings(tmp_path), stdin=stdin)


def test_a_named_pipe_is_received(tmp_path: Path) -> None:
    pipe = tmp_path / "talk.wav"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(BODY,))
    writer.start()
    fetched = fetch_source(str(pipe), tmp_path / "in", make_settings(tmp_path))
    writer.join()
    assert (fetched.path, fetched.sha256) == (tmp_path / "in" / "source.wav", SHA256)


def test_waiting_for_a_named_pipe_can_be_cancelled(tmp_path: Path) -> None:
    pipe = tmp_path / "talk.wav"
    os.mkfifo(pipe)
    calls = iter(range(2))

    def report(done: int, total: int | None) -> None:
        if next(calls, None) is None:
            raise StageCancelled("cancelled")

    with pytest.raises(StageCancelled):
        fetch_source(str(pipe), tmp_path / "in", make_settings(tmp_path), report)


def test_a_full_disk_is_said_to_be_full(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "source.part").symlink_to("/dev/full")
    with pytest.raises(StorageFull):
        fetch_source("-", tmp_path / "in", make_settings(tmp_path), stdin=io.BytesIO(BODY))


# -- S3 -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "BLOCK_BYTES", 1 << 16)


def test_an_s3_object_is_streamed(bucket: str, s3: S3Settings, small_blocks: None, tmp_path: Path) -> None:
    assert s3.endpoint_url
    s3_client(s3.endpoint_url).put_object(Bucket=bucket, Key="a folder/talk::1.wav", Body=BODY, ContentType="audio/wav")
    reports: list[tuple[int, int | None]] = []
    for scheme in ("s3", "s3a"):
        source = f"{scheme}://{bucket}/a folder/talk::1.wav"
        fetched = fetch_source(source, tmp_path / "in", make_settings(tmp_path, s3=s3), lambda *seen: reports.append(seen))
        assert (fetched.sha256, fetched.name, fetched.content_type) == (SHA256, "talk::1.wav", "audio/wav")
    assert reports[-1] == (len(BODY), len(BODY)) and len(reports) > 20


def test_a_version_of_an_s3_object(bucket: str, s3: S3Settings, tmp_path: Path) -> None:
    assert s3.endpoint_url
    client = s3_client(s3.endpoint_url)
    client.create_bucket(Bucket="versions")
    client.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    version = client.put_object(Bucket="versions", Key="talk.wav", Body=BODY)["VersionId"]
    client.put_object(Bucket="versions", Key="talk.wav", Body=b"newer")
    fetched = fetch_source(f"s3://versions/talk.wav?versionId={version}", tmp_path / "in", make_settings(tmp_path, s3=s3))
    assert (fetched.sha256, fetched.name) == (SHA256, "talk.wav")


def test_s3_sources_that_are_not_there(bucket: str, s3: S3Settings, tmp_path: Path) -> None:
    for source in (f"s3://{bucket}/missing.wav", "s3://no-such-bucket/talk.wav"):
        with pytest.raises(SourceNotFound, match="bucket"):
            fetch_source(source, tmp_path / "in", make_settings(tmp_path, s3=s3))


def test_an_s3_folder_is_refused(bucket: str, s3: S3Settings, tmp_path: Path) -> None:
    assert s3.endpoint_url
    s3_client(s3.endpoint_url).put_object(Bucket=bucket, Key="folder/talk.wav", Body=BODY)
    with pytest.raises(SourceError, match="folder"):
        fetch_source(f"s3://{bucket}/folder", tmp_path / "in", make_settings(tmp_path, s3=s3))


def test_an_s3_object_above_the_cap_or_empty(bucket: str, s3: S3Settings, tmp_path: Path) -> None:
    assert s3.endpoint_url
    client = s3_client(s3.endpoint_url)
    client.put_object(Bucket=bucket, Key="talk.wav", Body=BODY)
    client.put_object(Bucket=bucket, Key="empty.wav", Body=b"")
    with pytest.raises(SourceTooLarge):
        fetch_source(f"s3://{bucket}/talk.wav", tmp_path / "in", make_settings(tmp_path, max_bytes=1000, s3=s3))
    with pytest.raises(EmptyMedia):
        fetch_source(f"s3://{bucket}/empty.wav", tmp_path / "in", make_settings(tmp_path, s3=s3))
    assert list((tmp_path / "in").iterdir()) == []


@pytest.fixture
def iam_enforced(moto_endpoint: str) -> Iterator[None]:
    def after(requests: str) -> None:
        request = urllib.request.Request(
            f"{moto_endpoint}/moto-api/reset-auth", data=requests.encode(), headers={"Content-Type": "text/plain"}
        )
        urllib.request.urlopen(request).close()

    after("0")
    yield
    after("inf")


def test_s3_credentials_that_are_refused(bucket: str, s3: S3Settings, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    assert s3.endpoint_url
    s3_client(s3.endpoint_url).put_object(Bucket=bucket, Key="talk.wav", Body=BODY)
    request.getfixturevalue("iam_enforced")
    with pytest.raises(SourceDenied) as failure:
        fetch_source(f"s3://{bucket}/talk.wav", tmp_path / "in", make_settings(tmp_path, s3=s3))
    assert failure.value.retry is Retry.NEVER


def s3_on(server: FaultServer, **more: Any) -> S3Settings:
    """The fault server plays S3: its paths are /bucket/key."""
    return S3Settings(
        endpoint_url=server.url(""), region="us-east-1", addressing_style="path", **({"key": "k", "secret": "s"} | more)
    )


def test_s3_reading_resumes_after_a_break(server: FaultServer, small_blocks: None, tmp_path: Path) -> None:
    def answer(handler: Handler, turn: int) -> None:
        if handler.command == "GET" and turn in (3, 4):
            handler.ranged(cut=1000)
        elif handler.command == "GET" and turn == 6:
            handler.reply(503)
        else:
            handler.ranged()

    server.answers["/bucket/talk.wav"] = answer
    fetched = fetch_source("s3://bucket/talk.wav", tmp_path / "in", make_settings(tmp_path, s3=s3_on(server), resumes=5))
    assert fetched.sha256 == SHA256
    ranges = [headers["Range"] for _, headers in server.requests if "Range" in headers]
    assert len(set(ranges)) == -(-len(BODY) // (1 << 16))


def test_s3_reading_starts_over_when_the_object_changed(server: FaultServer, small_blocks: None, tmp_path: Path) -> None:
    new = BODY[::-1]

    def answer(handler: Handler, turn: int) -> None:
        if turn < 3:
            handler.ranged()
        elif handler.headers.get("If-Match", '"two"') != '"two"':
            handler.reply(412)
        else:
            handler.ranged(new, etag='"two"')

    server.answers["/bucket/talk.wav"] = answer
    fetched = fetch_source("s3://bucket/talk.wav", tmp_path / "in", make_settings(tmp_path, s3=s3_on(server)))
    assert fetched.sha256 == hashlib.sha256(new).hexdigest()


def test_an_s3_service_that_stays_down_fails(server: FaultServer, tmp_path: Path) -> None:
    server.answers["/bucket/talk.wav"] = lambda handler, turn: handler.reply(503)
    with pytest.raises(DownloadFailed, match="503"):
        fetch_source("s3://bucket/talk.wav", tmp_path / "in", make_settings(tmp_path, s3=s3_on(server), resumes=1))


def test_an_s3_service_that_cannot_be_reached_fails(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        s3 = S3Settings(endpoint_url=f"http://127.0.0.1:{taken.getsockname()[1]}", region="us-east-1", key="k", secret="s")
        with pytest.raises(DownloadFailed, match="cannot be reached"):
            fetch_source("s3://bucket/talk.wav", tmp_path / "in", make_settings(tmp_path, s3=s3, resumes=0))


def test_a_public_s3_object_needs_no_credentials(server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    server.answers["/bucket/talk.wav"] = lambda handler, turn: handler.ranged()
    s3 = s3_on(server, key=None, secret=None)
    assert fetch_source("s3://bucket/talk.wav", tmp_path / "in", make_settings(tmp_path, s3=s3)).sha256 == SHA256
    assert all("Authorization" not in headers for _, headers in server.requests)


# -- other object stores ------------------------------------------------------------------------------------------------


def test_any_listed_fsspec_protocol_is_read(tmp_path: Path) -> None:
    with fsspec.open("memory://bucket/talk.wav", "wb") as file:
        file.write(BODY)
    assert fetch_source("memory://bucket/talk.wav", tmp_path / "in", make_settings(tmp_path)).sha256 == SHA256
    with pytest.raises(SourceTooLarge):
        fetch_source("memory://bucket/talk.wav", tmp_path / "in", make_settings(tmp_path, max_bytes=1000))
    with pytest.raises(SourceNotFound):
        fetch_source("memory://bucket/missing.wav", tmp_path / "in", make_settings(tmp_path))


@pytest.mark.parametrize("url", ["gs://bucket/talk.wav", "abfs://container@account.dfs.core.windows.net/talk.wav"])
def test_a_protocol_whose_package_is_missing_says_which(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, package, None)
    for protocol in ("gs", "abfs"):  # of classes that an earlier test has loaded
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, protocol, raising=False)
    with pytest.raises(SourceError, match=r"gcsfs|adlfs"):
        fetch_source(url, tmp_path / "in", make_settings(tmp_path))


@pytest.mark.parametrize(
    "source",
    [
        "ftp://127.0.0.1/x",
        "sftp://127.0.0.1/x",
        "ssh://127.0.0.1/x",
        "smb://127.0.0.1/x",
        "local:///etc/passwd",
        "github://org:repo@main/x",
        "reference://x",
        "zip://x::/etc/passwd",
        "tar://x::s3://bucket/x",
        "simplecache::file:///etc/passwd",
        "filecache::http://127.0.0.1/x",
        "blockcache::s3://bucket/x",
        "data://text,x",
        "hf://datasets/x/y",
        "webhdfs://127.0.0.1/x",
        "jupyter://127.0.0.1/x",
        "git://x",
        "dask://127.0.0.1/x",
        "nonsense://x/y",
    ],
)
def test_other_protocols_and_chains_are_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(SourceForbidden):
        fetch_source(source, tmp_path / "in", make_settings(tmp_path))


@pytest.mark.parametrize(
    "source",
    [
        "s3://KEY:SECRET@bucket/talk.wav",
        "s3://bucket",
        "s3://bucket/",
        "s3:///talk.wav",
        "az://127.0.0.1%2f/x",
        "abfs://c@127.0.0.1:80?.blob.core.windows.net/x",
        "abfs://user:SECRET@account/x",
        "gs://buck et/x",
    ],
)
def test_odd_buckets_are_refused_and_not_repeated(source: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as failure:
        fetch_source(source, tmp_path / "in", make_settings(tmp_path))
    assert "SECRET" not in str(failure.value)


# -- names --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "name", "stem"),
    [
        ("-", "stdin", "stdin"),
        ("talk.wav", "talk.wav", "talk"),
        ("/a/b/talk.tar.mp3", "talk.tar.mp3", "talk.tar"),
        ("/a/b/", "b", "b"),
        ("/a/.hidden", ".hidden", "hidden"),
        ("Meeting 3.5 notes", "Meeting 3.5 notes", "Meeting 3.5 notes"),
        ("what?.wav", "what?.wav", "what_"),
        ("https://host/a/talk.mp3?X-Amz-Signature=s3cret#frag", "talk.mp3", "talk"),
        ("https://user:s3cret@host/talk.mp3", "talk.mp3", "talk"),
        ("https://user:s3cret@host/?token=s3cret", "host", "host"),
        ("https://user:s3cret@host?token=s3cret", "host", "host"),
        ("https://user:s3cret@[bad/talk.mp3", "talk.mp3", "talk"),
        ("https://host/a%20b%2F..%2Fc.wav", "c.wav", "c"),
        ("https://host/caf%C3%A9.ogg", "café.ogg", "café"),
        ("https://host/a%0d%0ab%1b%5b31m.wav", "a b[31m.wav", "a b[31m"),
        ("https://host/x%E2%80%AEvaw.exe", "xvaw.exe", "xvaw"),
        ("https://host/..", "..", "recording"),
        ("https://host/con.wav", "con.wav", "_con"),
        ("s3://KEY:s3cret@bucket/a/talk.wav", "talk.wav", "talk"),
        ("s3://bucket/talk.wav?versionId=1", "talk.wav", "talk"),
        ("file:///a/what%3F.wav", "what?.wav", "what_"),
        ("s3://bucket/Ep #12.wav", "Ep #12.wav", "Ep #12"),
        ("s3://bucket/what? 50%25.wav", "what? 50%25.wav", "what_ 50%25"),
        ("file:///a/caf%E9.wav", "café.wav", "café"),
        ("/a/caf\udce9.wav", "café.wav", "café"),
        ("/a/interview.part1", "interview.part1", "interview.part1"),
        ("own.srt", "own.srt", "own"),
        ("http://", "recording", "recording"),
        ("", "recording", "recording"),
    ],
)
def test_names_are_short_and_safe(source: str, name: str, stem: str) -> None:
    assert (display_name(source), output_stem(source)) == (name, stem)


def test_long_names_are_cut() -> None:
    source = "https://host/" + "é" * 5000 + ".wav"
    assert len(display_name(source)) <= 121
    assert len(output_stem(source).encode()) <= 150


def test_stems_stay_within_their_folder(tmp_path: Path) -> None:
    for source in ("../../etc/passwd", "a/..", "..\\..\\x", "https://h/%2e%2e%2f%2e%2e%2fx", "/", "\\", "a\0b", "\ud800"):
        target = (tmp_path / f"{output_stem(source)}.json").resolve()
        assert target.parent == tmp_path.resolve()
