"""From packets to one stream of samples whose times are those a player shows.

    packets ─► frames ─► blocks of about a second, gaps filled with silence ─► mono ─► 16 kHz int16

Everything is streamed: of the recording itself nothing is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from speech.clock import STEP, Clock, Gap, most_stretched
from speech.frames import Packer, Pending, silence
from speech.mixdown import Block, Int16, Mixer, Resampler, stretched
from speech.probe import Media, capitalised, is_sound
from stenoflow.errors import MediaTooLong

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.packet import Packet

_DEMUX_ERRORS = 1000
"""Reading stops after so many failures in a row."""


@dataclass
class Tally:
    """What was met on the way; read when the decoding has ended."""

    position: float = 0.0
    """Seconds so far, gaps included."""
    bytes_read: int = 0
    """Position in the file."""
    packets: int = 0
    failed: int = 0
    failed_at_end: int = 0
    """Failed packets since the last good one."""
    unread: bool = False
    """The container could not be read on from `bytes_read`: no good packet came after that."""
    unread_seconds: float = 0.0
    """About as much sound as that is; known at the end."""
    packet_bytes: int = 0
    failed_bytes: int = 0
    gaps: int = 0
    gap_seconds: float = 0.0
    damaged_seconds: float = 0.0
    """The part of `gap_seconds` where bytes were lost."""
    samples: int = 0
    """Decoded sample times, of all rates."""
    stretched: float = 0.0
    """Seconds by which sound was stretched or compressed, to follow its time stamps."""
    astray: float = 0.0
    """The most seconds by which time stamps and samples differed on the way."""
    begins: float = 0.0
    """The container's time of the first sound, in seconds, where that is not shown by all players."""
    resets: list[float] = field(default_factory=list)
    """Where the clock was set anew, in seconds so far."""

    @property
    def lost_seconds(self) -> float:
        """Seconds that did not decode: by the bytes of failed packets, or by the holes in time, whichever is more."""
        share = self.failed_bytes / self.packet_bytes if self.packet_bytes else 0.0
        return max(share * self.position, self.damaged_seconds) + self.unread_seconds

    def count_unread(self, held: int) -> None:
        """The rest of a file that could not be read to its end is lost; `held` is the file's size."""
        if self.unread and 0 < self.bytes_read < held:
            self.unread_seconds = self.position * (held - self.bytes_read) / self.bytes_read

    def count_gap(self, gap: Gap) -> None:
        """Silence was put in."""
        self.position += gap.seconds
        if self.samples:
            self.gaps += 1
            self.gap_seconds += gap.seconds
            self.damaged_seconds += gap.seconds * gap.damaged

    def count_missing_pages(self, held: int) -> None:
        """Ogg drops pages whose checksum fails without a word: gaps count as damage as far as bytes are unaccounted for.

        `held` is the file's size. A page has 27 bytes of header and a byte for each 255 of its packets; 16 KiB are
        allowed for the headers of the stream.
        """
        accounted = self.packet_bytes + 29 * self.packets + 16384
        share = max(0.0, 1 - accounted / held)
        self.damaged_seconds = max(self.damaged_seconds, min(self.gap_seconds, share * self.position))


def mono(media: Media, tally: Tally, mixer: Mixer, max_duration: float, name: str) -> Iterator[Int16]:
    """The recording as blocks of 16 kHz mono samples; exactly round(duration x 16000) of them, and at least one.

    Raises MediaTooLong as soon as more than `max_duration` seconds have been decoded.
    """
    resampler = Resampler()
    for block in _blocks(media, tally, max_duration, name):
        yield from resampler.feed(stretched(mixer.mix(block), block.length), block.rate)
    yield from resampler.finish()


def apart(media: Media, count: int, max_duration: float, name: str) -> Iterator[tuple[int, Int16]]:
    """Its channels as blocks of (channel, 16 kHz samples), each as long as `mono` is. Raises MediaTooLong."""
    resamplers = [Resampler() for _ in range(count)]
    for block in _blocks(media, Tally(), max_duration, name):
        for channel, resampler in enumerate(resamplers):
            samples = np.nan_to_num(block.samples[channel], nan=0.0, posinf=0.0, neginf=0.0)
            for part in resampler.feed(stretched(samples, block.length), block.rate):
                yield channel, part
    for channel, resampler in enumerate(resamplers):
        for part in resampler.finish():
            yield channel, part


