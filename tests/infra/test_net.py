"""Downloading from hostile and broken servers."""

from __future__ import annotations

import gzip
import hashlib
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra import connections
from infra.addresses import AddressGuard
from infra.sources import fetch_source
from stenoflow.errors import (
    DownloadFailed,
    EmptyMedia,
    InvalidOption,
    Retry,
    SourceDenied,
    SourceError,
    SourceForbidden,
    SourceNotFound,
    SourceTooLarge,
    StageCancelled,
    StorageFull,
)
from tests.infra.conftest import BODY, SHA256, FaultServer, Handler, make_settings

PUBLIC = "93.184.216.34"

HOSTILE_HOSTS = [
    "127.0.0.1",
    "127.0.0.1:8080",
    "127.1.2.3",
    "127.0.0.1.",
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "169.254.170.2",
    "168.63.129.16",
    "100.64.0.1",
    "100.100.100.200",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "127.1",
    "127.0.1",
    "0",
    "0x7f.1",
    "1.1.1.1.1",
    "127。0。0。1",
    "１２７.0.0.1",
    "①②⑦.⓪.⓪.①",
    "localhost",
    "LOCALHOST.",
    "foo.localhost",
    "metadata.google.internal",
    "printer.local",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:a9fe:a9fe]",
    "[::127.0.0.1]",
    "[fe80::1]",
    "[fe80::1%25eth0]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fec0::1]",
    "[ff02::1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::1]",
    "[2002:7f00:1::1]",
    "[2001:0:53aa:64c:0:0:80ff:fffe]",
    "[2001:db8::1]",
    "[2606:4700::5efe:10.0.0.1]",
    "[100::1]",
    "",
    "a b",
    "exa_mple..com",
    "evil.com\\@127.0.0.1",
    "public.test@127.0.0.1",
    "public.test:80:80",
    "public.test:0",
    "public.test:99999",
    "[::1",
]

HOSTILE_ANSWERS = [
    ["127.0.0.1"],
    ["10.1.2.3"],
    ["169.254.169.254"],
    ["::1"],
    ["fe80::1%eth0"],
    ["::ffff:192.168.0.1"],
    ["fd00:ec2::254"],
    [PUBLIC, "127.0.0.1"],
    [PUBLIC, "::1"],
    ["2606:2800:220:1::1", "10.0.0.1"],
]


