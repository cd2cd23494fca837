"""From decoded channels at any rate to 16 kHz mono int16, and what is worth a warning on the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speech.channels import ChannelLevels
from speech.polarity import Losses, aligned
from speech.schema import SAMPLE_RATE

if TYPE_CHECKING:
    from av.audio.resampler import AudioResampler

Floats = npt.NDArray[np.float32]
Int16 = npt.NDArray[np.int16]

_WEIGHTS = {"FC": 1.0, "FL": 0.7071, "FR": 0.7071, "LFE": 0.0, "LFE2": 0.0}
"""Share of each channel in the mix, before the sum is made 1; every other channel has 0.5 (ITU-R BS.775)."""


class Mixing(NamedTuple):
    """How channels become one, where the plain weighted mean would lose some of what they carry."""

    align: bool = False
    """Channels that cancel each other are turned before they are added."""
    whole: bool = False
    """The channel for low effects is mixed as well: it carries a voice."""


PLAIN = Mixing()


class Block(NamedTuple):
    """About a second of sound as decoded."""

    samples: Floats
    """(channels, samples), in -1…1."""
    rate: int
    channels: tuple[str, ...]
    """FFmpeg's names: FL, FR, FC, LFE, …"""
    length: int
    """How many samples it is to last, by its time stamps."""


def as_float(samples: npt.NDArray[Any]) -> Floats:
    """Any of FFmpeg's sample types in -1…1; 16-bit samples come through exactly."""
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - np.float32(128)) / np.float32(128)
    if samples.dtype.kind == "i":
        return samples.astype(np.float32) * np.float32(2.0 ** (1 - 8 * samples.dtype.itemsize))
    return samples.astype(np.float32, copy=False)


class Mixer:
    """Mixes blocks down to one channel and measures them as they pass."""

    def __init__(self, mixing: Mixing = PLAIN) -> None:
        self._mixing = mixing
        self._losses = Losses()
        self.samples = 0
        self.nonfinite = 0
        """Samples, of all channels, that were NaN or infinite and became 0."""
        self._clipped = 0
        self.levels = ChannelLevels()

    def mix(self, block: Block) -> Floats:
        """One channel out of several, (samples,).

        It is the weighted mean, so that the mix cannot clip and channels that are equal keep their level. Where only one
        channel of a stereo recording carries sound, the mix is that channel 6 dB lower, which no stage minds.
        """
        samples = block.samples
        bad = ~np.isfinite(samples)
        if bad.any():
            self.nonfinite += int(bad.sum())
            samples = np.where(bad, np.float32(0), samples)
        self.samples += samples.shape[1]
        self._clipped += int(np.count_nonzero((np.abs(samples) >= 0.999).any(axis=0)))
        self.levels.add(samples, block.rate)
        if len(samples) == 1:
            return np.ascontiguousarray(samples[0])
        weights = self._weights(block.channels)
        if self._mixing.align:
            return aligned(samples, weights, block.rate)
        if self._mixing == PLAIN:
            self._losses.add(samples, weights, block.rate)
        return np.ascontiguousarray(weights @ samples, dtype=np.float32)

    def _weights(self, channels: tuple[str, ...]) -> Floats:
        """Of sum 1."""
        weights = np.array([_WEIGHTS.get(channel, 0.5) for channel in channels], np.float32)
        if self._mixing.whole or not weights.any():
            weights[weights == 0] = 0.5
        return np.asarray(weights / weights.sum(), np.float32)

    @property
    def better(self) -> Mixing:
        """How to mix the recording so that nothing is lost; PLAIN where nothing was."""
        return Mixing(align=self._losses.cancelling, whole=self._losses.left_out)

    @property
    def clipped_share(self) -> float:
        """The part of the samples, 0…1, at full scale in at least one channel."""
        return self._clipped / self.samples if self.samples else 0.0


class Levels:
    """How loud a recording is where it is loud, whatever its pauses."""

    def __init__(self) -> None:
        self._counts = np.zeros(120, np.int64)

    def add(self, block: Int16) -> None:
        """16 kHz samples."""
        count = max(len(block) // 1600, 1)
        energy = (block[: count * 1600].reshape(count, -1).astype(np.float32) ** 2).mean(1) / 32768**2
        decibels = 10 * np.log10(energy + 1e-12)
        self._counts += np.bincount(np.clip(decibels + 120, 0, 119).astype(np.int64), minlength=120)

    @property
    def loud(self) -> float:
        """dBFS, above which the loudest half per cent of the tenths of a second are, and a third of a second at least."""
        from_loudest = np.cumsum(self._counts[::-1])
        return float(119 - np.searchsorted(from_loudest, max(0.005 * from_loudest[-1], min(3, from_loudest[-1])))) - 120


def stretched(samples: Floats, length: int) -> Floats:
    """The samples as `length` samples, by cubic (Catmull-Rom) interpolation; untouched where that is what they are."""
    if length == len(samples) or len(samples) < 4:
        return samples
    at = np.linspace(0, len(samples) - 1, max(length, 1))
    left = np.minimum(at.astype(np.int64), len(samples) - 2)
    t = (at - left).astype(np.float32)
    padded = np.concatenate([samples[:1], samples, samples[-1:]])
    a, b, c, d = (padded[left + offset] for offset in range(4))
    curve = c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a))
    return np.asarray(b + 0.5 * t * curve, np.float32)


class Resampler:
    """Mono float samples of any rate in, 16 kHz int16 out, through libswresample; 16 kHz passes untouched.

    The output is exactly round(duration x 16000) samples, and at least one.
    """

    def __init__(self) -> None:
        self._rate = 0
        self._engine: AudioResampler | None = None
        self._due = 0.0
        self._given = 0

    def feed(self, samples: Floats, rate: int) -> Iterator[Int16]:
        from av.audio.frame import AudioFrame
        from av.audio.resampler import AudioResampler

        if rate != self._rate:
            yield from self._drained()
            self._rate = rate
            self._engine = AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE) if rate != SAMPLE_RATE else None
        self._due += len(samples) * SAMPLE_RATE / rate
        if self._engine is None:
            yield from self._out(samples)
            return
        for start in range(0, len(samples), 10 * rate):  # a frame at an absurdly low rate would be huge at 16 kHz
            frame = AudioFrame.from_ndarray(samples[np.newaxis, start : start + 10 * rate], format="flt", layout="mono")
            frame.sample_rate = rate
            for out in self._engine.resample(frame):
                yield from self._out(out.to_ndarray()[0])

    def finish(self) -> Iterator[Int16]:
        yield from self._drained()
        if self._due and not self._given:
            yield np.zeros(1, np.int16)

    def _drained(self) -> Iterator[Int16]:
        if self._engine is not None:
            for out in self._engine.resample(None):
                yield from self._out(out.to_ndarray()[0])
            self._engine = None
        missing = round(self._due) - self._given
        if missing > 0:
            yield from self._out(np.zeros(missing, np.float32))

    def _out(self, samples: npt.NDArray[Any]) -> Iterator[Int16]:
        """As int16, rounded and clipped without dither, so that 16-bit sources come out bit for bit."""
        samples = samples[: round(self._due) - self._given]
        if len(samples):
            self._given += len(samples)
            yield np.clip(np.rint(samples.astype(np.float32) * np.float32(32768)), -32768, 32767).astype(np.int16)
