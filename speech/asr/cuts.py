"""Chunks cut at their pauses: those that hold more text than a decoder gives at once, and those it left something out of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from speech.audio import Recording
from speech.chunks import MIN_PIECE, PADDING
from speech.schema import SAMPLE_RATE, Chunk, Region

NEAR = 1.5
"""Seconds from a word at which a pause is looked for: attention times words no better."""
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
    pauses = [pause for pause in _pauses(chunk) if abs((pause.start + pause.end) / 2 - middle) < reach]
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


def cut_around(chunk: Chunk, stretches: Sequence[Region]) -> list[Chunk]:
    """The chunk in pieces, cut at pauses near the edges of the stretches, or at the edges themselves."""
    pieces = [chunk]
    for edge in sorted(time for stretch in stretches for time in (stretch.start, stretch.end)):
        last = pieces[-1]
        pause = _pause_near(last, edge)
        cut = (pause.start + pause.end) / 2
        if min(cut - last.regions[0].start, last.regions[-1].end - cut) >= MIN_PIECE:
            pieces[-1:] = cut_at(last, pause)
    return pieces


def _pause_near(chunk: Chunk, time: float) -> Region:
    """The longest pause near a time, nearer ones preferred."""

    def worth(pause: Region) -> float:
        away = max(pause.start - time, time - pause.end, 0.0)
        return (pause.end - pause.start) * (1 - away / NEAR)

    best = max(_pauses(chunk), key=worth, default=None)
    return best if best is not None and worth(best) > 0 else Region(start=time, end=time)


def _pauses(chunk: Chunk) -> list[Region]:
    return [Region(start=before.end, end=after.start) for before, after in zip(chunk.regions, chunk.regions[1:], strict=False)]
