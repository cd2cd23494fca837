"""What a session of audio chunks remembers from one chunk to the next: little, and nothing that a process must hold.

It is bytes between two chunks, so that any worker can go on with it.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from speech.schema import SAMPLE_RATE
from stenoflow.errors import InvalidOption
from stenoflow.types import Frozen

VERSION = 1
"""Raised when the state changes shape or meaning."""
TAIL_SECONDS = 10.0
"""Audio kept as context for the next chunk: with a chunk of 5 s, what three windows of the segmentation see."""
WORDS = 80
"""Words kept: those in the kept audio, and those before it for the decoder's prompt."""


class ChunkParams(Frozen):
    """How the chunks of a session are transcribed. All but the hints stay as they were at the first chunk."""

    model: str = "auto"
    language: str | None = None
    task: Literal["transcribe", "translate"] = "transcribe"
    align: bool = True
    diarize: bool = False
    num_speakers: int | None = None
    min_speakers: int | None = None
    max_speakers: int | None = None
    initial_prompt: str | None = None
    hotwords: str | None = None


_FIXED = ("model", "task", "diarize", "num_speakers", "min_speakers", "max_speakers")


class SentWord(NamedTuple):
    """A word that was answered, in the session's seconds."""

    word: str
    start: float
    end: float


class Voice(NamedTuple):
    """A speaker of the session; the n-th one is called by n."""

    centroid: NDArray[np.float32]
    """(dimension,) of unit length."""
    seconds: float
    """Of speech without overlap that it is the mean of."""


class Session(NamedTuple):
    """The state after a chunk; about 400 kB at most, however long the session lasts."""

    params: ChunkParams
    samples: int = 0
    """Samples of all chunks so far: the next chunk's first one."""
    tail: NDArray[np.int16] = np.zeros(0, dtype=np.int16)
    """The last of them."""
    words: tuple[SentWord, ...] = ()
    held_from: float | None = None
    """Seconds at which a word begins that the end of the last chunk cut, and which is still to be answered."""
    language: str | None = None
    """The best guess so far."""
    language_settled: bool = False
    speech_seconds: float = 0.0
    voices: tuple[Voice, ...] = ()

    @property
    def elapsed(self) -> float:
        """Seconds."""
        return self.samples / SAMPLE_RATE

    def accepting(self, params: ChunkParams) -> Session:
        """The session with the hints of the next chunk. Raises InvalidOption when its other options are not the session's."""
        changed = [name for name in _FIXED if getattr(params, name) != getattr(self.params, name)]
        known = {self.params.language, self.language if self.language_settled else None}
        if params.language is not None and params.language not in known:
            changed.insert(0, "language")
        if changed:
            raise InvalidOption(
                f"The session was started with another {' and '.join(changed)}; keep its options, or start a new session."
            )
        hints = {"initial_prompt": params.initial_prompt, "hotwords": params.hotwords, "align": params.align}
        return self._replace(params=self.params.model_copy(update=hints))

    def to_bytes(self) -> bytes:
        """As an `.npz` without pickled objects."""
        dimension = len(self.voices[0].centroid) if self.voices else 0
        facts = {
            "version": VERSION,
            "params": self.params.model_dump(),
            "samples": self.samples,
            "words": self.words,
            "held_from": self.held_from,
            "language": self.language,
            "language_settled": self.language_settled,
            "speech_seconds": self.speech_seconds,
            "voice_seconds": [voice.seconds for voice in self.voices],
        }
        out = io.BytesIO()
        np.savez(
            out,
            facts=np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8),
            tail=self.tail,
            centroids=np.asarray([voice.centroid for voice in self.voices], dtype=np.float32).reshape(-1, dimension or 1),
        )
        return out.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Session:
        """Raises InvalidOption for what is no session of this version."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                facts: dict[str, Any] = json.loads(file["facts"].tobytes())
                tail, centroids = file["tail"], file["centroids"]
            version = facts.pop("version")
        except (ValueError, KeyError, OSError, EOFError, TypeError, zipfile.BadZipFile):
            version = None
        if version != VERSION:
            raise InvalidOption("The session was saved by another version and cannot be continued; start a new session.")
        seconds = facts.pop("voice_seconds")
        return cls(
            **facts
            | {
                "params": ChunkParams(**facts["params"]),
                "words": tuple(SentWord(*word) for word in facts["words"]),
                "tail": tail,
                "voices": tuple(Voice(centroid, known) for centroid, known in zip(centroids, seconds, strict=True)),
            }
        )
