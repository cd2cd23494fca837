"""What a container promises: how many bytes of it there should be, read from its header.

FFmpeg hides it (a cut WAV simply reports the shorter duration), so that a recording that was cut short would be
transcribed without a word. Nothing here decodes; every number is untrusted and only ever compared.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

_STREAMED = 0x7FFF0000
"""32-bit sizes from here up are what programs write that could not seek back: 0x7FFFF000, 0x80000000, 0xFFFFFFFF."""
_STREAMED_LONG = 1 << 62
"""The same for 64-bit sizes. FFmpeg takes such a one, and 0, for no sound at all."""

_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"


class Field(NamedTuple):
    """Where a header says how many bytes of sound there are."""

    at: int
    """Position of the number in the file."""
    form: str
    """As `struct` writes it."""
    start: int
    """Where the sound begins."""
    size: int
    """Bytes of sound, as the number has it."""
    outer: int | None = None
    """Position of the size of what encloses the sound, where FFmpeg reads no further than that."""
    width: int = 4
    """Bytes of the size of a chunk."""
    wide: bool = False
    """Chunks go by 16-byte identifiers, and their sizes count their heads (Wave64)."""


class Promise(NamedTuple):
    """The container's size as its header has it, against the bytes there are."""

    claimed: int | None
    """Bytes up to the end of the audio; None when the header does not say."""
    held: int
    """Bytes of the file."""
    counted: bool = False
    """An MP3 whose Xing/Info header counts its frames, so that its duration is exact."""
    headless: bool = False
    """An MP4 without its index (`moov`): nothing of it can be decoded."""
    fragmented: bool = False
    """An MP4 in fragments, whose clock may begin anywhere."""
    unended: bool = False
    """It stops in the middle of something, or before the mark with which its format ends."""
    field: Field | None = None

    @property
    def cut(self) -> bool:
        return self.claimed is not None and self.held < self.claimed


def read_promise(path: Path) -> Promise:
    """The promise of the file at `path`; one without a known header promises nothing."""
    held = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(192)
        for matches, reader in _READERS:
            if matches(head):
                try:
                    return reader(file, held)
                except (struct.error, ValueError, OverflowError, OSError):
                    return Promise(None, held)
    return Promise(None, held)


def _riff(file: BinaryIO, held: int) -> Promise:
    """WAV and RF64: the end of the `data` chunk. AVI: the end of the first RIFF chunk."""
    file.seek(0)
    _, size, form = struct.unpack("<4sI4s", file.read(12))
    if form == b"AVI ":
        return Promise(size + 8 if size < _STREAMED else None, held)
    long_size, long_at = None, 0
    position = 12
    while position < held:
        file.seek(position)
        name, size = struct.unpack("<4sI", file.read(8))
        if name == b"ds64":
            long_size, long_at = struct.unpack("<QQ", file.read(16))[1], position + 16
        if name == b"data":
            if size == 0xFFFFFFFF and long_at:
                if not long_size or long_size >= _STREAMED_LONG:
                    return Promise(None, held, field=Field(long_at, "<Q", position + 8, 0))
                field = Field(long_at, "<Q", position + 8, long_size)
            elif size == 0 or size >= _STREAMED:
                return Promise(None, held)
            else:
                field = Field(position + 4, "<I", position + 8, size)
            return Promise(field.start + field.size, held, field=field)
        position += 8 + size + (size & 1)
    return Promise(position, held)


def _aiff(file: BinaryIO, held: int) -> Promise:
    position = 12
    while position < held:
        file.seek(position)
        name, size = struct.unpack(">4sI", file.read(8))
        if name == b"SSND":
            if size >= _STREAMED:
                return Promise(None, held)
            field = Field(position + 4, ">I", position + 8, size, outer=4)
            return Promise(field.start + size if size else None, held, field=field)
        position += 8 + size + (size & 1)
    return Promise(position, held)


def _au(file: BinaryIO, held: int) -> Promise:
    file.seek(4)
    offset, size = struct.unpack(">II", file.read(8))
    if size >= _STREAMED:
        return Promise(None, held)
    return Promise(offset + size if size else None, held, field=Field(8, ">I", offset, size))


def _caf(file: BinaryIO, held: int) -> Promise:
    position = 8
    while position < held:
        file.seek(position)
        name, size = struct.unpack(">4sq", file.read(12))
        if name == b"data":
            if size <= 0:
                return Promise(None, held)
            return Promise(position + 12 + size, held, field=Field(position + 4, ">q", position + 12, size, width=8))
        if size < 0:
            break
        position += 12 + size
    return Promise(None, held)


