"""Channels that cancel each other when they are added: noticed in the voice band, and turned where they do.

A mean of channels is silent where one is the other inverted: a cable that was wired wrongly, a side signal, a microphone
behind a source. The plain mix is measured as it is made, in memory that does not grow; only a recording that loses by it is mixed
again, in the short-time spectrum, where each channel is turned that is against one before it (as in phase-aligned downmixes,
e.g. ISO/IEC 23003-1, 6.6.2).
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_BAND_RATE = 8000
"""Hz to which channels are thinned to be measured."""
_FRAMES_PER_SECOND = 10
_EDGES = (300, 800, 1600, 3400)
"""Hz, of the three bands."""
_CANCELLED = 0.2
"""A mix with less than this part of the energy that unrelated channels would have in it has lost what they carry."""
_BINS = 120
"""Levels are counted in dB, from -_BINS to 0 of full scale."""
_ACTIVE = 35
"""dB below the loud frames; quieter ones are pauses."""
_FLOOR = -75
"""dBFS; quieter frames carry nothing."""


class Losses:
    """Counts, by their level, the frames of 100 ms that the plain mix cancels or leaves out."""

    def __init__(self) -> None:
        self._all = np.zeros(_BINS, np.int64)
        self._cancelled = np.zeros(_BINS, np.int64)
        self._partly = np.zeros(_BINS, np.int64)
        """Frames of which a band is cancelled."""
        self._unmixed = np.zeros(_BINS, np.int64)
        """Frames of channels that the plain mix leaves out."""

    def add(self, samples: Floats, weights: Floats, rate: int) -> None:
        """A block, (channels, samples), and the weights of the plain mix."""
        spectra = _voice_spectra(samples, rate)
        if spectra is None:
            return
        spread = _energies(spectra)
        by_channel = weights[:, np.newaxis, np.newaxis]
        mixed, apart = _energies((by_channel * spectra).sum(0)), (by_channel**2 * spread).sum(0)
        total = apart.sum(0)
        levels = _levels(total)
        lost = mixed < _CANCELLED * apart
        self._all += _counted(levels)
        self._cancelled += _counted(levels[mixed.sum(0) < _CANCELLED * total])
        self._partly += _counted(levels[(lost * apart).sum(0) > 0.3 * total])
        for channel in np.flatnonzero(weights == 0):
            self._unmixed += _counted(_levels(spread[channel].sum(0)))

    @property
    def cancelling(self) -> bool:
        """Whether channels cancel each other while there is something to hear: for a second, or much of a short recording."""
        floor = self._floor
        active, whole, part = (counts[floor:].sum() for counts in (self._all, self._cancelled, self._partly))
        return bool(whole >= min(10, max(2, 0.2 * active)) or part >= max(5, 0.2 * active))

    @property
    def left_out(self) -> bool:
        """Whether a channel that the plain mix leaves out carries what may be a voice."""
        return bool(self._unmixed[self._floor :].sum() >= 5)

    @property
    def _floor(self) -> int:
        """The level, as an index, from which on frames count."""
        heard = self._all + self._unmixed
        heard[: _BINS + _FLOOR] = 0
        if not heard.any():
            return _BINS
        loud = int(np.searchsorted(np.cumsum(heard), 0.95 * heard.sum()))
        return max(loud - _ACTIVE, _BINS + _FLOOR)


def _bands() -> list[tuple[int, int]]:
    return [
        ((low - _EDGES[0]) // _FRAMES_PER_SECOND, (high - _EDGES[0]) // _FRAMES_PER_SECOND)
        for low, high in itertools.pairwise(_EDGES)
    ]


def _voice_spectra(samples: Floats, rate: int) -> npt.NDArray[np.complex64] | None:
    """(channels, frames, bins) of the voice band, weighted as speech falls; None for less than a frame."""
    thin = max(1, rate // _BAND_RATE)
    frame = rate // thin // _FRAMES_PER_SECOND
    count = samples.shape[1] // (thin * frame)
    if not count:
        return None
    whole = samples[:, : count * frame * thin]
    thinned = sum((whole[:, offset::thin] for offset in range(1, thin)), whole[:, ::thin]) / np.float32(thin)
    frames = thinned.reshape(len(samples), count, frame)
    window = np.hanning(frame).astype(np.float32) * np.float32(2 / frame)
    first, last = (edge // _FRAMES_PER_SECOND for edge in (_EDGES[0], _EDGES[-1]))
    spectra: npt.NDArray[np.complex64] = np.fft.rfft(frames * window)[:, :, first:last].astype(np.complex64)
    return spectra


def _energies(spectra: npt.NDArray[np.complex64]) -> Floats:
    """Of the three bands: (…, frames, bins) as (…, bands, frames)."""
    energy = spectra.real**2 + spectra.imag**2
    return np.stack([energy[..., low:high].sum(-1) for low, high in _bands()], axis=-2)


def _levels(energy: Floats) -> npt.NDArray[np.int64]:
    """dB of full scale as indices into the counts."""
    decibels = 10 * np.log10(energy + 1e-12)
    levels: npt.NDArray[np.int64] = np.clip(decibels + _BINS, 0, _BINS - 1).astype(np.int64)
    return levels


def _counted(levels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.bincount(levels, minlength=_BINS).astype(np.int64)


def aligned(samples: Floats, weights: Floats, rate: int) -> Floats:
    """The weighted sum of the channels of a block, (samples,), each turned in the bins where it is against one before it."""
    size = 1 << max(int(rate * 0.032).bit_length(), 6)
    hop = size // 2
    count = samples.shape[1]
    padded = np.pad(samples, ((0, 0), (hop, size + hop)))
    window = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)
    starts = range(0, count + hop, hop)
    frames = np.stack([padded[:, start : start + size] for start in starts], axis=1)
    spectra = np.fft.rfft(frames * window)
    powers = _smooth(np.abs(spectra) ** 2)
    turned = [spectra[0]]
    for channel in range(1, len(spectra)):
        strongest = np.zeros_like(powers[0])
        for before, spectrum in enumerate(turned):
            cross = _smooth((spectra[channel] * np.conj(spectrum)).real)
            likeness = cross / np.sqrt(powers[channel] * powers[before] + 1e-20)
            strongest = np.where(np.abs(likeness) > np.abs(strongest), likeness, strongest)
        turned.append(np.where(strongest < -0.5, -spectra[channel], spectra[channel]))
    total = (weights[:, np.newaxis, np.newaxis] * np.stack(turned)).sum(0)
    mixed = np.fft.irfft(total, size) * window
    out = np.zeros(padded.shape[1], np.float32)
    for start, frame in zip(starts, mixed, strict=True):
        out[start : start + size] += frame
    return np.ascontiguousarray(out[hop : hop + count])


def _smooth(values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """Means over three frames and three bins, (…, frames, bins)."""
    for axis in (-1, -2):
        width = [(0, 0)] * values.ndim
        width[axis] = (1, 1)
        wide = np.pad(values, width, mode="edge")
        length = values.shape[axis]
        values = np.add.reduce([np.take(wide, range(offset, offset + length), axis) for offset in range(3)]) / 3
    return values
