"""The identity of a normalised recording, computed from its file: the hash that `speech.audio.normalise` names it by."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import soundfile

_BLOCK = 1 << 20


def samples_sha256(path: Path) -> str | None:
    """Hex SHA-256 of the little-endian int16 samples; None when they do not all decode. Raises OSError when it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        try:
            with soundfile.SoundFile(file) as recording:
                left = recording.frames
                while left > 0 and len(block := recording.read(_BLOCK, dtype="int16")):
                    left -= len(block)
                    digest.update(np.ascontiguousarray(block, dtype="<i2").tobytes())
        except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError):
            return None
    return digest.hexdigest() if left == 0 else None