class Wire:
    """Stands where names are looked up and connections are made: what was asked, and where it went."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.lookups: list[str] = []
        self.connections: list[tuple[str, int]] = []
        monkeypatch.setattr(socket, "getaddrinfo", self._getaddrinfo)
        monkeypatch.setattr(socket, "create_connection", self._connect)

    def _getaddrinfo(self, host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        self.lookups.append(host)
        answers = self.answers.get(host)
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in found]

    def _connect(self, address: tuple[str, int], *_: Any, **__: Any) -> socket.socket:
        self.connections.append(address)
        raise ConnectionRefusedError


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    return Wire(monkeypatch)


@pytest.mark.parametrize("host", HOSTILE_HOSTS)
def test_refuses_hostile_hosts_without_connecting(host: str, wire: Wire, tmp_path: Path) -> None:
    with pytest.raises(SourceForbidden):
        fetch_source(f"http://{host}/talk.wav", tmp_path / "in", make_settings(tmp_path))
    assert wire.connections == []


@pytest.mark.parametrize("answer", HOSTILE_ANSWERS)
def test_refuses_names_that_lead_to_private_addresses(answer: list[str], wire: Wire, tmp_path: Path) -> None:
    wire.answers["evil.test"] = [answer]
    with pytest.raises(SourceForbidden, match=r"evil\.test leads to"):
        fetch_source("https://evil.test/talk.wav", tmp_path / "in", make_settings(tmp_path))
    assert wire.connections == []


@pytest.mark.parametrize(
    "scheme", ["ftp", "gopher", "dict", "ldap", "sftp", "smb", "webhdfs", "jar", "zip", "reference", "github"]
)
def test_refuses_other_schemes(scheme: str, wire: Wire, tmp_path: Path) -> None:
    with pytest.raises(SourceForbidden):
        fetch_source(f"{scheme}://public.test/talk.wav", tmp_path / "in", make_settings(tmp_path))
    assert wire.connections == [] and wire.lookups == []


def test_connects_to_the_address_that_was_checked(wire: Wire, tmp_path: Path) -> None:
    wire.answers["rebind.test"] = [[PUBLIC], ["127.0.0.1"]]
    with pytest.raises(DownloadFailed):
        fetch_source("http://rebind.test/talk.wav", tmp_path / "in", make_settings(tmp_path, resumes=0))
    assert wire.connections == [(PUBLIC, 80)]
    assert wire.lookups == ["rebind.test"]


def test_checks_again_before_each_resume(wire: Wire, tmp_path: Path) -> None:
    wire.answers["rebind.test"] = [[PUBLIC], ["127.0.0.1"]]
    with pytest.raises(SourceForbidden):
        fetch_source("http://rebind.test/talk.wav", tmp_path / "in", make_settings(tmp_path, resumes=1))
    assert wire.connections == [(PUBLIC, 80)]


@pytest.mark.parametrize("address", [PUBLIC, "2606:2800:220:1::1", "64:ff9b::5db8:d822", "::ffff:5db8:d822"])
def test_public_addresses_are_connected_to(address: str, wire: Wire, tmp_path: Path) -> None:
    wire.answers["public.test"] = [[address]]
    with pytest.raises(DownloadFailed):
        fetch_source("https://public.test/talk.wav", tmp_path / "in", make_settings(tmp_path, resumes=0))
    assert [(ip_address(host), port) for host, port in wire.connections] == [(ip_address(address), 443)]


def test_an_unknown_host_is_not_found(wire: Wire, tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match=r"no host named nowhere\.test"):
        fetch_source("http://nowhere.test/talk.wav", tmp_path / "in", make_settings(tmp_path))


def test_proxies_of_the_environment_are_ignored(wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:3128")
    wire.answers["public.test"] = [[PUBLIC]]
    with pytest.raises(DownloadFailed):
        fetch_source("http://public.test/talk.wav", tmp_path / "in", make_settings(tmp_path, resumes=0))
    assert wire.connections == [(PUBLIC, 80)]


@pytest.mark.parametrize(
    ("entry", "host", "answer", "port"),
    [
        ("10.0.0.5", "10.0.0.5", [], 80),
        ("10.0.0.0/8", "media.test", ["10.9.8.7"], 80),
        ("media.test", "media.test", ["10.9.8.7"], 8080),
        ("MEDIA.test.:8080", "media.test", ["10.9.8.7"], 8080),
        ("localhost", "localhost", ["127.0.0.1"], 80),
        ("[::1]:81", "::1", [], 81),
        ("fd00::/8", "media.test", ["fd12::1"], 80),
        ("169.254.169.254", "169.254.169.254", [], 80),
    ],
)
def test_allowed_hosts_pass(entry: str, host: str, answer: list[str], port: int) -> None:
    assert AddressGuard([entry], lambda *_: answer).addresses(host, port) == (answer or [host])


@pytest.mark.parametrize(
    ("entry", "host", "answer", "port"),
    [
        ("10.0.0.5", "10.0.0.6", [], 80),
        ("10.0.0.5:80", "10.0.0.5", [], 81),
        ("media.test:80", "media.test", ["10.0.0.5"], 81),
        ("media.test", "other.media.test", ["10.0.0.5"], 80),
        ("media.test", "media.test", ["169.254.169.254"], 80),
        ("media.test", "media.test", ["fd00:ec2::254"], 80),
        ("media.test", "media.test", ["fe80::1"], 80),
        ("media.test", "media.test", ["::ffff:169.254.169.254"], 80),
    ],
)
def test_an_allowance_reaches_no_further_than_it_says(entry: str, host: str, answer: list[str], port: int) -> None:
    with pytest.raises(SourceForbidden):
        AddressGuard([entry], lambda *_: answer).addresses(host, port)


@pytest.mark.parametrize("entry", ["media.test:http", "a b", "10.0.0.0/99", "0x7f.1", "x:0"])
def test_a_bad_allowance_is_a_bad_option(entry: str) -> None:
    with pytest.raises(InvalidOption, match="STENO_NET__ALLOW_HOSTS"):
        AddressGuard([entry])


# -- servers that behave ------------------------------------------------------------------------------------------------


def test_downloads_and_reports_real_bytes(server: FaultServer, settings: Any, tmp_path: Path) -> None:
    reports: list[tuple[int, int | None]] = []
    fetched = fetch_source(server.url("/talk.wav?sig=s3cret"), tmp_path / "in", settings, lambda *seen: reports.append(seen))
    assert fetched.path.read_bytes() == BODY
    assert (fetched.sha256, fetched.bytes, fetched.name, fetched.content_type) == (SHA256, len(BODY), "talk.wav", "audio/wav")
    assert reports[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["source.wav"]
    assert server.requests[0][0] == "/talk.wav?sig=s3cret"
    assert server.requests[0][1]["Accept-Encoding"] == "identity"


def test_a_body_without_a_length_ends_where_it_ends(server: FaultServer, settings: Any, tmp_path: Path) -> None:
    server.answers["/x"] = lambda handler, turn: handler.reply(200, BODY, content_length="")
    assert fetch_source(server.url("/x"), tmp_path / "in", settings).sha256 == SHA256


def test_follows_redirects_that_stay_within_bounds(server: FaultServer, settings: Any, tmp_path: Path) -> None:
    server.answers["/a"] = lambda handler, turn: handler.reply(302, location="b?token=s3cret")
    server.answers["/b"] = lambda handler, turn: handler.reply(308, location=server.url("/talk.wav"))
    assert fetch_source(server.url("/a"), tmp_path / "in", settings).sha256 == SHA256


def test_gzip_that_was_not_asked_for_is_decoded(server: FaultServer, settings: Any, tmp_path: Path) -> None:
    body = gzip.compress(BODY[:300_000]) + gzip.compress(BODY[300_000:])
    server.answers["/x"] = lambda handler, turn: handler.reply(200, body, content_encoding="gzip")
    fetched = fetch_source(server.url("/x"), tmp_path / "in", settings)
    assert (fetched.sha256, fetched.bytes) == (SHA256, len(BODY))
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["source"]


def test_credentials_go_to_their_own_origin_only(server: FaultServer, settings: Any, tmp_path: Path) -> None:
    other = FaultServer()
    threading.Thread(target=other.serve_forever, daemon=True).start()
    other.answers["/talk.wav"] = lambda handler, turn: handler.ranged()
    server.answers["/a"] = lambda handler, turn: handler.reply(302, location="/b")
    server.answers["/b"] = lambda handler, turn: handler.reply(302, location=other.url("/talk.wav"))
    allowed = make_settings(tmp_path, allow_hosts=(server.host, other.host))
    fetch_source(f"http://user:pass%40word@{server.host}/a", tmp_path / "in", allowed)
    other.shutdown()
    other.server_close()
    assert [headers.get("Authorization") for _, headers in server.requests] == ["Basic dXNlcjpwYXNzQHdvcmQ="] * 2
    assert "Authorization" not in other.requests[0][1]


# -- servers that break -------------------------------------------------------------------------------------------------


def test_resumes_where_the_connection_broke(server: FaultServer, settings: Any, tmp_path: Path) -> None:
    server.answers["/x"] = lambda handler, turn: handler.ranged(cut=200_000 if turn < 2 else None)
    assert fetch_source(server.url("/x"), tmp_path / "in", settings).sha256 == SHA256
    assert [headers.get("Range") for _, headers in server.requests] == [None, "bytes=200000-", "bytes=400000-"]
    assert server.requests[1][1]["If-Range"] == '"one"'


def test_starts_over_when_the_recording_changed_meanwhile(server: FaultServer, settings: Any, tmp_path: Path) -> None:
    new = BODY[::-1]
    server.answers["/x"] = lambda handler, turn: handler.ranged(cut=200_000) if turn == 0 else handler.ranged(new, etag='"two"')
    assert fetch_source(server.url("/x"), tmp_path / "in", settings).sha256 == hashlib.sha256(new).hexdigest()


def test_never_joins_the_halves_of_two_recordings(server: FaultServer, settings: Any, tmp_path: Path) -> None:
    """A server that ignores If-Range sends the rest of another file; its ETag and total give it away."""
    new = BODY[::-1] + b"more"

    def answer(handler: Handler, turn: int) -> None:
        if turn == 0:
            handler.ranged(cut=200_000)
        elif "Range" in handler.headers:
            piece = new[200_000:]
            handler.reply(206, piece, content_range=f"bytes 200000-{len(new) - 1}/{len(new)}", etag='"two"')
        else:
            handler.ranged(new, etag='"two"')

    server.answers["/x"] = answer
    assert fetch_source(server.url("/x"), tmp_path / "in", settings).sha256 == hashlib.sha256(new).hexdigest()


def test_starts_over_where_ranges_cannot_be_trusted(server: FaultServer, settings: Any, tmp_path: Path) -> None:
    server.answers["/x"] = lambda handler, turn: handler.ranged(etag="", cut=200_000 if turn == 0 else None)
    assert fetch_source(server.url("/x"), tmp_path / "in", settings).sha256 == SHA256
    assert "Range" not in server.requests[1][1]


def test_a_wrong_content_range_is_not_appended(server: FaultServer, settings: Any, tmp_path: Path) -> None:
    def answer(handler: Handler, turn: int) -> None:
        if turn == 1:
            handler.reply(206, BODY[100:], content_range=f"bytes 100-{len(BODY) - 1}/{len(BODY)}", etag='"one"')
        else:
            handler.ranged(cut=200_000 if turn == 0 else None)

    server.answers["/x"] = answer
    assert fetch_source(server.url("/x"), tmp_path / "in", settings).sha256 == SHA256


def test_a_body_shorter_than_announced_fails_after_the_resumes(server: FaultServer, settings: Any, tmp_path: Path) -> None:
    server.answers["/x"] = lambda handler, turn: handler.reply(200, BODY, content_length=len(BODY) + 1000)
    with pytest.raises(DownloadFailed, match="broke the connection") as failure:
        fetch_source(server.url("/x?sig=s3cret"), tmp_path / "in", settings)
    assert len(server.requests) == 3
    assert failure.value.retry is Retry.LATER
    assert list((tmp_path / "in").iterdir()) == []


def test_a_body_longer_than_announced_is_refused(server: FaultServer, settings: Any, tmp_path: Path) -> None:
    server.answers["/x"] = lambda handler, turn: handler.reply(200, BODY, content_length=1000)
    with pytest.raises(SourceError, match="more bytes than it announced"):
        fetch_source(server.url("/x"), tmp_path / "in", settings)


def test_a_stalled_server_fails(server: FaultServer, tmp_path: Path) -> None:
    def answer(handler: Handler, turn: int) -> None:
        handler.reply(200, BODY[:1000], content_length=len(BODY))
        server.released.wait(30)

    server.answers["/x"] = answer
    with pytest.raises(DownloadFailed, match="stalled"):
        fetch_source(
            server.url("/x"),
            tmp_path / "in",
            make_settings(tmp_path, allow_hosts=(server.host,), resumes=0, stall_timeout=0.4, min_rate=0),
        )


def test_a_body_that_drips_fails(server: FaultServer, tmp_path: Path) -> None:
    def answer(handler: Handler, turn: int) -> None:
        handler.reply(200, b"", content_length=len(BODY))
        server.drip(handler, b"x", 0.05)

    server.answers["/x"] = answer
    with pytest.raises(DownloadFailed, match="too slowly"):
        fetch_source(
            server.url("/x"), tmp_path / "in", make_settings(tmp_path, allow_hosts=(server.host,), resumes=1, stall_timeout=0.4)
        )


def test_headers_that_drip_fail(server: FaultServer, tmp_path: Path) -> None:
    def answer(handler: Handler, turn: int) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
        server.drip(handler, b"y", 0.05)

    server.answers["/x"] = answer
    with pytest.raises(DownloadFailed, match="too slowly"):
        fetch_source(
            server.url("/x"), tmp_path / "in", make_settings(tmp_path, allow_hosts=(server.host,), resumes=0, stall_timeout=0.4)
        )


def test_a_download_has_a_longest_time(server: FaultServer, tmp_path: Path) -> None:
    def answer(handler: Handler, turn: int) -> None:
        handler.reply(200, b"", content_length="")
        server.drip(handler, b"x" * 5000, 0.02)

    server.answers["/x"] = answer
    with pytest.raises(DownloadFailed, match="MAX_SECONDS"):
        fetch_source(server.url("/x"), tmp_path / "in", make_settings(tmp_path, allow_hosts=(server.host,), max_seconds=0.5))


def test_a_cancel_is_noticed_while_nothing_arrives(server: FaultServer, settings: Any, tmp_path: Path) -> None:
    waiting = threading.Event()

    def answer(handler: Handler, turn: int) -> None:
        handler.reply(200, BODY[:1000], content_length=len(BODY))
        waiting.set()
        server.released.wait(30)

    def report(done: int, total: int | None) -> None:
        if waiting.is_set() and done == 1000:
            raise StageCancelled("cancelled")

    server.answers["/x"] = answer
    with pytest.raises(StageCancelled):
        fetch_source(server.url("/x"), tmp_path / "in", settings, report)
    assert list((tmp_path / "in").iterdir()) == []


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (404, SourceNotFound),
        (410, SourceNotFound),
        (401, SourceDenied),
        (403, SourceDenied),
        (400, SourceError),
        (418, SourceError),
        (204, SourceError),
        (206, SourceError),
        (304, SourceError),
    ],
)
def test_final_answers_are_not_repeated(
    status: int, expected: type[Exception], server: FaultServer, settings: Any, tmp_path: Path
) -> None:
    server.answers["/x"] = lambda handler, turn: handler.reply(status)
    with pytest.raises(expected) as failure:
        fetch_source(f"http://user:pw@{server.host}/x?sig=s3cret", tmp_path / "in", settings)
    assert failure.type is expected
    assert str(status) in str(failure.value)
    assert "s3cret" not in str(failure.value) and "pw" not in str(failure.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_passing_failures_are_tried_again(status: int, server: FaultServer, settings: Any, tmp_path: Path) -> None:
    server.answers["/x"] = lambda handler, turn: handler.reply(status, retry_after=0) if turn < 2 else handler.ranged()
    assert fetch_source(server.url("/x"), tmp_path / "in", settings).sha256 == SHA256


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Those between two connections, on a clock that no test has to wait for."""
    now, slept = [1000.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(connections, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    return slept


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        (lambda: "7", 7.0, 7.0),
        (lambda: " 7 ", 7.0, 7.0),
        (lambda: "3600", connections.RETRY_AFTER_CAP, connections.RETRY_AFTER_CAP),
        (lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True), 20.0, 30.0),
        (lambda: format_datetime(datetime.now(UTC) - timedelta(seconds=30), usegmt=True), 0.005, 0.015),
        (lambda: "soon", 0.005, 0.015),
        (lambda: None, 0.005, 0.015),
    ],
)
def test_a_server_is_left_alone_for_as_long_as_it_asks(
    said: Callable[[], str | None],
    least: float,
    most: float,
    server: FaultServer,
    settings: Any,
    tmp_path: Path,
    pauses: list[float],
) -> None:
    wish = said()
    headers: dict[str, Any] = {"retry_after": wish} if wish is not None else {}
    server.answers["/x"] = lambda handler, turn: handler.reply(503, **headers) if not turn else handler.ranged()
    assert fetch_source(server.url("/x"), tmp_path / "in", settings).sha256 == SHA256
    assert least <= sum(pauses) <= most + 0.001
    assert max(pauses) <= connections.TICK_SECONDS, "a cancel is noticed meanwhile"


