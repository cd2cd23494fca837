"""What ASR decodes at once: stretches of at most 28 s, cut at silences.

The plan is made once for a recording and depends on nothing but its segmentation, so that however many workers decode it,
in batches of whatever size, the text is the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from speech.schema import Chunk, Region
from speech.segmentation import Segmentation

ONSET, OFFSET = 0.5, 0.363
"""Speech begins above the one and ends below the other: WhisperX's `vad_onset` and `vad_offset`."""
PADDING = 0.2
"""Seconds kept on either side of speech: the model's frames lag soft onsets and cut releases."""
MIN_SPEECH = 0.15
"""Seconds; less is a click, not a word."""
MAX_CHUNK = 28.0
"""Seconds; Whisper sees 30, and text at the very edge of its window is the least reliable."""
MAX_SILENCE = 4.0
"""Seconds of silence inside a chunk; longer ones end it, since Whisper invents words for them."""


def plan(segmentation: Segmentation) -> list[Chunk]:
    """The recording's chunks, in order, none overlapping; empty when nobody speaks."""
    chunks: list[list[Region]] = []
    for region in speech_regions(segmentation):
        for piece in _split_long(region, segmentation):
            current = chunks[-1] if chunks else None
            if current and piece.end - current[0].start <= MAX_CHUNK and piece.start - current[-1].end <= MAX_SILENCE:
                current.append(piece)
            else:
                chunks.append([piece])
    return [Chunk(start=regions[0].start, end=regions[-1].end, regions=tuple(regions)) for regions in chunks]


def speech_regions(segmentation: Segmentation) -> list[Region]:
    """Where someone speaks, padded, none overlapping."""
    starts, ends = _hysteresis(segmentation.speech)
    begin = np.maximum(segmentation.frame_time(starts) - segmentation.frame_step / 2, 0.0)
    finish = np.minimum(segmentation.frame_time(ends) - segmentation.frame_step / 2, segmentation.duration)
    spans = [(b, f) for b, f in zip(begin, finish, strict=True) if f - b >= MIN_SPEECH]
    regions: list[Region] = []
    for i, (b, f) in enumerate(spans):
        before = spans[i - 1][1] if i else 0.0
        after = spans[i + 1][0] if i + 1 < len(spans) else segmentation.duration
        start = max(b - PADDING, (before + b) / 2 if i else 0.0)
        end = min(f + PADDING, (f + after) / 2 if i + 1 < len(spans) else after)
        regions.append(Region(start=round(float(start), 3), end=round(float(end), 3)))
    return regions


def _hysteresis(speech: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First frame and one past the last of each stretch that rises above ONSET before it falls below OFFSET."""
    above = np.concatenate([[False], speech > OFFSET, [False]])
    edges = np.diff(above.astype(np.int8))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    loud = np.concatenate([[0], np.cumsum(speech > ONSET)])
    keep = loud[ends] > loud[starts]
    return starts[keep], ends[keep]


def _split_long(region: Region, segmentation: Segmentation) -> list[Region]:
    """Cut a region longer than MAX_CHUNK where speech is least likely, in the second half of each piece (WhisperX's min-cut)."""
    pieces: list[Region] = []
    start = region.start
    while region.end - start > MAX_CHUNK:
        low = int((start + MAX_CHUNK / 2) / segmentation.frame_step)
        high = int((start + MAX_CHUNK) / segmentation.frame_step)
        frame = low + int(np.argmin(segmentation.speech[low:high]))
        cut = round(float(segmentation.frame_time(frame)), 3)
        pieces.append(Region(start=start, end=cut))
        start = cut
    return [*pieces, Region(start=start, end=region.end)]
