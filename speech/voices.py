"""Who speaks in the newest audio, given the voices that a session knows: matching as it goes, since there is no end to wait for.

Where `speech.diarize.clustering` sees all of a recording before it decides, a session has to name a speaker at once and keep the
name. So it is slow to make new speakers, and quick to recognise known ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from speech.diarize.segmentation import Segmentation
from speech.schema import ClusterParams
from speech.session import Voice

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

SAME = 0.55
"""Cosine similarity from which on a voice is a known speaker's, if it is no other's in the same window."""
LIKELY = 0.7
"""A voice less similar than this to all known ones may be a new speaker's. Measured with the packaged CAM++ on recordings of two
to four in pieces of 5 s: two seconds of one voice are 0.78 to 0.99 from its centroid, those of others at most 0.64."""
EAGER = 0.1
"""More similarity is asked for while there are fewer speakers than the caller says."""
NEW_SECONDS = 1.5
"""Of speech without overlap that a new speaker needs; shorter voices are taken for the nearest known."""
UNSURE_SECONDS = 0.7
"""A voice known by less, because it is the first, takes the next speaker that resembles none."""
MEMORY_SECONDS = 60.0
"""Speech that a centroid is the mean of at most: older speech fades."""
MOST_VOICES = 50
"""However many speakers are allowed: a session stays small."""


class _LocalSpeaker(NamedTuple):
    """One of a window's own speakers."""

    window: int
    speaker: int
    unit: Floats
    """(dimension,) of unit length; NaN where the network could not tell."""
    seconds: float
    """Of their speech without overlap in the window."""
    fresh: float
    """Of that, what no chunk before has counted."""


def recognised(
    segmentation: Segmentation, vectors: Floats, known: Sequence[Voice], border: float, params: ClusterParams
) -> tuple[Labels, tuple[Voice, ...]]:
    """(windows, speakers) the voice of each window's speaker, -1 where they are silent; and the voices as they are known now.

    `vectors` are their embeddings, (windows, speakers, dimension); `border` is the time, in seconds of the segmentation, up to
    which the known voices have been heard already.
    """
    voices = list(known)
    labels = np.full(segmentation.activity.shape[::2], -1, dtype=np.int64)
    for window in range(len(labels)):
        heard = list(_local_speakers(segmentation, vectors, window, border))
        for one, voice in zip(heard, _matched(heard, voices, params), strict=True):
            labels[one.window, one.speaker] = voice
            voices[voice] = _updated(voices[voice], one)
    return labels, tuple(voices)


def _local_speakers(segmentation: Segmentation, vectors: Floats, window: int, border: float) -> Iterator[_LocalSpeaker]:
    """The window's speakers, in the order in which they begin."""
    activity = segmentation.activity[window]
    alone = activity & (activity.sum(axis=1, keepdims=True) == 1)
    times = segmentation.frame_time(segmentation.chunk_frame(window) + np.arange(len(activity)))
    # Windows overlap: each frame counts once altogether.
    share = segmentation.frame_step / _windows_seeing(segmentation, window)
    speakers = np.flatnonzero(activity.any(axis=0))
    for speaker in sorted(speakers, key=lambda one: int(np.argmax(activity[:, one]))):
        own = alone[:, speaker]
        vector = vectors[window, speaker]
        yield _LocalSpeaker(
            window,
            int(speaker),
            vector / max(float(np.linalg.norm(vector)), 1e-8),
            float(own.sum() * segmentation.frame_step),
            float((own * share)[times >= border].sum()),
        )


def _windows_seeing(segmentation: Segmentation, window: int) -> NDArray[np.int64]:
    """(frames,): how many windows see each frame of this one."""
    windows, frames, _ = segmentation.activity.shape
    starts = np.asarray([segmentation.chunk_frame(one) for one in range(windows)])
    at = segmentation.chunk_frame(window) + np.arange(frames)
    seeing: NDArray[np.int64] = ((at >= starts[:, None]) & (at < starts[:, None] + frames)).sum(axis=0)
    return seeing


def _matched(heard: Sequence[_LocalSpeaker], voices: list[Voice], params: ClusterParams) -> list[int]:
    """The voice of each of a window's speakers, new ones appended; two of them are the same only where there is no other way."""
    scores = np.asarray([_similarities(one, voices) for one in heard], dtype=np.float32).reshape(len(heard), len(voices))
    chosen = _one_to_one(scores, SAME + _eagerness(voices, params))
    taken = {voice for voice in chosen if voice is not None}
    out: list[int] = []
    for one, match in zip(heard, chosen, strict=True):
        voice = _unmatched(one, voices, taken, params) if match is None else match
        taken.add(voice)
        out.append(voice)
    return out


def _unmatched(one: _LocalSpeaker, voices: list[Voice], taken: set[int], params: ClusterParams) -> int:
    """The voice of who resembles none: a new one where there is enough speech for that, else the likeliest."""
    most = min(params.num_speakers or params.max_speakers or MOST_VOICES, MOST_VOICES)
    scores = _similarities(one, voices)
    likely = LIKELY + _eagerness(voices, params)
    if not voices or (one.seconds >= NEW_SECONDS and not np.isnan(one.unit).any() and float(scores.max()) < likely):
        unsure = [voice for voice in range(len(voices)) if voice not in taken and voices[voice].seconds < UNSURE_SECONDS]
        if unsure:
            voices[unsure[0]] = Voice(one.unit, 0.0)
            return unsure[0]
        if len(voices) < most:
            voices.append(Voice(one.unit, 0.0))
            return len(voices) - 1
    free = [voice for voice in range(len(voices)) if voice not in taken]
    likeliest = int(scores.argmax())
    if not free or scores[likeliest] >= likely:
        return likeliest
    return max(free, key=lambda voice: float(scores[voice]))


def _eagerness(voices: Sequence[Voice], params: ClusterParams) -> float:
    return EAGER if len(voices) < (params.num_speakers or params.min_speakers or 1) else 0.0


def _similarities(one: _LocalSpeaker, voices: Sequence[Voice]) -> Floats:
    """(voices,) cosine similarities; -1 where there is no embedding."""
    return np.asarray([np.nan_to_num(one.unit @ voice.centroid, nan=-1.0) for voice in voices], dtype=np.float32)


def _one_to_one(scores: Floats, least: float) -> list[int | None]:
    """For each row the column it is matched with, where they are similar enough."""
    from scipy.optimize import linear_sum_assignment

    chosen: list[int | None] = [None] * len(scores)
    if scores.size:
        for row, column in zip(*linear_sum_assignment(scores, maximize=True), strict=True):
            if scores[row, column] >= least:
                chosen[int(row)] = int(column)
    return chosen


def _updated(voice: Voice, one: _LocalSpeaker) -> Voice:
    """The voice with what is new of it: the mean over its speech, weighted by seconds."""
    if np.isnan(one.unit).any():
        return voice
    if np.isnan(voice.centroid).any() or voice.seconds == 0.0:
        return Voice(one.unit, one.fresh)
    mean = voice.centroid * voice.seconds + one.unit * one.fresh
    length = float(np.linalg.norm(mean))
    return Voice((mean / max(length, 1e-8)).astype(np.float32), min(voice.seconds + one.fresh, MEMORY_SECONDS))