def test_lasting_failures_become_a_failed_download(server: FaultServer, settings: Any, tmp_path: Path) -> None:
    server.answers["/x"] = lambda handler, turn: handler.reply(503)
    with pytest.raises(DownloadFailed, match="answered 503"):
        fetch_source(server.url("/x"), tmp_path / "in", settings)
    assert len(server.requests) == 3


def test_zero_bytes_are_empty_media(server: FaultServer, settings: Any, tmp_path: Path) -> None:
    server.answers["/x.wav"] = lambda handler, turn: handler.reply(200)
    with pytest.raises(EmptyMedia, match=r"x\.wav"):
        fetch_source(server.url("/x.wav"), tmp_path / "in", settings)


# -- servers that attack ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:1/talk.wav",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/",
        "http://2130706433/",
        "//localhost/",
        "file:///etc/passwd",
        "ftp://public.test/x",
        "gopher://public.test/",
        "s3://bucket/key",
        "http://user:pw@public.test/",
        "http://[::1",
    ],
)
def test_every_redirect_is_checked(target: str, server: FaultServer, settings: Any, tmp_path: Path) -> None:
    server.answers["/x"] = lambda handler, turn: handler.reply(302, location=target)
    with pytest.raises(SourceForbidden):
        fetch_source(server.url("/x"), tmp_path / "in", settings)
    assert len(server.requests) == 1


