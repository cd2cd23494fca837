"""Recordings that arrive as multipart/form-data: written to disk as they come, then kept in the store under their hash."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from api import holds, older, tags
from api.bodies import checked, parsed, pieces
from api.errors import BadRequest, TooLarge, Unprocessable
from api.schemas import JobRequest
from api.submissions import Uploaded
from infra.api_settings import ApiSettings
from infra.compute import get_store
from infra.names import display_name
from infra.partfile import PartFile
from stenoflow.errors import SourceTooLarge

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

M_co = TypeVar("M_co", covariant=True)

FILE = "file"
"""The part that holds the recording."""
_BLOCK = 1 << 20
_MOST_PARTS = 100
_HEADERS = 16 * 1024
"""Bytes of a part's headers."""
_LISTS = ("formats", "tags")
_OBJECTS = ("metadata",)


Fields = Mapping[str, list[str]]
"""The texts of a form, by the name of their part, which may be given several times."""


class Submission(NamedTuple):
    body: JobRequest
    upload: Uploaded | None
    """None where a form gave an `audio_url`."""
    ignored: Sequence[str] = ()
    """Fields of `api.older`."""


class Understand(Protocol[M_co]):
    def __call__(self, fields: Fields, *, has_file: bool) -> M_co:
        """What the form asks for; called before its recording is kept."""
        ...


async def receive(request: Request, settings: ApiSettings, limit: int) -> Submission:
    """A submission as a form: its options, and its recording once the store has it.

    Raises what `received` does, and BadRequest for none or both of `file` and `audio_url`.
    """
    ignored: list[str] = []

    def understand(fields: Fields, *, has_file: bool) -> JobRequest:
        known, names = older.understood(fields)
        ignored.extend(names)
        return options(known, has_file=has_file)

    return Submission(*await received(request, settings, limit, understand), ignored)


async def received(
    request: Request, settings: ApiSettings, limit: int, understand: Understand[M_co], *, field_bytes: int = 0
) -> tuple[M_co, Uploaded | None]:
    """What a form asks for, and its recording, of at most `limit` bytes, once the store has it. `field_bytes` are what its other
    fields may hold beyond a JSON body.

    Raises BadRequest for a broken form, TooLarge, Unprocessable, StorageFull, and what `understand` does.
    """
    store = await asyncio.to_thread(get_store)
    await asyncio.to_thread(store.scratch.mkdir, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="upload-", dir=store.scratch) as folder:
        with PartFile(Path(folder), "recording", limit) as part:
            form = await _read(request, settings.max_body_bytes + field_bytes, part)
            understood = understand(form.fields, has_file=form.name is not None)
            if form.name is None:
                return understood, None
            _refuse_empty(part)
            digest, size, name = part.sha256, part.size, display_name(form.name or "recording")
            path = await asyncio.to_thread(part.finish)
        held = await holds.hold(f"{tags.UPLOAD}{digest}")
        try:
            source = await asyncio.to_thread(store.keep, path, holds.place_of(digest, name))
        except BaseException:
            await holds.release([held])
            raise
        return understood, Uploaded(source, digest, name, size, held)


@contextlib.asynccontextmanager
async def borrowed(
    request: Request, settings: ApiSettings, limit: int, understand: Understand[M_co]
) -> AsyncIterator[tuple[M_co, Path, str]]:
    """What a form asks for, its recording for as long as the block lasts, and what it is called. Raises as `received`."""
    store = await asyncio.to_thread(get_store)
    await asyncio.to_thread(store.scratch.mkdir, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="upload-", dir=store.scratch) as folder:
        with PartFile(Path(folder), "recording", limit) as part:
            form = await _read(request, settings.max_body_bytes, part)
            understood = understand(form.fields, has_file=form.name is not None)
            _refuse_empty(part)
            path = await asyncio.to_thread(part.finish)
        yield understood, path, display_name(form.name or "recording")


def _refuse_empty(part: PartFile) -> None:
    if part.size == 0:
        detail = "The file is empty (0 bytes)."
        errors = [{"field": FILE, "message": detail, "code": "empty_media"}]
        raise Unprocessable(detail, code="empty_media", errors=errors)


