"""What the channels of a recording carry: one sound, or a voice each.

The channels are measured as they are mixed, a tenth of a second at a time, in memory that grows by three numbers for each.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from speech.schema import Carried

Floats = npt.NDArray[np.float32]

_SILENT = 1e-6
"""Energy (-60 dBFS) below which a tenth of a second is a pause, however quiet the rest is."""
_LOUDER = 8.0
"""dB by which one channel dominates a tenth of a second: what the other has of it is bleed, or noise."""
_SECONDS, _SHARE = 2.0, 0.03
"""What each channel must dominate, of the time in which somebody speaks, to carry a voice of its own."""
_APART = 0.6
"""Share of that time which one of them or the other dominates, in a call with a party on each. In stereo music and with two
microphones in one room most of it is shared."""
_SAME = 0.95
"""Correlation of the waveforms above which two channels are one sound, whatever their levels and polarity."""


class ChannelLevels:
    """Energies of two channels per tenth of a second, and how alike their waveforms are."""

    def __init__(self) -> None:
        self._products: list[npt.NDArray[np.float32]] = []
        self._counts: set[int] = set()

    def add(self, samples: Floats, rate: int) -> None:
        """A block, (channels, samples)."""
        self._counts.add(len(samples))
        frame = max(rate // 10, 1)
        count = samples.shape[1] // frame
        if len(samples) == 2 and count:
            left, right = samples[:, : count * frame].reshape(2, count, frame).astype(np.float64)
            products = np.stack([(left * left).mean(1), (right * right).mean(1), (left * right).mean(1)])
            self._products.append(products.astype(np.float32))

    def carried(self) -> Carried | None:
        """What they carry; None for one channel, and where their number changes on the way."""
        count = min(self._counts, default=1)
        if len(self._counts) != 1 or count == 1:
            return None
        if count > 2:
            return Carried(count=count, what="several")
        if not self._products:
            return Carried(count=count, what="mix")
        left, right, cross = np.concatenate(self._products, axis=1).astype(np.float64)
        alike = abs(cross.sum()) / np.sqrt(left.sum() * right.sum() + 1e-20)
        if alike > _SAME or min(np.percentile(left, 99), np.percentile(right, 99)) < _SILENT:
            return Carried(count=count, what="one")
        at_once = _two_talks(left, right, cross)
        return Carried(count=count, what="voices" if at_once or _taking_turns(left, right) else "mix", at_once=at_once)


def _speaking(level: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    return level > max(_SILENT, float(np.percentile(level, 95)) * 1e-3)


def _taking_turns(left: npt.NDArray[np.float64], right: npt.NDArray[np.float64]) -> bool:
    """Whether now one channel dominates and now the other, as in a call with a party on each."""
    either = _speaking(left) | _speaking(right)
    louder = 10 * np.log10((left[either] + 1e-9) / (right[either] + 1e-9))
    dominated = [int((louder > _LOUDER).sum()), int((louder < -_LOUDER).sum())]
    enough = max(10 * _SECONDS, _SHARE * len(louder))
    return min(dominated) >= enough and sum(dominated) >= _APART * len(louder)


def _two_talks(left: npt.NDArray[np.float64], right: npt.NDArray[np.float64], cross: npt.NDArray[np.float64]) -> bool:
    """Whether each carries a talk of its own, both at the same time.

    Two microphones in one room rise and fall together; a call with one party per channel takes turns. Two talks do neither:
    both are active in more than a quarter of the time, with unlike waveforms and unlike loudness.
    """
    speaking = np.stack([_speaking(left), _speaking(right)])
    both, either = speaking.all(axis=0), speaking.any(axis=0)
    if both.sum() < 20 or both.sum() < 0.25 * either.sum():
        return False
    waveform = abs(cross[both].sum()) / np.sqrt(left[both].sum() * right[both].sum())
    loudness = np.corrcoef(np.log(left[either] + 1e-9), np.log(right[either] + 1e-9))[0, 1]
    return bool(waveform < 0.3 and not loudness > 0.5)
