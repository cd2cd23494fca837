"""An audio chunk as callers send it: base64 of a `.npy` file. Its header is read here, by hand, before anything is allocated.

https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import array
import ast
import binascii
import math
import re
import sys

from api.errors import TooLarge, Unprocessable

SAMPLE_RATE = 16_000
_MAGIC = b"\x93NUMPY"
_MOST_HEADER = 1024
"""Bytes; numpy writes 118 for an array like this."""
_FLOAT32 = ("<f4", ">f4", "=f4", "|f4", "f4")
_HEADER = re.compile(rb"\{[\x20-\x7e]*\}[\x20\n]*")


def decoded(text: str, max_seconds: float) -> bytes:
    """The `.npy` file in `text`: whole, one channel of float32, and no longer than `max_seconds` seconds at 16 kHz.

    Raises Unprocessable, also for samples that are no numbers, and TooLarge.
    """
    most = math.floor(max_seconds * SAMPLE_RATE)
    # Whitespace may break the lines of base64; it is not let through without bound.
    if len(text) > (most * 4 + _MOST_HEADER) * 1.5 + 64:
        raise _too_long(max_seconds)
    try:
        data = binascii.a2b_base64("".join(text.split()), strict_mode=True)
    except (binascii.Error, ValueError):
        raise Unprocessable("audio_chunk: it is not base64.", code="invalid_chunk") from None
    samples, start, swapped = _header(data)
    if samples > most:
        raise _too_long(max_seconds)
    if len(data) - start != samples * 4:
        raise Unprocessable(
            f"audio_chunk: its header promises {samples} samples, but {(len(data) - start) / 4:g} follow.", code="invalid_chunk"
        )
    if not _finite(memoryview(data)[start:], swapped):
        raise Unprocessable("audio_chunk: it has samples that are NaN or infinite.", code="invalid_chunk")
    return data


def _finite(content: memoryview, swapped: bool) -> bool:
    """Whether every float32 is a number: one that is none makes the sum none, which float64 cannot overflow otherwise."""
    values = array.array("f")
    values.frombytes(content)
    if swapped:
        values.byteswap()
    return math.isfinite(sum(values))


def _header(data: bytes) -> tuple[int, int, bool]:
    """The number of samples, where they begin, and whether their bytes are in the other order than this machine's."""
    if data[:6] != _MAGIC:
        raise Unprocessable("audio_chunk: it is not a .npy file; write one with numpy.save.", code="invalid_chunk")
    size = {1: 2, 2: 4, 3: 4}.get(data[6] if len(data) > 7 else 0)
    if size is None or len(data) < 8 + size:
        raise Unprocessable("audio_chunk: its version of the .npy format is not known.", code="invalid_chunk")
    length = int.from_bytes(data[8 : 8 + size], "little")
    start = 8 + size + length
    header = data[8 + size : start]
    if length > _MOST_HEADER or len(header) != length or not _HEADER.fullmatch(header):
        raise Unprocessable("audio_chunk: the header of the .npy file is broken.", code="invalid_chunk")
    samples, order = _samples(header)
    return samples, start, order == (">" if sys.byteorder == "little" else "<")


def _samples(header: bytes) -> tuple[int, str]:
    """The number of samples that a header describes, and their byte order, if it is that of one channel of float32."""
    try:
        fields = ast.literal_eval(header.decode("ascii").strip())
        described, shape = fields.pop("descr"), fields.pop("shape")
        fields.pop("fortran_order")
    except (ValueError, SyntaxError, TypeError, KeyError, AttributeError, RecursionError, MemoryError):
        described = shape = None
        fields = {}
    if fields or not isinstance(shape, tuple) or any(type(part) is not int or not 0 <= part < 2**40 for part in shape):
        raise Unprocessable("audio_chunk: the header of the .npy file is broken.", code="invalid_chunk")
    if described not in _FLOAT32:
        raise Unprocessable("audio_chunk: its samples must be float32; use samples.astype('float32').", code="invalid_chunk")
    if len(shape) != 1 and not (len(shape) == 2 and 1 in shape):
        raise Unprocessable("audio_chunk: it must be one channel, an array of shape (samples,).", code="invalid_chunk")
    return math.prod(shape), described[0]


def _too_long(max_seconds: float) -> TooLarge:
    return TooLarge(
        f"audio_chunk: it is longer than the {max_seconds:g} s that are taken at once; send shorter pieces under one session_id.",
        code="chunk_too_long",
    )