def test_a_redirect_loop_ends(server: FaultServer, settings: Any, tmp_path: Path) -> None:
    server.answers["/x"] = lambda handler, turn: handler.reply(301, location="/x")
    with pytest.raises(SourceError, match="redirects more than 5 times"):
        fetch_source(server.url("/x"), tmp_path / "in", settings)
    assert len(server.requests) == 6


def test_an_announced_length_above_the_cap_is_refused_at_once(server: FaultServer, settings: Any, tmp_path: Path) -> None:
    server.answers["/x"] = lambda handler, turn: handler.reply(200, b"", content_length=10**12)
    with pytest.raises(SourceTooLarge, match="STENO_LIMITS__MAX_BYTES"):
        fetch_source(server.url("/x"), tmp_path / "in", settings)


def test_an_endless_body_stops_at_the_cap(server: FaultServer, settings: Any, tmp_path: Path) -> None:
    def answer(handler: Handler, turn: int) -> None:
        handler.reply(200, b"", content_length="", transfer_encoding="chunked")
        server.drip(handler, b"10000\r\n" + b"x" * 65536 + b"\r\n", 0)

    server.answers["/x"] = answer
    with pytest.raises(SourceTooLarge):
        fetch_source(server.url("/x"), tmp_path / "in", settings)
    assert list((tmp_path / "in").iterdir()) == []


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compression_bomb_stops_at_the_cap(encoding: str, server: FaultServer, settings: Any, tmp_path: Path) -> None:
    import zlib

    compress: Callable[[bytes], bytes] = gzip.compress if encoding == "gzip" else zlib.compress
    bomb = compress(bytes(50_000_000))
    assert len(bomb) < 100_000
    server.answers["/x"] = lambda handler, turn: handler.reply(200, bomb, content_encoding=encoding)
    with pytest.raises(SourceTooLarge):
        fetch_source(server.url("/x"), tmp_path / "in", settings)
    assert list((tmp_path / "in").iterdir()) == []


