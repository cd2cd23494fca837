"""The player's timeline: where the samples are, against where their time stamps say they should be.

Silence fills a hole; sound whose time stamps run slower or faster than its samples is stretched to follow them, a little at a
time; a clock that is set anew is counted on, and said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from speech.schema import SAMPLE_RATE

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

    from speech.decode import Tally
    from speech.probe import Media

GAP = 0.1
"""Seconds that time stamps may run ahead of the samples before silence is put in, as `aresample=min_hard_comp` does."""
SLACK = 0.025
"""Seconds that they may differ before the sound is stretched: containers round, and decoders look ahead."""
STEP = 0.25
"""Seconds of sound that are stretched by one ratio."""
_MOST = 0.35
"""The part of its length by which sound is stretched or compressed at most."""
_LEAST = 0.002
"""Seconds; a smaller difference is rounding. Where it stays so for `_CALM` steps, the sound is left as it is again."""
_CALM = 8
_OVERLAP = 1.0
"""Seconds; time stamps that go back further are a clock that was set anew."""
_JUMP = 10.0
"""Seconds; a larger step in a broadcast stream may be a reset of its clock (ffmpeg's `-dts_delta_threshold`)."""
_LONGEST_HOLE = 3600.0
"""Seconds; a larger one always is."""
_RESETTING = {"mpegts", "mpeg", "wtv", "dhav"}
_CONTINUOUS = {"flac", "wav", "w64", "aiff", "au", "caf", "tta", "wv", "ape", "tak", "mp3", "aac", "ac3", "eac3"}
"""Demuxers of formats that cannot leave time out: a gap is damage."""


class Gap(NamedTuple):
    seconds: float
    damaged: bool


class Clock:
    """Judges each frame before its samples are counted in `tally.position`."""

    def __init__(self, media: Media, tally: Tally, longest: float) -> None:
        self._tally, self._longest = tally, longest
        self._resetting = media.demuxer in _RESETTING
        self._continuous = media.demuxer in _CONTINUOUS
        self._alone = media.alone
        self._offset = media.origin
        self._declared = (media.container.duration or 0) / 1e6
        self._failed = 0
        self._errors: list[float] = []
        """How far each frame's time stamp was ahead of the samples, since they were last stretched; seconds."""
        self.following = False
        self._calm = 0
        if media.demuxer not in _RESETTING | _CONTINUOUS and abs(media.origin) > SLACK:
            tally.begins = media.origin

    def gap_before(self, frame: AudioFrame, skipped: int) -> Gap | None:
        """Silence that belongs before `frame`."""
        if frame.pts is None or frame.time_base is None:
            return None
        position = self._tally.position
        ahead = float(frame.pts * frame.time_base) - self._offset - position
        if not self._tally.samples:
            return self._first(ahead)
        if ahead > GAP and not self._is_reset(ahead):
            return Gap(ahead, damaged=self._is_damage(ahead, skipped))
        if ahead > GAP or ahead < -_OVERLAP:
            self._set_anew(ahead)
            return None
        self._errors.append(ahead)
        if abs(ahead) > SLACK:
            self.following = True
            self._calm = 0
        return None

    def due(self) -> float:
        """Seconds by which the sound since the last call is to last longer (or less long, below 0) than its samples."""
        late = self._errors[len(self._errors) // 2 :]
        self._errors = []
        error = sum(late) / len(late) if late else 0.0
        self._tally.astray = max(self._tally.astray, abs(error))
        if abs(error) >= _LEAST:
            self._calm = 0
            return error
        self._calm += 1
        if self._calm >= _CALM:
            self.following = False
        return 0.0

    def begin(self) -> None:
        """What was met so far is settled: silence follows, or sound of another shape."""
        self._errors = []

    def _first(self, ahead: float) -> Gap | None:
        """Silence before the first sound, which a player shows as well."""
        if abs(ahead) <= 0.5 / SAMPLE_RATE:
            return None
        if ahead > 0 and not self._is_reset(ahead):
            return Gap(ahead, damaged=False)
        if abs(ahead) > SLACK:
            self._set_anew(ahead)
        return None

    def _set_anew(self, ahead: float) -> None:
        self._offset += ahead
        self._errors = []
        self._tally.resets.append(self._tally.position)

    def _is_reset(self, ahead: float) -> bool:
        """Whether a step forward is a clock that was set anew, rather than sound that is missing.

        A broadcast's is a hole where its last time stamp, and so the length that players show, confirms it.
        """
        end = self._tally.position + ahead
        if end > self._longest:
            return True
        return self._resetting and ahead > _JUMP and (ahead > _LONGEST_HOLE or end > self._declared + 1.0)

    def _is_damage(self, ahead: float, skipped: int) -> bool:
        tally = self._tally
        per_second = tally.packet_bytes / max(tally.position - tally.gap_seconds, 1e-3)
        failed, self._failed = tally.failed > self._failed, tally.failed
        return failed or self._continuous or (self._alone and skipped > 0.5 * ahead * per_second)


def most_stretched(seconds: float, length: float) -> float:
    """`seconds` as far as sound of that `length` may be stretched or compressed by them."""
    return max(-_MOST * length, min(_MOST * length, seconds))
