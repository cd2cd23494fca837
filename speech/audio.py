"""Recordings: any audio or video file in, 16 kHz mono FLAC out, and that FLAC opened for the stages to read.

The samples decide everything: the same samples give the same bytes and the same identity, whatever they came in.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

import numpy as np

from speech.apart import MOST, write_apart
from speech.decode import Tally, apart, mono, too_long
from speech.flac import flac_writer
from speech.mixdown import PLAIN, Floats, Int16, Levels, Mixer, Mixing
from speech.probe import Media, check_sound, open_media
from speech.schema import SAMPLE_RATE, AudioInfo
from speech.stored import reading
from speech.tracks import Track, TrackRequest
from speech.verdict import chosen, judge, several_tracks
from stenoflow.errors import CorruptMedia, EmptyMedia, MediaError, UnreadableMedia, UnsuitableMedia

if TYPE_CHECKING:
    import soundfile

Channels = Literal["mix", "separate", "auto"]

_FAINT = -45.0
"""dBFS of the loud parts of a track below which another one is listened to, where there are several."""
_LOUDER = 12.0
"""dB by which another track must be louder than a faint one to be taken in its place."""


def normalise(
    source: Path,
    target: Path,
    *,
    max_duration: float,
    allow_truncated: bool = False,
    track: str | None = None,
    language: str | None = None,
    channels: Channels = "mix",
    name: str = "the recording",
    progress: Callable[[float], None] = lambda fraction: None,
) -> AudioInfo:
    """Decode `source`, whatever it is, to a 16 kHz mono 16-bit FLAC at `target`, in memory that does not grow with it.

    Times are those that a player shows: encoder delay is trimmed, gaps in the time stamps become silence, and sound whose time
    stamps run at another pace is stretched to them. Of several audio tracks `track` is taken, a number from 1 or a
    language, else the first that decodes, is not silent and, if there is one, is tagged with the `language`. With `channels` as
    `separate`, or `auto` where each of two carries a voice of its own, each channel is written beside `target` as well. `name` is what messages call the recording. `progress` receives the fraction of the file's bytes that were
    decoded; what it raises ends the work.

    Raises the MediaErrors of `stenoflow.errors`, and OSError when a file cannot be read or written. `target` is written
    aside and moved, so that it is whole or not there.
    """
    job = _Job(source, target, max_duration, allow_truncated, TrackRequest(track, language), name, progress)
    info = job.first_choice()
    if channels == "separate" or (channels == "auto" and info.carried is not None and info.carried.what == "voices"):
        info = job.with_channels(info)
    progress(1.0)
    return info


class _Take(NamedTuple):
    """One track, decoded and written aside."""

    info: AudioInfo
    path: Path
    level: float


class _Job:
    """One recording: its tracks in turn, until one is taken."""

    def __init__(
        self,
        source: Path,
        target: Path,
        max_duration: float,
        allow_truncated: bool,
        asked: TrackRequest,
        name: str,
        progress: Callable[[float], None],
    ) -> None:
        self.source, self.target = source, target
        self.max_duration, self.allow_truncated, self.asked, self.name = max_duration, allow_truncated, asked, name
        self.progress = progress
        self._opened: Media | None = None

    def first_choice(self) -> AudioInfo:
        """What is said of the track that was taken; it is at `target`."""
        takes: dict[Track, _Take] = {}
        unusable: dict[Track, MediaError] = {}
        turn: Track | None = None
        try:
            while True:
                try:
                    take = self._taken(turn)
                    takes[self._track] = take
                    if self._media.track_count == 1 or take.level > _FAINT:
                        break
                except (CorruptMedia, EmptyMedia, UnreadableMedia, UnsuitableMedia) as error:
                    if self._opened is None or len(self._media.tracks) == 1:
                        raise
                    unusable[self._track] = error
                turn = next((track for track in self._media.tracks if track not in takes | unusable), None)
                if turn is None:
                    break
            if not takes:
                raise next(iter(unusable.values()))
            return self._keep_best(takes, unusable)
        finally:
            for take in takes.values():
                take.path.unlink(missing_ok=True)

    def with_channels(self, info: AudioInfo) -> AudioInfo:
        """Write each channel that carries a sound of its own beside `target`, in a second pass over the track that was taken."""
        if info.carried is None or info.carried.what == "one" or info.carried.count > MOST:
            return info
        number = info.track.number if info.track is not None else None
        count = info.carried.count

        def parts(media: Media) -> Iterator[tuple[int, Int16]]:
            for part in apart(media, count, self.max_duration, self.name):
                self.progress(0.99)
                yield part

        with open_media(self.source, self.name, self.asked, number) as media:
            channels = write_apart(parts(media), count, self.target)
        return info.model_copy(update={"channels": channels if len(channels) > 1 else ()})

    @property
    def _media(self) -> Media:
        """The one last opened."""
        assert self._opened is not None
        return self._opened

    @property
    def _track(self) -> Track:
        return self._media.track

    def _keep_best(self, takes: dict[Track, _Take], unusable: dict[Track, MediaError]) -> AudioInfo:
        """Move the best take to `target`: the first, unless another is much louder."""
        track = next(iter(takes))
        for other, take in takes.items():
            if take.level > takes[track].level + _LOUDER:
                track = other
        takes[track].path.replace(self.target)
        info = takes[track].info
        if self._media.track_count == 1:
            return info
        silent = [other for other, take in takes.items() if other is not track and take.level < takes[track].level - _LOUDER]
        said = several_tracks(self._media, track, silent, list(unusable))
        return info.model_copy(update={"warnings": (said, *info.warnings), "track": chosen(self._media, track)})

    def _taken(self, turn: Track | None) -> _Take:
        """Decode one track; again, where mixing its channels plainly loses some of them."""
        take, better = self._decoded(turn, PLAIN)
        if better == PLAIN:
            return take
        take.path.unlink()
        return self._decoded(turn, better)[0]

    def _decoded(self, turn: Track | None, mixing: Mixing) -> tuple[_Take, Mixing]:
        """A take, and how it had better be mixed."""
        aside = self.target.with_name(f".{self.target.name}.{uuid.uuid4().hex}.take")
        with open_media(self.source, self.name, self.asked, turn.number if turn else None) as media:
            self._opened = media
            if media.exact_duration is not None and media.exact_duration > self.max_duration and not media.promise.cut:
                raise too_long(self.name, self.max_duration)
            check_sound(media, self.name)
            tally, mixer, digest, levels = Tally(), Mixer(mixing), hashlib.sha256(), Levels()
            report = _stepwise(self.progress, media.promise.held)
            samples = 0
            with flac_writer(aside) as write:
                for block in mono(media, tally, mixer, self.max_duration, self.name):
                    digest.update(block.astype("<i2", copy=False).tobytes())
                    write(block)
                    samples += len(block)
                    if media.track_count > 1:
                        levels.add(block)
                    report(tally.bytes_read)
                warnings = judge(media, tally, mixer, self.allow_truncated, self.name)
        info = AudioInfo(
            sha256=digest.hexdigest(),
            samples=samples,
            duration=samples / SAMPLE_RATE,
            probe=media.probe,
            warnings=tuple(warnings),
            carried=mixer.levels.carried(),
        )
        return _Take(info, aside, levels.loud), mixer.better


def _stepwise(progress: Callable[[float], None], total: int) -> Callable[[int], None]:
    """Pass the fraction on in steps of a hundredth, and never backwards."""
    told = -1

    def report(done: int) -> None:
        nonlocal told
        step = min(99, 100 * done // max(total, 1))
        if step > told:
            told = step
            progress(step / 100)

    return report


# -- reading ----------------------------------------------------------------------------------------------------------


class Recording:
    """A normalised recording opened for reading, sample-exact, in flat memory. Safe to read from several threads."""

    def __init__(self, path: Path) -> None:
        import soundfile

        with reading(path):
            self._file: soundfile.SoundFile = soundfile.SoundFile(path, "r")
        self._guard = threading.Lock()
        self.samples: int = self._file.frames

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.samples / SAMPLE_RATE

    def read(self, start_sample: int, stop_sample: int, *, pad: bool = False) -> Floats:
        """Samples `start_sample` to `stop_sample`, shape (stop - start,), in -1…1.

        What lies outside the recording is zeros with `pad`, an IndexError without.
        """
        start, stop = max(start_sample, 0), min(stop_sample, self.samples)
        if stop_sample < start_sample or (not pad and (start, stop) != (start_sample, stop_sample)):
            raise IndexError(f"samples {start_sample} to {stop_sample} of a recording of {self.samples}")
        out = np.zeros(stop_sample - start_sample, np.float32)
        if stop > start:
            with self._guard:
                if self._file.tell() != start:
                    self._file.seek(start)
                self._file.read(stop - start, dtype="float32", out=out[start - start_sample : stop - start_sample])
        return out

    def blocks(self, size: int, step: int) -> Iterator[tuple[int, Floats]]:
        """Windows of `size` samples every `step` samples, as (first sample, samples); the last ones are zero-padded.

        Every sample is in at least one window when `step` is at most `size`, and is decoded once.
        """
        overlap = max(size - step, 0)
        window = np.zeros(0, np.float32)
        for start in range(0, max(self.samples - overlap, 1), step):
            kept = window[size - overlap :] if start else window
            window = np.concatenate([kept, self.read(start + len(kept), start + size, pad=True)])
            yield start, window

    def close(self) -> None:
        with self._guard:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class InMemoryRecording(Recording):
    """16-bit samples in memory, read like a recording."""

    def __init__(self, content: Int16) -> None:
        self._content = content.astype(np.float32) / 32768.0
        self.samples = len(content)

    def read(self, start_sample: int, stop_sample: int, *, pad: bool = False) -> Floats:
        start, stop = max(start_sample, 0), min(stop_sample, self.samples)
        if stop_sample < start_sample or (not pad and (start, stop) != (start_sample, stop_sample)):
            raise IndexError(f"samples {start_sample} to {stop_sample} of a recording of {self.samples}")
        out = np.zeros(stop_sample - start_sample, np.float32)
        if stop > start:
            out[start - start_sample : stop - start_sample] = self._content[start:stop]
        return out

    def close(self) -> None:
        """Nothing is open."""
