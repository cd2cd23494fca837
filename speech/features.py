"""Kaldi-compatible log-mel filter banks in numpy, computed once for a stretch of audio and sliced per chunk.

Matches `torchaudio.compliance.kaldi.fbank` (dither 0, snip_edges, 25 ms / 10 ms) to float precision.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from speech.schema import SAMPLE_RATE

Floats = NDArray[np.float32]

FRAME_LENGTH = 400
FRAME_SHIFT = 160
MEL_BINS = 80
_FFT = 512
_PREEMPHASIS = 0.97
_EPSILON = float(np.finfo(np.float32).eps)


class FbankOptions(NamedTuple):
    """What the two embedding networks were trained with."""

    window: str = "povey"
    """`povey` (3D-Speaker's CAM++) or `hamming` (WeSpeaker)."""
    scale: float = 1.0
    """Samples in [-1, 1] are multiplied by this first."""


def fbank(samples: Floats, options: FbankOptions) -> Floats:
    """(samples,) in [-1, 1] → (1 + (samples - 400) // 160, 80) log-mel energies, not mean-normalised."""
    if len(samples) < FRAME_LENGTH:
        return np.zeros((0, MEL_BINS), dtype=np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME_LENGTH)[::FRAME_SHIFT] * np.float32(options.scale)
    frames = frames - frames.mean(axis=1, keepdims=True, dtype=np.float32)
    emphasised = np.empty_like(frames)
    emphasised[:, 1:] = frames[:, 1:] - np.float32(_PREEMPHASIS) * frames[:, :-1]
    emphasised[:, 0] = frames[:, 0] * np.float32(1 - _PREEMPHASIS)
    spectrum = np.fft.rfft(emphasised * _window(options.window), n=_FFT)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    energies = power[:, : _FFT // 2].astype(np.float32) @ _mel_matrix()
    out: Floats = np.log(np.maximum(energies, np.float32(_EPSILON)))
    return out


@functools.cache
def _window(name: str) -> Floats:
    phase = 2 * np.pi * np.arange(FRAME_LENGTH) / (FRAME_LENGTH - 1)
    if name == "povey":
        return np.power(0.5 - 0.5 * np.cos(phase), 0.85).astype(np.float32)
    return (0.54 - 0.46 * np.cos(phase)).astype(np.float32)


@functools.cache
def _mel_matrix(low: float = 20.0, high: float = SAMPLE_RATE / 2) -> Floats:
    """(256, 80) triangular filters, equally wide on Kaldi's mel scale."""

    def mel(hertz: NDArray[np.float64] | float) -> NDArray[np.float64]:
        return 1127.0 * np.log(1.0 + np.asarray(hertz, dtype=np.float64) / 700.0)

    edges = np.linspace(mel(low), mel(high), MEL_BINS + 2)
    bins = mel(np.arange(_FFT // 2) * SAMPLE_RATE / _FFT)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    up = (bins[:, None] - left) / (centre - left)
    down = (right - bins[:, None]) / (right - centre)
    return np.maximum(0.0, np.minimum(up, down)).astype(np.float32)
