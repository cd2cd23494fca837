"""Ways for a file to be damaged, each of the same size but for the truncated one, and real files to damage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile


def flipped(content: bytes, other: bytes) -> bytes:
    """Sixteen bits in the middle half of the file."""
    damaged = bytearray(content)
    for turn in range(16):
        damaged[len(content) // 4 + turn * (len(content) // 2) // 16] ^= 1
    return bytes(damaged)


def zeroed(content: bytes, other: bytes) -> bytes:
    """The middle half, as a disk leaves it whose blocks were never written."""
    quarter = len(content) // 4
    return content[:quarter] + bytes(len(content) - 2 * quarter) + content[-quarter:]


def truncated(content: bytes, other: bytes) -> bytes:
    return content[: len(content) // 2]


def swapped(content: bytes, other: bytes) -> bytes:
    """Another file's content, of the same size."""
    return (other * (len(content) // max(len(other), 1) + 1))[: len(content)]


WAYS: dict[str, Callable[[bytes, bytes], bytes]] = {
    "flipped": flipped,
    "zeroed": zeroed,
    "truncated": truncated,
    "swapped": swapped,
}


def flac(path: Path, *, seed: int = 0, seconds: float = 0.5, compression: float = 0.5) -> tuple[Path, str]:
    """A FLAC of a few thousand samples, and the hash of them that it is named by."""
    samples = (np.random.default_rng(seed).standard_normal(int(16_000 * seconds)) * 3000).cumsum().astype("<i2")
    soundfile.write(path, samples, 16_000, subtype="PCM_16", compression_level=compression)
    return path, hashlib.sha256(samples.tobytes()).hexdigest()
