"""Recordings: any audio or video file in, 16 kHz mono FLAC out, and that FLAC opened for the stages to read.

The samples decide everything: the same samples give the same bytes and the same identity, whatever they came in.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from speech.decode import GAP, Tally, mono, spell, too_long
from speech.errors import CorruptMedia, EmptyMedia, TruncatedMedia
from speech.mixdown import Floats, Int16, Mixer
from speech.probe import Media, capitalised, check_sound, open_media
from speech.schema import SAMPLE_RATE, AudioInfo
from speech.stored import reading

if TYPE_CHECKING:
    import soundfile

_LOSS = 0.05
"""The part of a recording that may fail to decode, with a warning, before it is refused."""


def normalise(
    source: Path,
    target: Path,
    *,
    max_duration: float,
    allow_truncated: bool = False,
    name: str = "the recording",
    progress: Callable[[float], None] = lambda fraction: None,
) -> AudioInfo:
    """Decode `source`, whatever it is, to a 16 kHz mono 16-bit FLAC at `target`, in memory that does not grow with it.

    Times are those that a player shows: encoder delay is trimmed, and gaps in the time stamps become silence. `name` is
    what messages call the recording. `progress` is told the fraction of the file's bytes that were decoded; what it raises ends the work.

    Raises the MediaErrors of `speech.errors`, and OSError when a file cannot be read or written. `target` is written
    aside and moved, so that it is whole or not there.
    """
    with open_media(source, name) as media:
        if media.exact_duration is not None and media.exact_duration > max_duration and not media.promise.cut:
            raise too_long(name, max_duration)
        check_sound(media, name)
        tally, mixer, digest = Tally(), Mixer(), hashlib.sha256()
        report = _stepwise(progress, media.promise.held)
        samples = 0
        with _flac_writer(target) as write:
            for block in mono(media, tally, mixer, max_duration, name):
                digest.update(block.astype("<i2", copy=False).tobytes())
                write(block)
                samples += len(block)
                report(tally.bytes_read)
            warnings = _judge(media, tally, mixer, allow_truncated, name)
    progress(1.0)
    return AudioInfo(
        sha256=digest.hexdigest(),
        samples=samples,
        duration=samples / SAMPLE_RATE,
        probe=media.probe,
        warnings=tuple(warnings),
    )


# -- the verdict ------------------------------------------------------------------------------------------------------


def _judge(media: Media, tally: Tally, mixer: Mixer, allow_truncated: bool, name: str) -> list[str]:
    """Refuse what is empty, cut or broken; otherwise say what the user should know, a sentence each."""
    if not tally.samples:
        if tally.failed:
            raise CorruptMedia(f"{capitalised(name)} is damaged: none of its audio decodes; copy or export it again.")
        raise EmptyMedia(
            f"{capitalised(name)} has an audio track without a single sample; there is nothing to transcribe in it."
        )
    warnings = []
    if media.tracks > 1:
        warnings.append(f"The recording has {media.tracks} audio tracks; only the default one was transcribed.")
    missing = _missing_seconds(media, tally)
    lost = tally.lost_seconds
    if missing and _is_cut(media, tally):
        sentence = f"ends early: {spell(tally.position)} of {spell(tally.position + missing)} are there"
        if not allow_truncated:
            raise TruncatedMedia(
                f"{capitalised(name)} {sentence}; copy it again, or allow truncated recordings to transcribe what is there."
            )
        warnings.append(f"The recording {sentence}.")
    elif missing and media.demuxer in ("mp3", "flac"):
        lost = max(lost, missing)
    elif missing:
        warnings.append(f"The recording declares {spell(tally.position + missing)} of audio but holds {spell(tally.position)}.")
    if lost > _LOSS * (tally.position + missing):
        raise CorruptMedia(
            f"{capitalised(name)} is damaged: about {spell(lost)} of {spell(tally.position + missing)} do not decode; copy or export it again."
        )
    if lost > 0 or tally.failed > tally.failed_at_end:
        warnings.append(f"The recording is damaged: about {max(lost, 0.1):.1f} s of it did not decode.")
    undamaged = tally.gap_seconds - tally.damaged_seconds
    if undamaged > GAP:
        warnings.append(f"The recording leaves out {spell(undamaged)} in {tally.gaps} place(s); they were kept as silence.")
    return warnings + _sound_warnings(mixer)


def _sound_warnings(mixer: Mixer) -> list[str]:
    warnings = []
    if mixer.nonfinite:
        warnings.append(
            f"{mixer.nonfinite} samples of the recording were not numbers (NaN or infinite) and were taken as silence."
        )
    if mixer.clipped_share > 0.01:
        warnings.append(f"The recording is clipped: {100 * mixer.clipped_share:.0f} % of its samples are at full scale.")
    if mixer.channels_differ:
        warnings.append(
            "The two channels carry different talks at the same time and were mixed; transcribe each channel as a recording of its own."
        )
    return warnings


def _missing_seconds(media: Media, tally: Tally) -> float:
    """Seconds the container promises beyond what decoded; 0 when within max(0.5 s, 1 %)."""
    promise = media.promise
    promised = media.exact_duration
    if media.demuxer in ("wav", "w64", "aiff", "au", "caf") or (promised is None and promise.cut):
        declared = media.container.duration
        if media.demuxer in ("matroska", "asf") and declared:
            promised = declared / 1e6
        else:
            promised = tally.position * promise.claimed / promise.held if promise.claimed else None
    missing = (promised or 0.0) - tally.position
    return missing if missing > max(0.5, 0.01 * (promised or 0.0)) else 0.0


def _is_cut(media: Media, tally: Tally) -> bool:
    """Whether what is missing is missing at the end of the file, rather than broken inside it."""
    if media.promise.claimed is not None:
        return media.promise.cut
    return media.demuxer in ("flac", "mp3", "tta", "wv") and tally.failed == tally.failed_at_end and not tally.damaged_seconds


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


# -- writing ----------------------------------------------------------------------------------------------------------


class _Sink:
    """A file for libsndfile that keeps the reason of a failed write, which libsndfile would swallow.

    It then pretends to have written, and the writer looks at `error` after each block.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb+", buffering=0)  # so that only `write` can fail
        self.error: OSError | None = None
        self.seek, self.tell, self.read = self._file.seek, self._file.tell, self._file.read

    def write(self, data: bytes) -> int:
        rest = memoryview(data)
        try:
            while rest and not self.error:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self.error = self.error or error
        return len(data)

    def close(self) -> None:
        self._file.close()


@contextlib.contextmanager
def _flac_writer(target: Path) -> Iterator[Callable[[Int16], None]]:
    """Write blocks to a FLAC that appears at `target` when the block ends well, and not at all otherwise."""
    import soundfile

    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    sink = _Sink(aside)
    try:
        try:
            with soundfile.SoundFile(sink, "w", samplerate=SAMPLE_RATE, channels=1, format="FLAC", subtype="PCM_16") as file:

                def write(block: Int16) -> None:
                    file.write(block)
                    if sink.error:
                        raise sink.error

                yield write
        finally:
            sink.close()
        if sink.error:
            raise sink.error
        aside.replace(target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            aside.unlink()


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


class Held(Recording):
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
