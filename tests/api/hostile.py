"""The table of hostile requests: what each is called, what is sent, and which refusals are right.

Everything is written to the wire as it stands here: no client tidies it up.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import io
import json
import pickle
import socket
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.api.guarded import GuardedApi
from tests.api.hostile_server import SECRET

Parts = list[bytes | float]
"""What is written: bytes, and pauses in seconds."""
TRACES = Path(tempfile.gettempdir(), "hostile-traces")
"""Where code that came with a body would leave a file, if anything ran it."""
CLOSE = -1.0
"""In place of a pause: nothing more is sent."""
_BOUNDARY = "b0undary"


@dataclass(frozen=True)
class Case:
    name: str
    sent: Callable[[GuardedApi], Parts]
    right: tuple[int, ...]
    """Statuses that refuse it; 0 for a connection that is closed without an answer."""
    code: str = ""
    """The problem's, where it matters."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def code(self) -> str:
        with contextlib.suppress(ValueError, AttributeError):
            return str(json.loads(self.body).get("code", ""))
        return ""


def exchange(api: GuardedApi, parts: Parts, timeout: float = 25) -> Answer:
    """Write the parts to a connection of their own; what came back, the first of it if there is more."""
    host, _, port = api.live.url.removeprefix("http://").partition(":")
    began = time.monotonic()
    with socket.create_connection((host, int(port)), timeout=timeout) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for part in parts:
                if part == CLOSE:
                    connection.shutdown(socket.SHUT_WR)
                elif isinstance(part, bytes):
                    connection.sendall(part)
                else:
                    time.sleep(part)
        response = http.client.HTTPResponse(connection)
        try:
            response.begin()
            body = response.read().decode("utf-8", "replace")
        except (http.client.BadStatusLine, ConnectionResetError, http.client.IncompleteRead):
            return Answer(0, seconds=time.monotonic() - began)
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, body, headers, time.monotonic() - began)


# -- what is sent -------------------------------------------------------------------------------------------------------


