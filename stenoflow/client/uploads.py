"""What is sent: recordings as forms that are read while they are sent, and audio chunks as `.npy` files."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeAlias

from stenoflow.client.errors import RequestRefused

Recording: TypeAlias = "str | os.PathLike[str] | bytes | IO[bytes]"
"""A path, an address, a recording's bytes, or a binary file that is open."""


_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


class Upload:
    """A recording, with the fields of its form; opened anew for each attempt."""

    def __init__(self, source: Path | bytes | IO[bytes], name: str, fields: Mapping[str, Any]) -> None:
        self._source = source
        self.name = name
        self.fields = {key: _field(value) for key, value in fields.items() if value is not None}
        self.seekable = not hasattr(source, "read") or _seekable(source)
        """Whether it can be sent again."""

    @contextlib.contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """The recording, from its beginning. Raises OSError."""
        if isinstance(self._source, Path):
            with self._source.open("rb") as file:
                yield file
        elif isinstance(self._source, bytes):
            yield io.BytesIO(self._source)
        elif self.seekable:
            self._source.seek(0)
            yield self._source
        else:
            yield _Piped(self._source)  # type: ignore[misc]


class _Piped:
    """A pipe without its file number, of which httpx would ask a length that pipes do not have."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source

    def read(self, size: int = -1) -> bytes:
        return self._source.read(size)


def address_of(source: Recording) -> str | None:
    """The address, where the source is one that the service is to fetch from."""
    if not isinstance(source, str) or not (scheme := _SCHEME.match(source)) or scheme[1].lower() == "file":
        return None
    return source


def upload_of(source: Recording, name: str | None, fields: Mapping[str, Any]) -> Upload:
    """The form. Raises RequestRefused for what is no recording."""
    if isinstance(source, bytes | bytearray | memoryview):
        return Upload(bytes(source), name or "recording", fields)
    if isinstance(source, str | os.PathLike):
        path = Path(str(source).removeprefix("file://") if isinstance(source, str) else source).expanduser()
        if path.is_dir() or not path.exists():
            raise RequestRefused(
                f"{path} is a folder, not a recording." if path.is_dir() else f"There is no file {path}.", reason="no_file"
            )
        return Upload(path, name or _name_of(path), fields)
    given = getattr(source, "name", None)
    return Upload(source, name or (_name_of(Path(given)) if isinstance(given, str) else "recording"), fields)


def encoded_chunk(samples: Any) -> str:
    """Base64 of a `.npy` file of one channel of float32 at 16 kHz.

    `samples` is a numpy array (or whatever has a buffer) of shape (samples,), or float32 as raw bytes. Raises RequestRefused.
    """
    try:
        view = memoryview(samples)
    except TypeError:
        raise RequestRefused("Give the chunk as a numpy array of float32, or as raw bytes of float32.") from None
    if view.ndim != 1 and not (view.ndim == 2 and 1 in (view.shape or ())):
        raise RequestRefused(f"A chunk must be one channel of shape (samples,), not {view.shape}.")
    if view.format in ("B", "b", "c"):
        if view.nbytes % 4:
            raise RequestRefused(f"Raw float32 has 4 bytes per sample; {view.nbytes} bytes are not a whole number of samples.")
    elif view.format not in ("f", "=f", "@f", "<f" if sys.byteorder == "little" else ">f"):
        raise RequestRefused(f"The samples of a chunk must be float32, not {view.format!r}; use samples.astype('float32').")
    order = "<" if sys.byteorder == "little" else ">"
    header = f"{{'descr': '{order}f4', 'fortran_order': False, 'shape': ({view.nbytes // 4},), }}"
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    return base64.b64encode(
        b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + view.tobytes()
    ).decode()


def _name_of(path: Path) -> str:
    """The file's name, as UTF-8 can hold it; the service makes it one that may be shown."""
    return os.fsencode(path.name).decode(errors="replace") or "recording"


def _field(value: Any) -> Any:
    """A value as a form has it: lists are repeated, objects are JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return json.dumps(dict(value))
    return [str(item) for item in value] if isinstance(value, list | tuple) else str(value)


def _seekable(source: Any) -> bool:
    try:
        return bool(source.seekable())
    except AttributeError:
        return False
