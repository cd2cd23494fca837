"""Whose word is it: words and segments × speaker turns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stenoflow.types import Segment, SpeakerSource, Turn, Word

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

TIE = 0.02
"""Seconds of overlap within which two speakers count as equal: about a frame of the segmentation model (17 ms)."""
JITTER = 0.15
"""Seconds that a word's time and a turn's edge are uncertain by, together; see `_smooth`."""
ISLAND_WORDS = 2


class _Labels(NamedTuple):
    """Who speaks in each of n intervals."""

    speaker: Indices
    """(n,) index into the speakers."""
    overlap: Floats
    """(n, speakers) seconds for which each speaker is active inside the interval."""


def attributed(segments: Sequence[Segment], turns: Sequence[Turn], exclusive: Sequence[Turn]) -> list[Segment]:
    """Every word and every segment without words gets a speaker."""
    speakers = tuple(dict.fromkeys(turn.speaker for turn in [*turns, *exclusive]))
    words = [word for segment in segments for word in segment.words]
    labels = _labels([(word.start, word.end) for word in words], turns, exclusive, speakers)
    whole = _labels([(segment.start, segment.end) for segment in segments], turns, exclusive, speakers)
    result: list[Segment] = []
    at = 0
    for index, segment in enumerate(segments):
        part = slice(at, at + len(segment.words))
        at = part.stop
        chosen = _smooth(labels.speaker[part], labels.overlap[part])
        inside = labels.overlap[part][np.arange(len(chosen)), chosen] > 0
        own = []
        for word, speaker, overlaps in zip(segment.words, chosen.tolist(), inside.tolist(), strict=True):
            how: SpeakerSource = "overlap" if overlaps else "nearest"
            own.append(Word(**(vars(word) | {"speaker": speakers[speaker], "speaker_source": how})))
        result.append(segment.model_copy(update={"words": tuple(own), "speaker": speakers[whole.speaker[index]]}))
    return result


def _labels(
    intervals: Sequence[tuple[float, float]], turns: Sequence[Turn], exclusive: Sequence[Turn], speakers: Sequence[str]
) -> _Labels:
    """The speaker with the largest overlap; among equals the louder one (`exclusive`); outside all turns the nearest.

    O((n + turns) · speakers · log turns), all of it inside numpy.
    """
    starts, ends = np.asarray(intervals, dtype=np.float64).reshape(-1, 2).T
    # A word without length still lies somewhere.
    ends = np.maximum(ends, starts + 0.001)
    overlap = _overlap(starts, ends, turns, speakers)
    louder = _overlap(starts, ends, exclusive, speakers)
    best = overlap.max(axis=1, keepdims=True)
    candidates = (overlap > 0) & (overlap >= best - TIE)
    # The overlap itself only decides between those whom the exclusive turns leave equal.
    chosen = np.where(candidates, louder + overlap * 1e-3, -1.0).argmax(axis=1)
    outside = best[:, 0] <= 0
    chosen[outside] = _nearest(starts[outside], ends[outside], turns, speakers)
    return _Labels(chosen, overlap)


def _overlap(starts: Floats, ends: Floats, turns: Sequence[Turn], speakers: Sequence[str]) -> Floats:
    """(n, speakers) seconds. A speaker's time up to t is piecewise linear in t, so an overlap is a difference of two values."""
    result = np.zeros((len(starts), len(speakers)))
    by_speaker: dict[str, list[Turn]] = {}
    for turn in turns:
        by_speaker.setdefault(turn.speaker, []).append(turn)
    for column, speaker in enumerate(speakers):
        if own := _union(by_speaker.get(speaker, [])):
            edges = np.asarray(own)
            active = np.concatenate([[0.0], np.cumsum(edges[:, 1] - edges[:, 0])])
            curve = np.repeat(active, 2)[1:-1]
            times = edges.reshape(-1)
            result[:, column] = np.interp(ends, times, curve) - np.interp(starts, times, curve)
    result[result < 1e-6] = 0.0
    return result


def _union(turns: Iterable[Turn]) -> list[tuple[float, float]]:
    """One speaker's turns as disjoint intervals in order of time."""
    merged: list[tuple[float, float]] = []
    for turn in sorted(turns, key=lambda turn: turn.start):
        if merged and turn.start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], turn.end))
        else:
            merged.append((turn.start, turn.end))
    return merged


def _nearest(starts: Floats, ends: Floats, turns: Sequence[Turn], speakers: Sequence[str]) -> Indices:
    """Index of the speaker whose turn is nearest in time to each interval; none of them overlaps a turn."""
    index = {speaker: position for position, speaker in enumerate(speakers)}
    turn_starts = np.asarray([turn.start for turn in turns])
    turn_ends = np.asarray([turn.end for turn in turns])
    owner = np.asarray([index[turn.speaker] for turn in turns])
    latest_end = np.maximum.accumulate(turn_ends)
    # For each turn: which of those up to it ends last.
    latest = np.maximum.accumulate(np.where(turn_ends == latest_end, np.arange(len(turns)), 0))
    after = np.searchsorted(turn_starts, starts, side="left")
    before = np.maximum(after - 1, 0)
    gap_before = np.where(after > 0, starts - latest_end[before], np.inf)
    gap_after = np.where(after < len(turns), turn_starts[np.minimum(after, len(turns) - 1)] - ends, np.inf)
    chosen: Indices = np.where(gap_before <= gap_after, owner[latest[before]], owner[np.minimum(after, len(turns) - 1)])
    return chosen


def _smooth(speaker: Indices, overlap: Floats) -> Indices:
    """Give islands inside one sentence to the words around them where the evidence is weaker than its error.

    An island is a run of at most ISLAND_WORDS words between words of one other speaker, or at the sentence's edge beside
    them. It loses its own speaker when that is active in it for less than JITTER seconds more than theirs: shifting the
    words or the turn's edge by the error they are known to have could turn the answer. With errors of 0.05 to
    0.2 s (standard deviation) put on the true words and turns of meetings of 2 to 7 speakers, this rule took the share of
    words with a wrong speaker from 0.60–0.81 % to 0.44–0.56 %.
    """
    if len(set(speaker.tolist())) < 2:
        return speaker
    result = speaker.copy()
    runs = [[index for index, _ in group] for _, group in groupby(enumerate(speaker.tolist()), key=itemgetter(1))]
    for position, run_indices in enumerate(runs):
        around = [runs[side] for side in (position - 1, position + 1) if 0 <= side < len(runs)]
        others = {int(speaker[side[0]]) for side in around}
        if len(run_indices) > ISLAND_WORDS or len(others) != 1 or max(len(side) for side in around) <= len(run_indices):
            continue
        own, other = int(speaker[run_indices[0]]), others.pop()
        if float((overlap[run_indices, own] - overlap[run_indices, other]).sum()) < JITTER:
            result[run_indices] = other
    return result
