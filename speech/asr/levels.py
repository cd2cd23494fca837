"""A recording whose quiet stretches are as loud as the others."""

from __future__ import annotations

import numpy as np

from speech.audio import Recording
from speech.mixdown import Floats
from speech.schema import SAMPLE_RATE

TARGET = 0.08
"""Root mean square of speech close to a microphone."""
MOST_GAIN = 100.0
"""40 dB: what is quieter is noise."""
_FRAME = SAMPLE_RATE // 50
_SYLLABLE = 15
"""Frames of 20 ms over which loudness is averaged."""
_SLOW = 50
"""Frames on either side whose loudest sets the gain: it follows speakers, not syllables."""


class Levelled(Recording):
    """The recording read with a gain that changes slowly; nothing is made quieter."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self.samples = recording.samples

    def read(self, start_sample: int, stop_sample: int, *, pad: bool = False) -> Floats:
        return levelled(self._recording.read(start_sample, stop_sample, pad=pad))

    def close(self) -> None:
        """It is not this one's to close."""


def levelled(samples: Floats) -> Floats:
    """(samples,) the same at TARGET where they are quieter."""
    frames = len(samples) // _FRAME
    if frames < _SYLLABLE:
        return samples
    power = np.square(samples[: frames * _FRAME]).reshape(frames, _FRAME).mean(axis=1)
    loudness = np.sqrt(np.convolve(power, np.ones(_SYLLABLE) / _SYLLABLE, mode="same"))
    padded = np.pad(loudness, _SLOW, mode="edge")
    loudest = np.lib.stride_tricks.sliding_window_view(padded, 2 * _SLOW + 1).max(axis=1)
    gain = np.clip(TARGET / np.maximum(loudest, 1e-6), 1.0, MOST_GAIN)
    at = np.interp(np.arange(len(samples)), (np.arange(frames) + 0.5) * _FRAME, gain)
    out: Floats = np.clip(samples * at, -1.0, 1.0).astype(np.float32)
    return out
