"""A server that an operator allows, and that does what servers of strangers may do: redirect, lie, drip, bomb."""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import socket
import threading
import time
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

SECRET = "t0psecretcanary"
"""Stands in queries and passwords of what is sent, and must be in no answer and in no log."""


def wav(seconds: float = 1.0) -> bytes:
    """A whole recording."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(b"\0\1" * int(16_000 * seconds))
    return out.getvalue()


def _head(status: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", "Connection: close", *headers, "", ""]).encode()


def _redirect(to: str, status: str = "302 Found") -> bytes:
    return _head(status, f"Location: {to}", "Content-Length: 0")


@dataclass
class HostileServer:
    port: int
    canary: int
    hits: dict[str, int] = field(default_factory=dict)

    @classmethod
    @contextlib.contextmanager
    def listening(cls, canary: int) -> Iterator[HostileServer]:
        """Until the end of the block; `canary` is the port that some answers lead to."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        server = cls(listener.getsockname()[1], canary)
        assert server.answers

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=server._serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield server
        finally:
            listener.close()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}?token={SECRET}"

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(30)
            target = connection.recv(65_536).split(b" ")[1].decode()
            name = target.lstrip("/").partition("?")[0]
            self.hits[name] = self.hits.get(name, 0) + 1
            made = self.answers.get(name, _head("404 Not Found", "Content-Length: 0"))
            if callable(made):
                made(connection)
            else:
                connection.sendall(made)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
            connection.recv(1)

    @functools.cached_property
    def answers(self) -> dict[str, bytes | Callable[[socket.socket], None]]:
        """By the path's name."""
        here, forbidden, whole = f"http://127.0.0.1:{self.port}", f"127.0.0.1:{self.canary}", wav()
        ok = "200 OK"
        playlist = f"#EXTM3U\n#EXTINF:1,\nhttp://{forbidden}/inside.ts\n#EXT-X-ENDLIST\n".encode()
        concat = f"ffconcat version 1.0\nfile 'http://{forbidden}/inside'\nfile '/etc/passwd'\n".encode()
        return {
            "good.wav": _head(ok, f"Content-Length: {len(whole)}") + whole,
            "to-loopback.wav": _redirect(f"http://{forbidden}/inside"),
            "to-localhost.wav": _redirect(f"http://localhost:{self.canary}/inside", "307 Temporary Redirect"),
            "to-decimal.wav": _redirect(f"http://2130706433:{self.canary}/inside", "301 Moved"),
            "to-mapped.wav": _redirect(f"http://[::ffff:127.0.0.1]:{self.canary}/inside", "308 Permanent"),
            "to-metadata.wav": _redirect("http://169.254.169.254/latest/meta-data/iam/"),
            "to-file.wav": _redirect("file:///etc/passwd"),
            "to-gopher.wav": _redirect(f"gopher://{forbidden}/_inside"),
            "to-name.wav": _redirect(f"http://inside.test:{self.canary}/inside", "303 See Other"),
            "hops.wav": _redirect(f"{here}/to-loopback.wav"),
            "loop.wav": _redirect(f"{here}/loop.wav"),
            "long.wav": _head(ok, "Content-Length: 500000") + whole,
            "short.wav": _head(ok, "Content-Length: 2000") + whole,
            "huge.wav": _head(ok, "Content-Length: 99999999999") + whole,
            "endless.wav": lambda connection: _repeat(connection, _head(ok), b"\0" * 65_536, 0),
            "drip.wav": lambda connection: _repeat(connection, _head(ok, "Content-Length: 32044"), b"R", 0.2),
            "silent.wav": lambda connection: time.sleep(20),
            "headers.wav": lambda connection: _repeat(connection, b"HTTP/1.1 200 OK\r\n", b"X-A: " + b"a" * 4000 + b"\r\n", 0),
            "bomb.wav": _bomb(ok),
            "empty.wav": _head(ok, "Content-Length: 0"),
            "noise.wav": _head(ok, "Content-Length: 5000") + bytes(range(256)) * 19 + b"\0" * 136,
            "page.wav": _head(ok, "Content-Type: text/html", "Content-Length: 39")
            + b"<html><body>Please log in.</body></html>"[:39],
            "list.mp3": _head(ok, f"Content-Length: {len(playlist)}") + playlist,
            "concat.mp3": _head(ok, f"Content-Length: {len(concat)}") + concat,
            "lying.wav": _body(ok, whole[:40] + (0x7FFFFFF0).to_bytes(4, "little") + whole[44:]),
            "hour.flac": _body(ok, _long()),
            "denied.wav": _head("401 Unauthorized", 'WWW-Authenticate: Basic realm="x"', "Content-Length: 0"),
            "broken.wav": _head("500 Internal Server Error", "Content-Length: 0"),
        }


def _body(status: str, content: bytes, *headers: str) -> bytes:
    return _head(status, f"Content-Length: {len(content)}", *headers) + content


def _bomb(status: str) -> bytes:
    return _body(status, gzip.compress(b"\0" * (8 << 20), 1), "Content-Encoding: gzip")


def _long() -> bytes:
    """Two minutes of silence in few bytes."""
    import numpy as np
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, np.zeros(16_000 * 120, dtype="int16"), 16_000, format="FLAC")
    return out.getvalue()


def _repeat(connection: socket.socket, head: bytes, piece: bytes, pause: float) -> None:
    end = time.monotonic() + 25
    connection.sendall(head)
    while time.monotonic() < end:
        connection.sendall(piece)
        time.sleep(pause)