def _w64(file: BinaryIO, held: int) -> Promise:
    file.seek(16)
    (whole,) = struct.unpack("<Q", file.read(8))
    position = 40
    while position < held:
        file.seek(position)
        name, size = struct.unpack("<16sQ", file.read(24))
        if name.startswith(b"data"):
            field = Field(position + 16, "<Q", position + 24, size - 24, width=8, wide=True)
            if not 24 < size < _STREAMED_LONG:
                return Promise(None, held, field=field._replace(size=0))
            if not 0 < whole < _STREAMED_LONG:
                return Promise(None, held, field=field)
            return Promise(max(whole, field.start + field.size), held, field=field)
        position += (max(size, 24) + 7) & ~7
    return Promise(whole if 0 < whole < _STREAMED_LONG else None, held)


def _asf(file: BinaryIO, held: int) -> Promise:
    file.seek(0)
    header = file.read(16384)
    at = header.find(_ASF_FILE_PROPERTIES)
    if at < 0:
        return Promise(None, held)
    (size,) = struct.unpack_from("<Q", header, at + 40)
    (flags,) = struct.unpack_from("<I", header, at + 88)
    return Promise(None if flags & 1 else size, held)  # bit 0: broadcast, the size is not valid


def _matroska(file: BinaryIO, held: int) -> Promise:
    """The end of the Segment; unknown (all ones) when written live."""
    file.seek(4)
    length, _ = _ebml_size(file)
    file.seek(length, 1)
    if file.read(4) != b"\x18\x53\x80\x67":
        return Promise(None, held)
    size, unknown = _ebml_size(file)
    return Promise(None if unknown else file.tell() + size, held)


def _ebml_size(file: BinaryIO) -> tuple[int, bool]:
    first = file.read(1)[0]
    width = 9 - first.bit_length()
    value = int.from_bytes(bytes([first & (0xFF >> width)]) + file.read(width - 1), "big")
    return value, value == (1 << (7 * width)) - 1


def _mp4(file: BinaryIO, held: int) -> Promise:
    """The end of the last top-level box, and whether there is an index at all."""
    position, index, fragmented = 0, False, False
    while position + 8 <= held:
        file.seek(position)
        size, name = struct.unpack(">I4s", file.read(8))
        index = index or name in (b"moov", b"moof")
        fragmented = fragmented or name == b"moof"
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
        elif size == 0:
            size = held - position
        if size < 8:
            break
        position += size
    return Promise(max(position, held), held, headless=not index, fragmented=fragmented)


def _mp3(file: BinaryIO, held: int) -> Promise:
    """Xing or Info header of the first frame, behind an ID3v2 tag if there is one."""
    file.seek(0)
    head = file.read(10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:
        start = 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    file.seek(start)
    frame = file.read(4096)
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    if at < 0 or at > 2048:
        return Promise(None, held)
    (flags,) = struct.unpack_from(">I", frame, at + 4)
    if not flags & 1 or flags > 15:
        return Promise(None, held)
    claimed = struct.unpack_from(">I", frame, at + 12)[0] if flags & 2 else None
    return Promise(start + claimed if claimed else None, held, counted=True)


def _ogg(file: BinaryIO, held: int) -> Promise:
    """Whole when the last page is, and ends its stream."""
    file.seek(max(0, held - 2 * 65307))  # two pages of the largest size
    tail = file.read()
    at = tail.rfind(b"OggS")
    if at < 0 or at + 27 > len(tail):
        return Promise(None, held, unended=True)
    body = sum(tail[at + 27 : at + 27 + tail[at + 26]])
    whole = at + 27 + tail[at + 26] + body <= len(tail)
    return Promise(None, held, unended=not (whole and tail[at + 5] & 4))


def _mpegts(_file: BinaryIO, held: int) -> Promise:
    """Whole when it is whole packets."""
    return Promise(None, held, unended=held % 188 != 0)


def _flv(file: BinaryIO, held: int) -> Promise:
    """Whole when its last four bytes are the size of the tag before them."""
    file.seek(max(0, held - 4))
    (size,) = struct.unpack(">I", file.read(4))
    file.seek(max(0, held - 4 - size))
    return Promise(None, held, unended=file.read(1) not in (b"\x08", b"\x09", b"\x12") or size > held)


_READERS: tuple[tuple[Callable[[bytes], bool], Callable[[BinaryIO, int], Promise]], ...] = (
    (lambda head: head[:4] in (b"RIFF", b"RF64", b"BW64"), _riff),
    (lambda head: head[:4] == b"FORM" and head[8:11] == b"AIF", _aiff),
    (lambda head: head[:4] == b".snd", _au),
    (lambda head: head[:4] == b"caff", _caf),
    (lambda head: head[:16] == _W64_RIFF, _w64),
    (lambda head: head[:16] == _ASF_HEADER, _asf),
    (lambda head: head[:4] == b"\x1a\x45\xdf\xa3", _matroska),
    (lambda head: head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp"), _mp4),
    (lambda head: head[:4] == b"OggS", _ogg),
    (lambda head: head[:1] == b"\x47" and head[188:189] == b"\x47", _mpegts),
    (lambda head: head[:4] == b"FLV\x01", _flv),
    (lambda head: head[:3] == b"ID3" or (head[:1] == b"\xff" and head[1:2] >= b"\xe0"), _mp3),
)
