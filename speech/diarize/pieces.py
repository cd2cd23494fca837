"""Pieces of speech: short stretches of one voice, each with an embedding of its own.

Within a chunk the segmentation takes two people for one where their voices are alike, and their common embedding lies between them:
of a talk's local speakers 13 to 40 % are less than four fifths one person. A piece ends at pauses, where others join in, and where the
chunks hear a change of speaker, so that it is one person's even then.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from speech.diarize.segmentation import STEP, Segmentation
from speech.schema import SAMPLE_RATE

Floats = NDArray[np.float32]

LONGEST = 2.0
"""Seconds; longer ones are cut into equal parts. Far enough below a chunk that some chunk holds all of a piece."""
SHORTEST = 0.2
"""Seconds below which a piece is not embedded."""
_EDGE = 0.5
"""Changes per chunk within five frames to either side that end a piece."""
_NEAR = 9
"""Frames, 150 ms, within which chunks mean the same change."""


class SpeechPieces(NamedTuple):
    spans: NDArray[np.float64]
    """(pieces, 2): start and end in seconds, ascending, without overlap."""
    vectors: Floats
    """(pieces, dimension); NaN where there is none."""


NO_PIECES = SpeechPieces(np.zeros((0, 2)), np.zeros((0, 0), dtype=np.float32))


def cut(segmentation: Segmentation) -> NDArray[np.float64]:
    """(pieces, 2): the start and end in seconds of each stretch in which most chunks hear one speaker, and the same one."""
    from scipy.ndimage import maximum_filter1d, uniform_filter1d

    chunks, frames, _ = segmentation.activity.shape
    total = segmentation.chunk_frame(chunks - 1) + frames
    seen, one, some, edges = np.zeros((4, total), dtype=np.float32)
    for chunk, activity in enumerate(segmentation.activity):
        start = segmentation.chunk_frame(chunk)
        window, speakers = slice(start, start + frames), activity.sum(axis=1)
        seen[window] += 1
        some[window] += speakers > 0
        one[window] += speakers == 1
        edges[start + 1 : start + frames] += (activity[1:] != activity[:-1]).any(axis=1)
    alone = (some >= seen / 2) & (some - one < seen / 2) & (seen > 0)
    changes = _NEAR * uniform_filter1d(edges, _NEAR, mode="constant") / np.maximum(seen, 1)
    peak = (changes >= _EDGE) & (changes >= maximum_filter1d(changes, 2 * _NEAR + 1) - 1e-3)
    peak &= (edges > 0) & (edges == maximum_filter1d(edges, _NEAR))
    peak[1:] |= alone[1:] != alone[:-1]
    bounds = np.concatenate([[0], np.flatnonzero(peak[1:]) + 1, [total]])
    spans: list[tuple[float, float]] = []
    for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        begins, ends = float(segmentation.frame_time(first)), min(float(segmentation.frame_time(last)), segmentation.duration)
        if alone[first] and ends - begins >= SHORTEST:
            parts = np.linspace(begins, ends, int(np.ceil((ends - begins) / LONGEST)) + 1).tolist()
            spans += pairwise(parts)
    return np.array(spans, dtype=np.float64).reshape(-1, 2)


def nearest_chunks(segmentation: Segmentation, spans: NDArray[np.float64]) -> NDArray[np.int64]:
    """(pieces,): the chunk in whose middle each piece lies; it holds the whole piece."""
    chunks, window = len(segmentation.activity), 4 * STEP / SAMPLE_RATE
    nearest = np.rint((spans.mean(axis=1) - window / 2) / (STEP / SAMPLE_RATE)).astype(np.int64)
    out: NDArray[np.int64] = np.clip(nearest, 0, chunks - 1)
    return out
