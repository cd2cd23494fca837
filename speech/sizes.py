"""Size fields that leave out part of the sound: wrapped at 4 GB, or written before the recording had ended.

FFmpeg believes them and stops there. Here the field is corrected as FFmpeg reads it; the file itself is never changed.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from speech.containers import Field, Promise

_LEAST = 512
"""Bytes behind the sound that are worth a look; fewer are padding."""
_TAIL = 1 << 20
"""Where chunks behind the sound are looked for, in bytes from the end of the file."""
_KNOWN = (
    b"LIST|INFO|id3 |ID3 |bext|cue |smpl|inst|iXML|axml|chna|umid|levl|fact|plst|labl|note|afsp|DISP|acid|cart|link|"
    b"_PMX|JUNK|junk|PAD |FLLR|MD5 |elm1|minf|regn|SAUR|DGDA|r64m|NAME|AUTH|\\(c\\) |ANNO|MARK|COMT|APPL|MIDI|AESD|"
    b"info|strg|uuid|chan|free|edct|mark|peak|ovvw|umid"
)
_W64_CHUNK = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
"""How the identifiers of Wave64's chunks end."""


class Repair(NamedTuple):
    """What is to be read instead of what the file says."""

    patches: tuple[tuple[int, bytes], ...]
    """Position in the file, and the bytes to be read there."""
    end: int
    """Bytes of the file up to the end of the sound."""
    left_out: float
    """The part of the sound, 0…1, that the header leaves out."""


def repair(path: Path, promise: Promise) -> Repair | None:
    """How to read a file whose header leaves sound out; None for one that says the truth, or less than nothing."""
    field = promise.field
    if field is None or promise.held - (field.start + field.size) < _LEAST:
        return None
    said = field.start + field.size
    with path.open("rb") as file:
        if any(_chunks_follow(file, field, at, promise.held) for at in (said, said + (field.size & 1))):
            return None
        end = _end_of_sound(file, field, said, promise.held)
    size = end - field.start
    patches = [(field.at, _packed(field.form, size + 24 * field.wide))]
    if field.outer is not None:
        patches.append((field.outer, _packed(field.form, end - 8)))
    return Repair(tuple(patches), end, 1 - field.size / size)


def _packed(form: str, size: int) -> bytes:
    """The size as the field holds it; all ones (up to the end of the file) where it is too small for that."""
    return struct.pack(form, min(size, (1 << (8 * struct.calcsize(form) - (form[-1] == "q"))) - 1))


def _end_of_sound(file: BinaryIO, field: Field, said: int, held: int) -> int:
    """Where the chunks begin that reach to the end of the file; the end of the file when there are none."""
    wrapped = range(said + (1 << 32), held, 1 << 32)
    tail = max(said, held - _TAIL)
    file.seek(tail)
    content = file.read(held - tail)
    known = re.finditer(_W64_CHUNK if field.wide else _KNOWN, content)
    candidates = [*wrapped, *(tail + match.start() - 4 * field.wide for match in known)]
    return next((at for at in candidates if _chunks_follow(file, field, at, held)), held)


def _chunks_follow(file: BinaryIO, field: Field, at: int, held: int) -> bool:
    """Whether chunks, one behind the other, fill the file from there to its end."""
    width = 16 if field.wide else 4
    head = width + field.width
    while held - at >= head:
        file.seek(at)
        name = file.read(width)
        size = int.from_bytes(file.read(field.width), "big" if field.form.startswith(">") else "little")
        if name.startswith((b"TAG", b"APETAGEX"[:width])):  # of an MP3 player, behind everything
            return True
        if name[4:] != _W64_CHUNK if field.wide else not (name.isascii() and name.decode().isprintable()):
            return False
        at += max((size + 7) & ~7, head) if field.wide else head + size + (size & 1) * (field.width == 4)
        if at > held + 8:
            return False
    return True
