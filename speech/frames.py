"""From FFmpeg's frames, of any sample type and layout, to blocks of float samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from speech.mixdown import Block, as_float

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.resampler import AudioResampler


class Packer:
    """Makes frames that PyAV can hand to numpy of those it cannot.

    `AudioFrame.planes` counts pointers up to a null that is not there behind eight or more planes, and crashes the process
    (PyAV 18.1, `av/audio/frame.py`); 7.1 sound is enough. FFmpeg interleaves such frames first.
    """

    def __init__(self) -> None:
        self._shape: tuple[int, str, str] | None = None
        self._engine: AudioResampler | None = None

    def packed(self, frame: AudioFrame) -> AudioFrame:
        from av.audio.frame import format_dtypes
        from av.audio.resampler import AudioResampler

        wide = frame.format.is_planar and frame.layout.nb_channels >= 8
        if not wide and frame.format.name in format_dtypes:
            return frame
        if self._engine is None or self._shape != shape_of(frame):
            self._engine, self._shape = AudioResampler(format="flt"), shape_of(frame)
        (packed,) = self._engine.resample(frame)
        packed.pts, packed.time_base = frame.pts, frame.time_base
        return packed


class Pending:
    """Frames of one shape, gathered until they are worth a block."""

    def __init__(self) -> None:
        self._parts: list[npt.NDArray[Any]] = []
        self._shape: tuple[int, str, str] | None = None
        self._names: tuple[str, ...] = ()
        self._packed = False
        self.samples = 0

    def fits(self, frame: AudioFrame) -> bool:
        return not self._parts or shape_of(frame) == self._shape

    def add(self, frame: AudioFrame) -> None:
        if not self._parts:
            self._shape = shape_of(frame)
            self._names = tuple(channel.name for channel in frame.layout.channels)
            self._packed = not frame.format.is_planar
        self._parts.append(frame.to_ndarray())
        self.samples += frame.samples

    @property
    def full(self) -> bool:
        return self._shape is not None and self.samples >= self._shape[0]

    @property
    def rate(self) -> int:
        """Of the frames gathered, in Hz; 0 when there are none."""
        return self._shape[0] if self._parts and self._shape is not None else 0

    def take(self, extra: int = 0) -> Iterator[Block]:
        """What was gathered, as one block that is to last `extra` samples more than it has."""
        if self._parts and self._shape is not None:
            joined = np.concatenate(self._parts, axis=1)
            if self._packed:
                joined = joined.reshape(-1, len(self._names)).T
            yield Block(as_float(joined), self._shape[0], self._names, self.samples + extra)
        self._parts, self.samples = [], 0


def shape_of(frame: AudioFrame) -> tuple[int, str, str]:
    return frame.sample_rate, frame.layout.name, frame.format.name


def silence(seconds: float, like: AudioFrame) -> Iterator[Block]:
    names = tuple(channel.name for channel in like.layout.channels)
    left = round(seconds * like.sample_rate)
    while left > 0:
        count = min(left, max(like.sample_rate, 1))
        yield Block(np.zeros((len(names), count), np.float32), like.sample_rate, names, count)
        left -= count
