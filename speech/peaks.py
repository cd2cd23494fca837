"""A recording's waveform, for pages that draw it."""

from __future__ import annotations

from pathlib import Path

PER_SECOND = 20
"""Peaks: a word has a handful of them, and three hours fit into 200 kB."""


def peaks(audio: Path) -> bytes:
    """The largest sample of each twentieth of a second of normalised audio: shape (stretches,), 0 to 255."""
    import numpy as np
    import soundfile

    found: list[bytes] = []
    with soundfile.SoundFile(audio) as recording:
        size = recording.samplerate // PER_SECOND
        for block in recording.blocks(blocksize=size * 3000, dtype="float32", always_2d=True):
            mono = np.abs(block).max(axis=1)
            padded = np.pad(mono, (0, -len(mono) % size))
            found.append(np.minimum(padded.reshape(-1, size).max(axis=1) * 255, 255).astype(np.uint8).tobytes())
    return b"".join(found)