def options(fields: Fields, *, has_file: bool) -> JobRequest:
    """The form's fields as a request: `formats` and `tags` repeated or with commas, `metadata` as JSON. Raises Unprocessable."""
    value: dict[str, Any] = {}
    for name, given in fields.items():
        if name in _LISTS:
            value[name] = [item.strip() for text in given for item in text.split(",") if item.strip()]
        elif len(given) > 1:
            raise Unprocessable(f"{name}: given {len(given)} times; give it once.")
        elif name in _OBJECTS:
            value[name] = parsed(given[0].encode())
        elif given[0] != "":
            value[name] = given[0]
    if has_file == ("audio_url" in value):
        raise BadRequest(f"Give the recording either as the part `{FILE}` or as `audio_url`, not both.")
    if {"audio_chunk", "session_id", "final"} & set(value):
        raise BadRequest("Send audio chunks as JSON.")
    return checked(value, JobRequest)


class _Form(NamedTuple):
    fields: dict[str, list[str]]
    name: str | None
    """The file's, as the caller calls it; None without a file."""


async def _read(request: Request, field_bytes: int, part: PartFile) -> _Form:
    _, parameters = parse_options_header(request.headers.get("content-type", ""))
    boundary = parameters.get(b"boundary")
    if not boundary or len(boundary) > 200:
        raise BadRequest("The Content-Type of the multipart body has no boundary.", code="invalid_form")
    parts = _Parts(field_bytes)
    parser = MultipartParser(boundary, parts.callbacks())
    try:
        async for piece in pieces(request, part.max_bytes + field_bytes):
            parser.write(piece)
            if len(parts.received) >= _BLOCK:
                await asyncio.to_thread(part.write, parts.taken())
        parser.finalize()
        await asyncio.to_thread(part.write, parts.taken())
    except FormParserError:
        raise BadRequest("The body is not valid multipart/form-data.", code="invalid_form") from None
    except SourceTooLarge:
        raise TooLarge(f"The recording exceeds the limit of {part.max_bytes} bytes.") from None
    if not parts.ended:
        raise BadRequest("The body ends before its last boundary.", code="invalid_form")
    return _Form(parts.fields, parts.file_name)


class _Parts:
    """What the parser reports: fields are kept, the recording's bytes are left to be taken."""

    def __init__(self, most_field_bytes: int) -> None:
        self.fields: dict[str, list[str]] = {}
        self.file_name: str | None = None
        self.received = bytearray()
        self.ended = False
        self._left = most_field_bytes
        self._count = 0
        self._headers = 0
        self._name = ""
        self._is_file = False
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._field = bytearray()

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._head(0, data[start:end]),
            "on_header_value": lambda data, start, end: self._head(1, data[start:end]),
            "on_header_end": self._head_end,
            "on_headers_finished": self._headed,
            "on_part_data": lambda data, start, end: self._data(data[start:end]),
            "on_part_end": self._end,
            "on_end": self._all,
        }

    def taken(self) -> bytes:
        """The recording's bytes since the last time."""
        block = bytes(self.received)
        self.received.clear()
        return block

    def _begin(self) -> None:
        self._count += 1
        self._headers = 0
        self._disposition = b""
        self._field = bytearray()
        if self._count > _MOST_PARTS:
            raise BadRequest(f"The form has more than {_MOST_PARTS} parts.", code="invalid_form")

    def _head(self, which: int, data: bytes) -> None:
        self._headers += len(data)
        if self._headers > _HEADERS:
            raise BadRequest("The headers of a part of the form are too long.", code="invalid_form")
        self._header[which].extend(data)

    def _head_end(self) -> None:
        name, value = self._header
        if bytes(name).lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def _headed(self) -> None:
        _, parameters = parse_options_header(self._disposition)
        self._name = parameters.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = self._name == FILE
        if not self._name:
            raise BadRequest("A part of the form has no name.", code="invalid_form")
        if self._is_file:
            if self.file_name is not None:
                raise BadRequest(f"The form has more than one `{FILE}`; submit each recording separately.", code="invalid_form")
            self.file_name = parameters.get(b"filename", b"").decode("utf-8", "replace")
        elif b"filename" in parameters:
            raise BadRequest(f"Send the recording as the part `{FILE}`.", code="invalid_form")

    def _data(self, data: bytes) -> None:
        if self._is_file:
            self.received += data
            return
        self._left -= len(data)
        if self._left < 0:
            raise TooLarge("The fields of the form are too large.")
        self._field += data

    def _end(self) -> None:
        if self._is_file:
            return
        try:
            self.fields.setdefault(self._name, []).append(self._field.decode())
        except UnicodeDecodeError:
            raise BadRequest("A field of the form is not UTF-8.", code="invalid_form") from None

    def _all(self) -> None:
        self.ended = True
