"""Normalised audio as a file: a FLAC that is whole or not there, and the identity of what is in one."""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from speech.mixdown import Int16
from speech.schema import SAMPLE_RATE

_BLOCK = 1 << 20


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
def flac_writer(target: Path) -> Iterator[Callable[[Int16], None]]:
    """Write blocks to a FLAC that appears at `target` when the block ends well, and not at all otherwise."""
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


def samples_sha256(path: Path) -> str | None:
    """What `speech.audio.normalise` names the recording by: hex SHA-256 of the little-endian int16 samples; None when they do not all decode. Raises OSError when it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        try:
            with soundfile.SoundFile(file) as recording:
                left = recording.frames
                while left > 0 and len(block := recording.read(_BLOCK, dtype="int16")):
                    left -= len(block)
                    digest.update(np.ascontiguousarray(block, dtype="<i2").tobytes())
        except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError):
            return None
    return digest.hexdigest() if left == 0 else None
