"""An audio chunk as callers send it: base64 of a `.npy` file. Its header is read here, by hand, before anything is allocated.

A long one is cut where it is quietest, so that each piece has at most PIECE_SECONDS.

https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import array
import ast
import binascii
import math
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

from api.errors import TooLarge, Unprocessable

SAMPLE_RATE = 16_000
_MAGIC = b"\x93NUMPY"
_MOST_HEADER = 1024
"""Bytes; numpy writes 118 for an array like this."""
_KINDS = {"f4": "f", "f8": "d", "i2": "h"}
"""By numpy's name, Python's of the same samples: floats from -1 to 1, or 16-bit integers."""
WIDEST = 8
"""Bytes of a sample."""
PIECE_SECONDS = 60.0
_CUT_WITHIN = 15.0
"""Seconds before the end of a piece in which the quietest place is looked for."""
_FRAME = SAMPLE_RATE // 10
_BLOCK = 1 << 18
"""Samples looked at together."""
_TYPE = re.compile("[<>=|]?(?:f4|f8|i2)")
_NATIVE = "<" if sys.byteorder == "little" else ">"
_HEADER = re.compile(rb"\{[\x20-\x7e]*\}[\x20\n]*")


class Samples(NamedTuple):
    """What the header of a file says of its samples."""

    number: int
    start: int
    """The first one's byte in the file."""
    kind: str
    """`f4`, `f8` or `i2`."""
    order: str
    """`<` or `>`."""

    @property
    def size(self) -> int:
        """Bytes of a sample."""
        return int(self.kind[1])

    def values(self, data: bytes, first: int = 0, last: int | None = None) -> array.array[float]:
        """Those from `first` to `last`, as numbers."""
        found: array.array[float] = array.array(_KINDS[self.kind])
        stop = self.start + (self.number if last is None else last) * self.size
        found.frombytes(memoryview(data)[self.start + first * self.size : stop])
        if self.order != _NATIVE:
            found.byteswap()
        return found


def decoded(text: str, max_seconds: float) -> bytes:
    """The `.npy` file in `text`: whole, one channel of float32, float64 or int16, and at most `max_seconds` long at 16 kHz.

    Raises Unprocessable, also for samples that are no numbers, and TooLarge.
    """
    most = math.floor(max_seconds * SAMPLE_RATE)
    # Whitespace may break the lines of base64; it is not let through without bound.
    if len(text) > (most * WIDEST + _MOST_HEADER) * 1.5 + 64:
        raise _too_long(max_seconds)
    try:
        data = binascii.a2b_base64("".join(text.split()), strict_mode=True)
    except (binascii.Error, ValueError):
        raise Unprocessable("audio_chunk: not valid base64.", code="invalid_chunk") from None
    samples = _header(data)
    if samples.number > most:
        raise _too_long(max_seconds)
    if len(data) - samples.start != samples.number * samples.size:
        raise Unprocessable(
            f"audio_chunk: the header declares {samples.number} samples, but {(len(data) - samples.start) / samples.size:g} follow.",
            code="invalid_chunk",
        )
    if samples.kind != "i2" and not _finite(data, samples):
        raise Unprocessable("audio_chunk: contains samples that are NaN, infinite or far too large.", code="invalid_chunk")
    return data


def pieces(data: bytes) -> Iterator[bytes]:
    """The file as files of at most PIECE_SECONDS each, cut at the quietest tenth of a second before their end; one at least."""
    samples = _header(data)
    most, within = round(PIECE_SECONDS * SAMPLE_RATE), round(_CUT_WITHIN * SAMPLE_RATE)
    first = 0
    while True:
        last = samples.number
        if last - first > most:
            last = _quietest(samples.values(data, first + most - within, first + most)) + first + most - within
        yield _file(samples, data, first, last)
        first = last
        if first >= samples.number:
            return


def _quietest(values: array.array[float]) -> int:
    """The middle of the quietest frame."""
    loudness = {at: sum(map(abs, values[at : at + _FRAME])) for at in range(0, len(values) - _FRAME + 1, _FRAME)}
    return min(loudness, key=lambda at: loudness[at]) + _FRAME // 2


def _file(samples: Samples, data: bytes, first: int, last: int) -> bytes:
    header = f"{{'descr': '{samples.order}{samples.kind}', 'fortran_order': False, 'shape': ({last - first},), }}"
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    content = memoryview(data)[samples.start + first * samples.size : samples.start + last * samples.size]
    return b"".join((_MAGIC, b"\1\0", len(header).to_bytes(2, "little"), header.encode(), content))


def _finite(data: bytes, samples: Samples) -> bool:
    """Whether every sample is a number: one that is none makes the sum none, which others overflow only when they are no sound."""
    blocks = range(0, samples.number, _BLOCK)
    return all(math.isfinite(sum(samples.values(data, first, min(first + _BLOCK, samples.number)))) for first in blocks)


def _header(data: bytes) -> Samples:
    """What the file says of its samples, if they are of one channel, and of a kind that is taken."""
    if data[:6] != _MAGIC:
        raise Unprocessable("audio_chunk: not a .npy file; write one with numpy.save.", code="invalid_chunk")
    size = {1: 2, 2: 4, 3: 4}.get(data[6] if len(data) > 7 else 0)
    if size is None or len(data) < 8 + size:
        raise Unprocessable(
            "audio_chunk: unsupported version of the .npy format; write it with numpy.save.", code="invalid_chunk"
        )
    length = int.from_bytes(data[8 : 8 + size], "little")
    start = 8 + size + length
    header = data[8 + size : start]
    if length > _MOST_HEADER or len(header) != length or not _HEADER.fullmatch(header):
        raise Unprocessable("audio_chunk: the header of the .npy file is broken.", code="invalid_chunk")
    number, described = _described(header)
    order = described[0] if described[0] in "<>" else _NATIVE
    return Samples(number, start, described[-2:], order)


def _described(header: bytes) -> tuple[int, str]:
    """The number of samples that a header describes, and their type."""
    try:
        fields = ast.literal_eval(header.decode("ascii").strip())
        described, shape = fields.pop("descr"), fields.pop("shape")
        fields.pop("fortran_order")
    except (ValueError, SyntaxError, TypeError, KeyError, AttributeError, RecursionError, MemoryError):
        described = shape = None
        fields = {}
    if fields or not isinstance(shape, tuple) or any(type(part) is not int or not 0 <= part < 2**40 for part in shape):
        raise Unprocessable("audio_chunk: the header of the .npy file is broken.", code="invalid_chunk")
    if not isinstance(described, str) or not _TYPE.fullmatch(described):
        raise Unprocessable(
            "audio_chunk: samples must be float32, float64 or int16; use samples.astype('float32').", code="invalid_chunk"
        )
    if len(shape) != 1 and not (len(shape) == 2 and 1 in shape):
        raise Unprocessable("audio_chunk: must be one channel, an array of shape (samples,).", code="invalid_chunk")
    return math.prod(shape), described


def _too_long(max_seconds: float) -> TooLarge:
    return TooLarge(
        f"audio_chunk: longer than the limit of {max_seconds:g} s; send shorter ones with the same session_id.",
        code="chunk_too_long",
    )