def too_long(name: str, max_duration: float) -> MediaTooLong:
    return MediaTooLong(f"{capitalised(name)} is longer than the limit of {spell(max_duration)}; split it.")


def spell(seconds: float) -> str:
    """A duration as people read it: `12.5 s`, `2:05 min`, `3:00:00 h`."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02} h" if minutes >= 60 else f"{minutes}:{rest:02} min"


# -- packets and frames -----------------------------------------------------------------------------------------------


def _frames(media: Media, tally: Tally) -> Iterator[tuple[AudioFrame, int]]:
    """Decoded frames, each with the bytes that were skipped in the file just before its packet."""
    packer = Packer()
    expected: int | None = None
    page = -1
    for packet in _packets(media, tally):
        skipped = 0
        if packet.size and packet.pos is not None:
            if expected is not None and packet.pos != page:
                skipped = packet.pos - expected
            # Packets of one Ogg page share its position.
            expected = (expected or 0) + packet.size if packet.pos == page else packet.pos + packet.size
            page = packet.pos
            tally.bytes_read = expected
        for frame in _decoded(packet, tally, packer):
            yield frame, skipped
            skipped = 0


def _packets(media: Media, tally: Tally) -> Iterator[Packet[AudioStream]]:
    """Every packet of the track and the empty one that drains the decoder; reading goes on after a damaged place."""
    from av.error import FFmpegError

    failures = 0
    source = media.container.demux(media.stream)
    while failures < _DEMUX_ERRORS:
        try:
            packet = next(source)
        except (StopIteration, IndexError):
            # IndexError: tracks that appeared on the way (MPEG-TS, FLV) are unknown to PyAV's drain, which comes to ours first.
            return
        except FFmpegError:
            failures += 1
            tally.packets += 1
            tally.failed += 1
            tally.failed_at_end += 1
            tally.unread = True
            source = media.container.demux(media.stream)
            continue
        failures = 0
        tally.unread = tally.unread and not packet.size
        yield packet


def _decoded(packet: Packet[AudioStream], tally: Tally, packer: Packer) -> list[AudioFrame]:
    from av.error import EOFError as DecoderEnd
    from av.error import FFmpegError

    if packet.size:
        tally.packets += 1
        tally.packet_bytes += packet.size
    try:
        decoded = [frame for frame in packet.decode() if frame.samples]
        if not all(is_sound(frame.sample_rate, frame.layout.nb_channels) for frame in decoded):
            raise ValueError("not a sample rate or layout of speech")
        frames = [packer.packed(frame) for frame in decoded]
    except DecoderEnd:
        return []
    except (FFmpegError, ValueError):
        tally.failed += 1
        tally.failed_at_end += 1
        tally.failed_bytes += packet.size
        return []
    if frames:
        tally.failed_at_end = 0
    return frames


# -- time -------------------------------------------------------------------------------------------------------------


def _blocks(media: Media, tally: Tally, max_duration: float, name: str) -> Iterator[Block]:
    clock = Clock(media, tally, max_duration)
    pending = Pending()

    def taken() -> Iterator[Block]:
        extra = 0
        if clock.following and pending.rate:
            longer = most_stretched(clock.due(), pending.samples / pending.rate)
            extra = round(longer * pending.rate)
            tally.position += extra / pending.rate
            tally.stretched += abs(extra / pending.rate)
        clock.begin()
        yield from pending.take(extra)

    for frame, skipped in _frames(media, tally):
        if not pending.fits(frame):
            yield from taken()
        gap = clock.gap_before(frame, skipped)
        if gap is not None:
            yield from taken()
            yield from silence(gap.seconds, frame)
            tally.count_gap(gap)
        elif clock.following and pending.samples >= STEP * pending.rate:
            yield from taken()
        pending.add(frame)
        tally.samples += frame.samples
        tally.position += frame.samples / frame.sample_rate
        if tally.position > max_duration:
            raise too_long(name, max_duration)
        if pending.full:
            yield from taken()
    yield from taken()
    if media.demuxer == "ogg" and media.alone:
        tally.count_missing_pages(media.promise.held)
    tally.count_unread(media.promise.held)