@pytest.mark.parametrize(("encoding", "body"), [("br", BODY), ("gzip", b"not gzip"), ("gzip", gzip.compress(BODY)[:-9])])
def test_other_and_broken_encodings_are_refused(
    encoding: str, body: bytes, server: FaultServer, settings: Any, tmp_path: Path
) -> None:
    server.answers["/x"] = lambda handler, turn: handler.reply(200, body, content_encoding=encoding)
    with pytest.raises(SourceError, match="encoding"):
        fetch_source(server.url("/x"), tmp_path / "in", settings)


def test_a_full_disk_is_said_to_be_full(server: FaultServer, settings: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "source.wav.part").symlink_to("/dev/full")
    with pytest.raises(StorageFull, match="No space left"):
        fetch_source(server.url("/talk.wav"), tmp_path / "in", settings)


# -- TLS ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tls_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An https server whose certificate, trusted here, is for media.test; names lead to loopback."""
    certificate = tmp_path / "server.pem"
    certificate.write_bytes(_certificate("media.test"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = FaultServer()
    names: list[str | None] = []
    context.sni_callback = lambda sock, name, ctx: names.append(name)  # type: ignore[assignment,misc]
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    server.answers["/talk.wav"] = lambda handler, turn: handler.ranged(cut=200_000 if turn == 0 else None)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.server_port))]
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **kw: found if host.endswith(".test") else real(host, *rest, **kw)
    )
    yield server, names
    server.shutdown()
    server.server_close()


