"""Writing normalised audio: a FLAC that is whole, or not there."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from speech.mixdown import Int16
from speech.schema import SAMPLE_RATE


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
