"""What the API and its warm worker say to each other over a socket: a JSON header and byte strings, each with its length.

    4 bytes    length of the header, big-endian
    header     JSON object; `parts` lists the lengths of what follows
    parts      bytes: an array as `.npy`, a session's state, a result as JSON

Nothing is pickled, and nothing longer than a limit is read.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

LENGTH = struct.Struct(">I")
MOST_HEADER = 1 << 16
MOST_BYTES = 64 * 2**20


class Message(NamedTuple):
    header: dict[str, Any]
    parts: tuple[bytes, ...] = ()


class Garbled(Exception):
    """The other end says what no message is; the connection is of no use any more."""


def packed(header: dict[str, Any], parts: Sequence[bytes] = ()) -> bytes:
    """The message as bytes."""
    text = json.dumps(header | {"parts": [len(part) for part in parts]}).encode()
    return b"".join([LENGTH.pack(len(text)), text, *parts])


def header_length(data: bytes) -> int:
    """How long the header is. Raises Garbled."""
    (length,) = LENGTH.unpack(data)
    if length > MOST_HEADER:
        raise Garbled("header")
    return int(length)


def parsed_header(data: bytes) -> tuple[dict[str, Any], list[int]]:
    """The header, and the lengths of the parts. Raises Garbled."""
    try:
        header = json.loads(data)
        sizes = header.pop("parts")
        if any(not isinstance(size, int) or size < 0 for size in sizes) or sum(sizes) > MOST_BYTES:
            raise Garbled("parts")
    except (ValueError, TypeError, KeyError, AttributeError):
        raise Garbled("header") from None
    return header, sizes


def read(exactly: Callable[[int], bytes]) -> Message:
    """The next message, where `exactly(n)` gives the next n bytes or raises EOFError."""
    header, sizes = parsed_header(exactly(header_length(exactly(LENGTH.size))))
    return Message(header, tuple(exactly(size) for size in sizes))