def head(api: GuardedApi, method: str, target: str, *headers: str, key: str | None = None) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: api", *headers]
    if key != "":
        lines.append(f"Authorization: Bearer {key or api.key}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def posted(content: bytes, kind: str = "application/json", target: str = "/transcribes", *headers: str) -> Callable[..., Parts]:
    return lambda api: [
        head(api, "POST", target, f"Content-Type: {kind}", f"Content-Length: {len(content)}", *headers) + content
    ]


def submitted(**body: Any) -> Callable[[GuardedApi], Parts]:
    return posted(json.dumps(body).encode())


def asked(target: str, method: str = "GET", *headers: str) -> Callable[[GuardedApi], Parts]:
    return lambda api: [head(api, method, target, *headers)]


def at_canary(url: str) -> Callable[[GuardedApi], Parts]:
    """A submission of the URL, in which PORT stands for the canary's."""

    def parts(api: GuardedApi) -> Parts:
        return submitted(audio_url=url.replace("PORT", str(api.canary.port)))(api)

    return parts


def told(url: str) -> Callable[[GuardedApi], Parts]:
    """The same as `webhook_url`."""

    def parts(api: GuardedApi) -> Parts:
        return submitted(audio_url=api.server.url("good.wav"), webhook_url=url.replace("PORT", str(api.canary.port)))(api)

    return parts


def form(*parts: tuple[str, bytes], end: bool = True) -> bytes:
    """Multipart of (headers, content)."""
    body = b"".join(b"--%s\r\n%s\r\n\r\n%s\r\n" % (_BOUNDARY.encode(), head.encode(), content) for head, content in parts)
    return body + (b"--%s--\r\n" % _BOUNDARY.encode() if end else b"")


def field_head(name: str, filename: str | None = None) -> str:
    return f'Content-Disposition: form-data; name="{name}"' + (f'; filename="{filename}"' if filename is not None else "")


def uploaded(content: bytes, *headers: str) -> Callable[..., Parts]:
    return posted(content, f"multipart/form-data; boundary={_BOUNDARY}", "/transcribes", *headers)


def chunk(content: bytes) -> Callable[[GuardedApi], Parts]:
    return submitted(audio_chunk=base64.b64encode(content).decode())


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00", length: int | None = None) -> bytes:
    text = header.encode()
    return b"\x93NUMPY" + version + (len(text) if length is None else length).to_bytes(2, "little") + text + data


def array(shape: str = "(4,)", kind: str = "<f4", data: bytes = bytes(16), **more: str) -> bytes:
    fields = {"descr": repr(kind), "fortran_order": "False", "shape": shape} | more
    return npy("{" + ", ".join(f"'{name}': {value}" for name, value in fields.items()) + ", }\n", data)


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("arr_0.npy", b"\0" * (8 << 20))
    return out.getvalue()


class Evil:
    def __reduce__(self) -> Any:
        return open, (str(TRACES / "pickle-was-run"), "w")


def drip(piece: bytes, times: int, pause: float) -> Parts:
    return [part for _ in range(times) for part in (piece, pause)]


def chunks_of(pieces: Iterable[bytes]) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


# -- the table ----------------------------------------------------------------------------------------------------------

AUDIO_URLS = {
    "loopback": "http://127.0.0.1:PORT/inside",
    "loopback, other number": "http://127.8.9.1:PORT/inside",
    "localhost": "http://localhost:PORT/inside",
    "localhost, dotted": "http://LOCALHOST.:PORT/inside",
    "localhost below": "http://a.localhost:PORT/inside",
    "one decimal number": "http://2130706433:PORT/inside",
    "one hexadecimal number": "http://0x7f000001:PORT/inside",
    "hexadecimal parts": "http://0x7f.0.0.0x1:PORT/inside",
    "octal": "http://0177.0.0.1:PORT/inside",
    "one octal number": "http://017700000001:PORT/inside",
    "two parts": "http://127.1:PORT/inside",
    "zero": "http://0:PORT/inside",
    "unspecified": "http://0.0.0.0:PORT/inside",
    "fullwidth digits": "http://１２７.０.０.１:PORT/inside",
    "circled digits": "http://①②⑦.⓪.⓪.①:PORT/inside",
    "ideographic full stop": "http://127。0。0。1:PORT/inside",
    "percent-encoded host": "http://%31%32%37.0.0.1:PORT/inside",
    "IPv6 loopback": "http://[::1]:PORT/inside",
    "IPv6 loopback in full": "http://[0:0:0:0:0:0:0:1]:PORT/inside",
    "IPv4-mapped": "http://[::ffff:127.0.0.1]:PORT/inside",
    "IPv4-mapped in hex": "http://[::ffff:7f00:1]:PORT/inside",
    "IPv4-compatible": "http://[::127.0.0.1]:PORT/inside",
    "NAT64": "http://[64:ff9b::7f00:1]:PORT/inside",
    "6to4": "http://[2002:7f00:1::]:PORT/inside",
    "Teredo": "http://[2001:0:7f00:1::]:PORT/inside",
    "zone id": "http://[fe80::1%25lo]:PORT/inside",
    "link-local IPv6": "http://[fe80::1]/inside",
    "unique local IPv6": "http://[fd00::1]/inside",
    "site-local IPv6": "http://[fec0::1]/inside",
    "multicast IPv6": "http://[ff02::1]/inside",
    "ten": "http://10.0.0.1/inside",
    "172.16": "http://172.16.0.1/inside",
    "192.168": "http://192.168.1.1/inside",
    "shared address space": "http://100.64.0.1/inside",
    "link-local": "http://169.254.1.1/inside",
    "multicast": "http://224.0.0.1/inside",
    "broadcast": "http://255.255.255.255/inside",
    "documentation": "http://192.0.2.1/inside",
    "benchmarking": "http://198.18.0.1/inside",
    "reserved": "http://240.0.0.1/inside",
    "metadata of AWS": "http://169.254.169.254/latest/meta-data/",
    "metadata in hex": "http://0xa9fea9fe/latest/meta-data/",
    "metadata over IPv6": "http://[fd00:ec2::254]/latest/meta-data/",
    "metadata of Google": "http://metadata.google.internal/computeMetadata/v1/",
    "metadata of Alibaba": "http://100.100.100.200/latest/meta-data/",
    "metadata of Azure": "http://168.63.129.16/machine",
    "name that is loopback": "http://inside.test:PORT/inside",
    "name that is IPv6 loopback": "http://inside6.test:PORT/inside",
    "name that is private": "http://intranet.test/inside",
    "name that is mapped": "http://mapped.test:PORT/inside",
    "name with a public and a private address": "http://mixed.test:PORT/inside",
    "name of the metadata service": "http://metadata.test/latest/",
    "name that is unspecified": "http://unspecified.test:PORT/inside",
    "mDNS name": "http://printer.local/inside",
    "userinfo before loopback": "http://public.test@127.0.0.1:PORT/inside",
    "backslash": "http://127.0.0.1:PORT\\@public.test/inside",
    "blank in the host": "http://127.0.0.1 public.test/inside",
    "line break": f"http://public.test/x?token={SECRET}\r\nX-Injected: yes",
    "NUL": "http://public.test\x00.evil/inside",
    "tab": "ht\ttp://127.0.0.1:PORT/inside",
    "lone surrogate": "http://public.test/\ud800",
    "port zero": "http://public.test:0/inside",
    "port too large": "http://public.test:65536/inside",
    "port in words": "http://public.test:http/inside",
    "no host": "http:///etc/passwd",
    "no slashes": "http:127.0.0.1:PORT/inside",
    "scheme only": "https://",
    "brackets open": "http://[::1/inside",
    "overlong label": f"http://{'a' * 64}.test/inside",
    "overlong name": f"http://{'a.' * 130}test/inside",
    "file": "file:///etc/passwd",
    "file of this host": "file://localhost/etc/passwd",
    "path": "/etc/passwd",
    "relative path": "../../../../etc/passwd",
    "home": "~/.ssh/id_rsa",
    "standard input": "-",
    "ftp": "ftp://127.0.0.1:PORT/inside",
    "gopher": "gopher://127.0.0.1:PORT/_GET%20/inside",
    "dict": "dict://127.0.0.1:PORT/stat",
    "data": "data:audio/wav;base64,UklGRg==",
    "javascript": "javascript:alert(1)",
    "chained fsspec": "simplecache::http://127.0.0.1:PORT/inside",
    "reference filesystem": "reference://x",
    "memory filesystem": "memory://x/y.wav",
    "google storage": "gs://bucket/x.wav",
    "another run's handle": f"secret://{'0' * 32}/talk.wav",
    "s3 without a key": "s3://recordings/",
    "s3 of a bucket that is not read": f"s3://somebody-elses/talk.wav?token={SECRET}",
    "s3 with credentials": "s3://key:secret@recordings/talk.wav",
    "s3 with a path trick": "s3://recordings/../other/talk.wav",
    "s3 with an encoded path trick": "s3://recordings/%2e%2e/other/talk.wav",
    "s3 access point": "s3://arn:aws:s3:eu-west-1:1:accesspoint/x/talk.wav",
}

WEBHOOK_URLS = {
    "loopback": "https://127.0.0.1:PORT/hook",
    "decimal": "https://2130706433:PORT/hook",
    "IPv6 loopback": "https://[::1]:PORT/hook",
    "mapped": "https://[::ffff:127.0.0.1]:PORT/hook",
    "private": "https://10.0.0.1/hook",
    "metadata": "https://169.254.169.254/hook",
    "private name": "https://intranet.test/hook",
    "plain http": "http://public.test/hook",
    "password": f"https://user:{SECRET}@public.test/hook",
    "file": "file:///etc/passwd",
    "s3": "s3://recordings/hook",
    "line break": "https://public.test/hook\r\nX-Injected: yes",
    "redis": "redis://127.0.0.1:PORT/0",
}

_GOOD = '"audio_url": "http://public.test/talk.wav"'
JSON_BODIES: dict[str, tuple[bytes, tuple[int, ...]]] = {
    "nothing": (b"", (400,)),
    "half of it": (b'{"audio_url": "http://pub', (400,)),
    "more after it": (b'{"audio_url": "http://public.test/x"}}', (400,)),
    "a list": (b"[]", (422,)),
    "a string": (b'"http://127.0.0.1/"', (422,)),
    "null": (b"null", (422,)),
    "NaN": (b"NaN", (400,)),
    "NaN as a number": (f'{{{_GOOD}, "batch_size": NaN}}'.encode(), (400,)),
    "infinity": (f'{{{_GOOD}, "batch_size": Infinity}}'.encode(), (400,)),
    "minus infinity": (f'{{{_GOOD}, "batch_size": -Infinity}}'.encode(), (400,)),
    "overflow": (f'{{{_GOOD}, "batch_size": 1e999}}'.encode(), (400, 422)),
    "a huge integer": (f'{{{_GOOD}, "batch_size": 1{"0" * 5000}}}'.encode(), (400, 422)),
    "deep lists": (b"[" * 100_000, (400,)),
    "deep lists, closed": (b'{"metadata": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", (400,)),
    "deep objects": (b'{"a":' * 40_000 + b"1" + b"}" * 40_000, (400,)),
    "shallow enough for the parser": (b'{"metadata": ' + b"[" * 900 + b"]" * 900 + b"}", (400, 422)),
    "not UTF-8": (b'{"audio_url": "http://public.test/\xff\xfe"}', (400,)),
    "UTF-16": ('{"audio_url": "file:///etc/passwd"}'.encode("utf-16"), (400, 422)),
    "a lone surrogate": (b'{"audio_url": "http://public.test/x", "initial_prompt": "\\ud800"}', (400, 422)),
    "NUL in a text": (b'{"audio_url": "http://public.test/x", "metadata": {"a": "\\u0000"}}', (422,)),
    "a name twice": (b'{"audio_url": "http://public.test/x", "audio_url": "file:///etc/passwd"}', (400, 422)),
    "unknown field": (f'{{{_GOOD}, "output_dir": "/etc"}}'.encode(), (422,)),
    "prototype": (f'{{{_GOOD}, "__proto__": {{"admin": true}}}}'.encode(), (422,)),
    "redo_from of the operator": (f'{{{_GOOD}, "compute": "modal"}}'.encode(), (422,)),
    "model is a path": (f'{{{_GOOD}, "model": "/etc/passwd"}}'.encode(), (422,)),
    "model climbs": (f'{{{_GOOD}, "model": "../../etc/passwd"}}'.encode(), (422,)),
    "model is a URL": (f'{{{_GOOD}, "model": "http://127.0.0.1/x"}}'.encode(), (422,)),
    "tag of another owner": (f'{{{_GOOD}, "tags": ["owner other"]}}'.encode(), (422,)),
    "too many tags": (f'{{{_GOOD}, "tags": {json.dumps(["t"] * 17)}}}'.encode(), (422,)),
    "too much metadata": (f'{{{_GOOD}, "metadata": {json.dumps({str(i): "" for i in range(5000)})}}}'.encode(), (422,)),
    "metadata that nests": (f'{{{_GOOD}, "metadata": {{"a": {{"b": 1}}}}}}'.encode(), (422,)),
    "too large": (b'{"audio_url": "http://public.test/' + b"x" * 3_000_000 + b'"}', (413,)),
    "too large for a URL": (b'{"audio_url": "http://public.test/' + b"x" * 20_000 + b'"}', (422,)),
    "URL and chunk": (f'{{{_GOOD}, "audio_chunk": "AAAA"}}'.encode(), (400,)),
    "neither": (b"{}", (400,)),
    "speakers below zero": (f'{{{_GOOD}, "min_speakers": -1}}'.encode(), (422,)),
    "batch of a billion": (f'{{{_GOOD}, "batch_size": 1000000000}}'.encode(), (422,)),
}

CHUNKS: dict[str, bytes] = {
    "pickle": pickle.dumps(Evil()),
    "array of objects": array("(1,)", "|O", pickle.dumps([Evil()])),
    "structured array": npy("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,), }\n", pickle.dumps([Evil()])),
    "zip bomb": zipped(),
    "lying shape": array("(999999999999,)"),
    "shape that overflows": array("(18446744073709551617,)"),
    "shape below zero": array("(-1,)"),
    "shape of nothing": array("()"),
    "two channels": array("(2, 2)"),
    "expression in the header": array(f"(open({str(TRACES / 'npy-was-run')!r}, 'w'),)"),
    "deep header": npy("(" * 5000),
    "header longer than the file": npy("{}", length=65_535),
    "unknown version": npy("{}", version=b"\x09\x00"),
    "half floats": array("(8,)", "<f2"),
    "doubles that are no numbers": array("(2,)", "<f8", data=b"\xff" * 16),
    "doubles without end": array("(2,)", "<f8", data=b"\0\0\0\0\0\0\xf0\x7f" * 2),
    "dates": array("(2,)", "<M8[s]"),
    "more than it says": array("(4,)", data=bytes(64)),
    "less than it says": array("(4,)", data=bytes(8)),
    "too long": array(f"({16_000 * 6},)", data=bytes(4 * 16_000 * 6)),
    "samples that are no numbers": array("(4,)", data=b"\0\0\xc0\x7f" * 4),
    "samples that are infinite": array("(4,)", data=b"\0\0\x80\x7f" * 4),
    "infinite samples that cancel out": array("(2,)", data=b"\0\0\x80\x7f\0\0\x80\xff"),
    "samples that are no numbers, big-endian": array("(4,)", ">f4", data=b"\x7f\xc0\0\0" * 4),
    "nothing": b"",
    "a WAV": b"RIFF\x24\0\0\0WAVEfmt ",
}

_FILE = field_head("file", "talk.wav")
FORMS: dict[str, tuple[bytes, tuple[int, ...]]] = {
    "no end": (form((_FILE, b"RIFF"), end=False), (400,)),
    "no parts": (form(), (400, 422)),
    "empty file": (form((_FILE, b"")), (422,)),
    "two files": (form((_FILE, b"RIFF"), (_FILE, b"RIFF")), (400,)),
    "file and URL": (form((_FILE, b"RIFF"), (field_head("audio_url"), b"http://127.0.0.1/")), (400,)),
    "URL alone": (form((field_head("audio_url"), b"http://127.0.0.1:22/")), (422,)),
    "unnamed part": (form(("Content-Disposition: form-data", b"x")), (400,)),
    "part without headers": (b"--b0undary\r\n\r\nx\r\n--b0undary--\r\n", (400,)),
    "huge part header": (form((f"{_FILE}\r\nX-A: {'a' * 60_000}", b"RIFF")), (400,)),
    "a thousand parts": (form(*[(field_head("tags"), b"x")] * 1000), (400,)),
    "a field twice": (form((_FILE, b"RIFF"), (field_head("model"), b"a"), (field_head("model"), b"b")), (422,)),
    "field that is not UTF-8": (form((_FILE, b"RIFF"), (field_head("hotwords"), b"\xff\xfe")), (400,)),
    "unknown field": (form((_FILE, b"RIFF"), (field_head("output_dir"), b"/etc")), (422,)),
    "metadata with NaN": (form((_FILE, b"RIFF"), (field_head("metadata"), b'{"a": NaN}')), (400,)),
    "metadata that is deep": (form((_FILE, b"RIFF"), (field_head("metadata"), b"[" * 20_000)), (400,)),
    "fields that are too large": (form((_FILE, b"RIFF"), (field_head("hotwords"), b"x" * 400_000)), (413,)),
    "file that is too large": (form((_FILE, b"\0" * 1_100_000)), (413,)),
    "no form at all": (b"RIFF" * 100, (400,)),
}

_NOBODYS = "00000000-0000-4000-8000-000000000000"
REQUESTS: dict[str, tuple[Callable[[GuardedApi], Parts], tuple[int, ...]]] = {
    "job that is none": (asked(f"/transcribes/{_NOBODYS}"), (404,)),
    "job id climbs": (asked("/transcribes/../../etc/passwd"), (404,)),
    "job id climbs, encoded": (asked("/transcribes/%2e%2e%2f%2e%2e%2fetc%2fpasswd"), (404,)),
    "job id climbs, encoded twice": (asked("/transcribes/%252e%252e%252fetc%252fpasswd"), (404,)),
    "job id with NUL": (asked("/transcribes/%00"), (404,)),
    "job id is not UTF-8": (asked("/transcribes/%ff%fe"), (404,)),
    "job id of SQL": (asked("/transcribes/'%20OR%201=1--"), (404,)),
    "job id without end": (asked(f"/transcribes/{'a' * 8000}"), (404,)),
    "transcript of no job": (asked(f"/transcribes/{_NOBODYS}.json"), (404,)),
    "transcript of an unknown kind": (asked(f"/transcribes/{_NOBODYS}.exe"), (404,)),
    "transcript climbs": (asked(f"/transcribes/{_NOBODYS}.json/../../x"), (404,)),
    "events of no job": (asked(f"/transcribes/{_NOBODYS}/events"), (404,)),
    "legacy result of no job": (asked(f"/result/{_NOBODYS}"), (404,)),
    "deleting no job": (asked(f"/transcribes/{_NOBODYS}", "DELETE"), (404,)),
    "cursor that was made up": (asked("/transcribes?cursor=AAAA"), (400, 422)),
    "cursor of another shape": (asked("/transcribes?cursor=eyJhIjoxfQ=="), (400, 422)),
    "limit of a billion": (asked("/transcribes?limit=1000000000"), (422,)),
    "wait for ever": (asked("/transcribes?job_id=x&wait=1e9"), (422,)),
    "wait NaN": (asked(f"/transcribes/{_NOBODYS}?wait=nan"), (422,)),
    "date that is none": (asked("/transcribes?created_after=99999-01-01"), (422,)),
    "number for a date": (asked("/transcribes?created_before=0.5"), (422,)),
    "no such address": (asked("/admin"), (404,)),
    "static files": (asked("/static/../../../etc/passwd"), (404,)),
    "another host's address": (asked("http://169.254.169.254/latest/meta-data/"), (400, 404)),
    "method that is none": (asked("/transcribes", "BREW"), (405,)),
    "TRACE": (asked("/transcribes", "TRACE"), (405,)),
    "CONNECT": (lambda api: [head(api, "CONNECT", f"127.0.0.1:{api.canary.port}")], (400, 404, 405)),
    "method in a header": (asked("/health", "POST", "X-HTTP-Method-Override: DELETE", "Content-Length: 0"), (405,)),
    "XML": (posted(b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>', "application/xml"), (415,)),
    "pickle": (posted(pickle.dumps(Evil()), "application/x-python-pickle"), (415,)),
    "YAML": (posted(b"!!python/object/apply:os.system ['id']", "application/yaml"), (415,)),
    "gzip in place of JSON": (
        posted(gzip.compress(b" " * 50_000_000), "application/json", "/transcribes", "Content-Encoding: gzip"),
        (400, 415),
    ),
    "form without a boundary": (posted(b"x", "multipart/form-data"), (400,)),
    "form with an empty boundary": (posted(b"x", 'multipart/form-data; boundary=""'), (400,)),
    "form with a huge boundary": (posted(b"x", f"multipart/form-data; boundary={'b' * 5000}"), (400,)),
    "Idempotency-Key that is too long": (
        posted(f"{{{_GOOD}}}".encode(), "application/json", "/transcribes", f"Idempotency-Key: {'k' * 300}"),
        (422,),
    ),
    "retry of no job": (posted(b'{"from": "asr"}', "application/json", f"/transcribes/{_NOBODYS}/retry"), (404,)),
    "no key": (lambda api: [head(api, "GET", "/transcribes", key="")], (401,)),
    "wrong key": (lambda api: [head(api, "GET", "/transcribes", key=api.key[:-2] + "AA")], (401,)),
    "two keys": (lambda api: [head(api, "GET", "/transcribes", f"Authorization: Bearer {api.other}")], (401,)),
    "key in the query": (lambda api: [head(api, "GET", f"/transcribes?api_key={api.key}", key="")], (401,)),
    "metrics without a key": (lambda api: [head(api, "GET", "/metrics", key="")], (401,)),
}

WIRE: dict[str, tuple[Callable[[GuardedApi], Parts], tuple[int, ...]]] = {
    "length that never comes": (
        lambda api: [head(api, "POST", "/transcribes", "Content-Type: application/json", "Content-Length: 1000") + b'{"a'],
        (408,),
    ),
    "body that drips": (
        lambda api: [
            head(api, "POST", "/transcribes", "Content-Type: application/json", "Content-Length: 100000"),
            *drip(b" ", 12, 0.4),
        ],
        (408,),
    ),
    "upload that drips": (
        lambda api: [
            head(
                api,
                "POST",
                "/transcribes",
                f"Content-Type: multipart/form-data; boundary={_BOUNDARY}",
                "Content-Length: 100000",
            )
            + form((_FILE, b"RIFF"), end=False),
            *drip(b"\0", 12, 0.4),
        ],
        (408,),
    ),
    "chunks that drip": (
        lambda api: [
            head(api, "POST", "/transcribes", "Content-Type: application/json", "Transfer-Encoding: chunked"),
            *drip(b"1\r\n \r\n", 12, 0.4),
        ],
        (408,),
    ),
    "length of exabytes": (
        lambda api: [head(api, "POST", "/transcribes", "Content-Type: application/json", f"Content-Length: {10**18}") + b"{"],
        (413,),
    ),
    "upload of exabytes": (
        lambda api: [
            head(
                api,
                "POST",
                "/transcribes",
                f"Content-Type: multipart/form-data; boundary={_BOUNDARY}",
                f"Content-Length: {10**18}",
            )
            + b"--"
        ],
        (413,),
    ),
    "length of exabytes, expecting to be told to go on": (
        lambda api: [
            head(
                api,
                "POST",
                "/transcribes",
                "Content-Type: application/json",
                f"Content-Length: {10**18}",
                "Expect: 100-continue",
            )
        ],
        (413,),
    ),
    "chunks without end": (
        lambda api: [
            head(api, "POST", "/transcribes", "Content-Type: application/json", "Transfer-Encoding: chunked"),
            *[chunks_of([b" " * 65_536])] * 200,
        ],
        (413,),
    ),
    "upload in chunks without end": (
        lambda api: [
            head(
                api,
                "POST",
                "/transcribes",
                f"Content-Type: multipart/form-data; boundary={_BOUNDARY}",
                "Transfer-Encoding: chunked",
            ),
            chunks_of([form((_FILE, b"RIFF"), end=False)]),
            *[chunks_of([b"\0" * 65_536])] * 200,
        ],
        (413,),
    ),
    "length below zero": (lambda api: [head(api, "POST", "/transcribes", "Content-Length: -1") + b"{}"], (400,)),
    "length in words": (lambda api: [head(api, "POST", "/transcribes", "Content-Length: ten") + b"{}"], (400,)),
    "two lengths": (lambda api: [head(api, "POST", "/transcribes", "Content-Length: 2", "Content-Length: 3") + b"{} "], (400,)),
    "length and chunks": (
        lambda api: [
            head(
                api,
                "POST",
                "/transcribes",
                "Content-Type: application/json",
                "Content-Length: 4",
                "Transfer-Encoding: chunked",
            )
            + b"0\r\n\r\nGET /transcribes HTTP/1.1\r\nHost: api\r\n\r\n"
        ],
        (400,),
    ),
    "chunk of no size": (
        lambda api: [
            head(api, "POST", "/transcribes", "Content-Type: application/json", "Transfer-Encoding: chunked") + b"zz\r\n{}\r\n"
        ],
        (400,),
    ),
    "chunk of a huge size": (
        lambda api: [
            head(api, "POST", "/transcribes", "Content-Type: application/json", "Transfer-Encoding: chunked")
            + b"f" * 30
            + b"\r\n"
        ],
        (400, 413),
    ),
    "unknown transfer encoding": (
        lambda api: [head(api, "POST", "/transcribes", "Transfer-Encoding: gzip") + b"x"],
        (400, 501),
    ),
    "a head without end": (
        lambda api: [head(api, "GET", "/health")[:-2], *[b"X-A: " + b"a" * 8000 + b"\r\n"] * 20],
        (400, 431),
    ),
    "a target without end": (lambda api: [b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: api\r\n\r\n"], (400, 404, 414)),
    "no HTTP": (lambda api: [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)) + b"\r\n\r\n"], (400,)),
    "no host": (lambda api: [b"GET /health HTTP/1.1\r\n\r\n"], (400,)),
    "a header over two lines": (lambda api: [b"GET /transcribes HTTP/1.1\r\nHost: api\r\nX-A: a\r\n b\r\n\r\n"], (400, 401)),
    "NUL in a header": (lambda api: [b"GET /health HTTP/1.1\r\nHost: api\r\nX-A: a\0b\r\n\r\n"], (400,)),
    "a blank before the colon": (lambda api: [b"GET /health HTTP/1.1\r\nHost : api\r\n\r\n"], (400,)),
    "a connection that closes early": (
        lambda api: [head(api, "POST", "/transcribes", "Content-Type: application/json", "Content-Length: 1000") + b"{", CLOSE],
        (0, 400, 408),
    ),
    "a head that drips": (lambda api: [b"GET /health HTTP/1.1\r\n", *drip(b"X-A: a\r\n", 10, 0.4)], (408,)),
    "a head that never comes": (lambda api: [b"GET /hea"], (408,)),
    "a connection that says nothing": (lambda api: [], (0,)),
    "a second request whose head never comes": (lambda api: [head(api, "GET", "/transcribes/x") + b"GET /tran"], (404,)),
}


def cases() -> Iterator[Case]:
    """All of them, each with its kind in its name."""
    for name, url in AUDIO_URLS.items():
        yield Case(f"audio_url: {name}", at_canary(url), (422,), "" if _unkeepable(url) else "audio_url_refused")
    for name, url in WEBHOOK_URLS.items():
        yield Case(f"webhook_url: {name}", told(url), (422,), "webhook_url_refused")
    for name, (content, right) in JSON_BODIES.items():
        yield Case(f"JSON: {name}", posted(content), right)
    yield Case("chunk: no base64", submitted(audio_chunk="%%%"), (400, 422))
    for name, content in CHUNKS.items():
        yield Case(f"chunk: {name}", chunk(content), (400, 413, 422))
    for name, (content, right) in FORMS.items():
        yield Case(f"form: {name}", uploaded(content), right)
    for kind, table in (("request", REQUESTS), ("wire", WIRE)):
        for name, (sent, right) in table.items():
            yield Case(f"{kind}: {name}", sent, right)


def _unkeepable(url: str) -> bool:
    return "\0" in url or "\ud800" in url
