"""The channels of a recording, each as a recording of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from speech.flac import flac_writer
from speech.mixdown import Int16
from speech.schema import SAMPLE_RATE, ChannelAudio

MOST = 16
"""Channels that are transcribed separately."""
_FAINT = 32
"""Of 32768, -60 dBFS: a channel that never gets louder carries nothing."""


def write_apart(parts: Iterator[tuple[int, Int16]], count: int, target: Path) -> tuple[ChannelAudio, ...]:
    """Write each channel to a FLAC beside `target`, out of blocks of (channel, 16 kHz samples); those that carry nothing, or what an earlier
    one does, are left out."""
    paths = [target.with_name(f"{target.stem}-channel-{number}{target.suffix}") for number in range(1, count + 1)]
    digests = [hashlib.sha256() for _ in paths]
    loudest, samples = [0] * count, [0] * count
    with ExitStack() as stack:
        writers = [stack.enter_context(flac_writer(path)) for path in paths]
        for channel, block in parts:
            digests[channel].update(block.astype("<i2", copy=False).tobytes())
            writers[channel](block)
            loudest[channel] = max(loudest[channel], int(np.abs(block.astype(np.int32)).max(initial=0)))
            samples[channel] += len(block)
    found: dict[str, ChannelAudio] = {}
    for channel, (path, digest) in enumerate(zip(paths, digests, strict=True)):
        sha256 = digest.hexdigest()
        if sha256 in found or loudest[channel] <= _FAINT:
            path.unlink()
        else:
            duration = samples[channel] / SAMPLE_RATE
            found[sha256] = ChannelAudio(number=channel + 1, sha256=sha256, duration=duration, path=path)
    return tuple(found.values())
