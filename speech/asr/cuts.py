"""Chunks that hold more text than a decoder can give at once, cut at their pauses."""

from __future__ import annotations

import numpy as np

from speech.audio import Recording
from speech.chunks import MIN_PIECE, PADDING
from speech.schema import SAMPLE_RATE, Chunk, Region

_FRAME = SAMPLE_RATE // 50
_SMOOTH = 5
"""Frames of 20 ms over which loudness is averaged: longer than the closure of a plosive."""


def halved(chunk: Chunk, recording: Recording) -> tuple[Chunk, Chunk] | None:
    """The chunk in two, cut at its longest pause, those near its middle preferred; without a pause, where its middle is quietest.

    None for a chunk too short to be cut.
    """
    first, last = chunk.regions[0].start, chunk.regions[-1].end
    middle, reach = (first + last) / 2, (last - first) / 2 - MIN_PIECE
    if reach <= 0:
        return None
    pauses = [
        Region(start=before.end, end=after.start)
        for before, after in zip(chunk.regions, chunk.regions[1:], strict=False)
        if abs((before.end + after.start) / 2 - middle) < reach
    ]
    if pauses:
        pause = max(pauses, key=lambda gap: (gap.end - gap.start) * (1 - abs((gap.start + gap.end) / 2 - middle) / reach))
    else:
        cut = _quietest(recording, middle - reach / 2, middle + reach / 2)
        pause = Region(start=cut, end=cut)
    return cut_at(chunk, pause)


def cut_at(chunk: Chunk, pause: Region) -> tuple[Chunk, Chunk]:
    """The chunk before the middle of a pause in it and after, each padded as chunks are, but not beyond that middle."""
    cut = round((pause.start + pause.end) / 2, 3)
    before = tuple(Region(start=region.start, end=min(region.end, cut)) for region in chunk.regions if region.start < cut)
    after = tuple(Region(start=max(region.start, cut), end=region.end) for region in chunk.regions if region.end > cut)
    return (
        Chunk(start=chunk.start, end=round(min(cut, pause.start + PADDING), 3), regions=before),
        Chunk(start=round(max(cut, pause.end - PADDING), 3), end=chunk.end, regions=after),
    )


def _quietest(recording: Recording, start: float, end: float) -> float:
    """Seconds at which the recording is quietest between two times."""
    samples = recording.read(round(start * SAMPLE_RATE), round(end * SAMPLE_RATE))
    frames = len(samples) // _FRAME
    if frames <= _SMOOTH:
        return round((start + end) / 2, 3)
    energy = np.square(samples[: frames * _FRAME]).reshape(frames, _FRAME).mean(axis=1)
    loudness = np.convolve(energy, np.ones(_SMOOTH), mode="valid")
    return round(start + (int(np.argmin(loudness)) + _SMOOTH / 2) * _FRAME / SAMPLE_RATE, 3)
