"""What ASR decodes at once: stretches of at most 28 s, cut at silences.

The plan is made once for a recording and depends on nothing but its segmentation, so that however many workers decode it,
in batches of whatever size, the text is the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from speech.diarize.segmentation import Segmentation
from speech.schema import Chunk, Region

ONSET, OFFSET = 0.5, 0.363
"""Speech begins above the one and ends below the other: WhisperX's `vad_onset` and `vad_offset`."""
PADDING = 0.3
"""Seconds kept on either side of speech: the model's frames lag soft onsets and cut releases. The middle of what gives a call
fewest word errors (0.25 to 0.5 s: 10 of 87; 0.2: 13); on read speech it moves a few errors either way."""
MIN_SPEECH = 0.15
"""Seconds; less is a click, not a word."""
MAX_SPEECH = 27.4
"""Seconds from a chunk's first speech to its last; padded, 28. Whisper sees 30, and is least reliable at the very edge."""
MIN_PIECE = 1.0
"""Seconds; uninterrupted speech is not cut this near to its end."""
MAX_SILENCE = 4.0
"""Seconds of silence inside a chunk; longer ones end it, since Whisper invents words for them."""


def plan(segmentation: Segmentation) -> list[Chunk]:
    """The recording's chunks, in order, without overlap; empty without speech."""
    pieces = [piece for region in speech_regions(segmentation) for piece in _split_long(region, segmentation)]
    groups: list[list[Region]] = []
    for piece in pieces:
        current = groups[-1] if groups else None
        if current and piece.end - current[0].start <= MAX_SPEECH and piece.start - current[-1].end <= MAX_SILENCE:
            current.append(piece)
        else:
            groups.append([piece])
    return [_chunk(groups, i, segmentation) for i in range(len(groups))]


def speech_regions(segmentation: Segmentation) -> list[Region]:
    """Where someone speaks, none overlapping."""
    starts, ends = _hysteresis(segmentation.speech)
    begin = np.maximum(segmentation.frame_time(starts) - segmentation.frame_step / 2, 0.0)
    finish = np.minimum(segmentation.frame_time(ends) - segmentation.frame_step / 2, segmentation.last_millisecond)
    return [
        Region(start=round(float(b), 3), end=round(float(f), 3))
        for b, f in zip(begin, finish, strict=True)
        if f - b >= MIN_SPEECH
    ]


def _chunk(groups: Sequence[Sequence[Region]], i: int, segmentation: Segmentation) -> Chunk:
    """The i-th group as a chunk, padded no further than half way to its neighbours."""
    first, last = groups[i][0].start, groups[i][-1].end
    before = groups[i - 1][-1].end if i else -first
    after = groups[i + 1][0].start if i + 1 < len(groups) else 2 * segmentation.last_millisecond - last
    start, end = max(first - PADDING, (before + first) / 2), min(last + PADDING, (last + after) / 2)
    return Chunk(start=round(start, 3), end=round(end, 3), regions=_voiced(segmentation, first, last))


def _voiced(segmentation: Segmentation, start: float, end: float) -> tuple[Region, ...]:
    """Where speech is likelier than not between two times; all of it where it is nowhere so likely."""
    # The inverse of the times that `speech_regions` gives to frames.
    shift = segmentation.frame_time(0) - segmentation.frame_step / 2
    low, high = (max(0, round((time - shift) / segmentation.frame_step)) for time in (start, end))
    above = np.concatenate([[False], segmentation.speech[low:high] > ONSET, [False]])
    edges = np.diff(above.astype(np.int8))
    starts = (low + np.flatnonzero(edges == 1)) * segmentation.frame_step + shift
    ends = (low + np.flatnonzero(edges == -1)) * segmentation.frame_step + shift
    voiced = tuple(
        Region(start=round(max(float(b), start), 3), end=round(min(float(f), end), 3))
        for b, f in zip(starts, ends, strict=True)
        if f > start and b < end
    )
    return voiced or (Region(start=start, end=end),)


def _hysteresis(speech: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First frame and one past the last of each stretch that rises above ONSET before it falls below OFFSET."""
    above = np.concatenate([[False], speech > OFFSET, [False]])
    edges = np.diff(above.astype(np.int8))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    loud = np.concatenate([[0], np.cumsum(speech > ONSET)])
    keep = loud[ends] > loud[starts]
    return starts[keep], ends[keep]


def _split_long(region: Region, segmentation: Segmentation) -> list[Region]:
    """Cut a region longer than MAX_SPEECH where speech is least likely, in the second half of each piece (WhisperX's min-cut).

    No piece is shorter than MIN_PIECE: a crumb holds no word, but Whisper would find one.
    """
    pieces: list[Region] = []
    start = region.start
    offset = segmentation.frame_duration / 2
    while region.end - start > MAX_SPEECH:
        latest = min(start + MAX_SPEECH, region.end - MIN_PIECE)
        low = int((start + MAX_SPEECH / 2 - offset) / segmentation.frame_step) + 1
        high = int((latest - offset) / segmentation.frame_step) + 1
        frame = low + int(np.argmin(segmentation.speech[low:high]))
        cut = round(float(segmentation.frame_time(frame)), 3)
        pieces.append(Region(start=start, end=cut))
        start = cut
    return [*pieces, Region(start=start, end=region.end)]