def _certificate(name: str) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(serialization.Encoding.PEM) + private


def test_tls_verifies_the_name_though_it_connects_to_an_address(tls_server: Any, tmp_path: Path) -> None:
    server, names = tls_server
    url = f"https://media.test:{server.server_port}/talk.wav"
    fetched = fetch_source(url, tmp_path / "in", make_settings(tmp_path, allow_hosts=("media.test",)))
    assert fetched.sha256 == SHA256
    assert set(names) == {"media.test"}
    assert server.requests[0][1]["Host"] == f"media.test:{server.server_port}"


def test_a_certificate_for_another_name_is_refused(tls_server: Any, tmp_path: Path) -> None:
    server, _ = tls_server
    with pytest.raises(SourceError, match="certificate"):
        fetch_source(
            f"https://other.test:{server.server_port}/talk.wav",
            tmp_path / "in",
            make_settings(tmp_path, allow_hosts=("other.test",)),
        )
    assert server.requests == []


def test_a_redirect_from_https_to_http_is_refused(tls_server: Any, tmp_path: Path) -> None:
    server, _ = tls_server
    server.answers["/x"] = lambda handler, turn: handler.reply(302, location="http://media.test/talk.wav")
    with pytest.raises(SourceForbidden, match="unencrypted"):
        fetch_source(
            f"https://media.test:{server.server_port}/x", tmp_path / "in", make_settings(tmp_path, allow_hosts=("media.test",))
        )
