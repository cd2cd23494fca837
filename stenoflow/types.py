"""The transcript, as `json` renders it: what `stenoflow.transcribe` and the client return.

Times are seconds as floats, counted from the recording's first sample. Names follow WhisperX where
WhisperX has one (`segments`, `words`, `word_segments`, `score`, `speaker`).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Timing = Literal["wav2vec2", "attention", "tokens", "interpolated", "edited"]
"""What timed a word: an acoustic model, Whisper's cross-attention, the frames at which a transducer gave its tokens, or its
neighbours; `edited` words, which a person wrote, share the time of those that they replaced."""
SpeakerSource = Literal["overlap", "nearest"]


class Frozen(BaseModel):
    """Immutable, and strict about field names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelInfo(Frozen):
    """Which weights did the work."""

    name: str
    revision: str = Field(description="Pinned revision: a hub commit, `name==version` of a package, or a content hash.")
    origin: str = Field(description="Where the weights were read from: `package`, `hub` or `folder`.")


class Word(Frozen):
    """One word with its time; `score` in 0…1 is the aligner's confidence."""

    word: str
    start: float
    end: float
    score: float
    timing: Timing
    speaker: str | None = None
    speaker_source: SpeakerSource | None = Field(
        None,
        description="`overlap`: the word lies in a turn; `nearest`: it lies in none and has the speaker of the nearest turn.",
    )


class Segment(Frozen):
    """A sentence or a speaker's part of one."""

    start: float
    end: float
    text: str
    speaker: str | None = None
    avg_logprob: float | None = Field(None, description="Of the segment's chunk, as reported by Whisper; so is the next.")
    no_speech_prob: float | None = None
    language: str | None = Field(
        None,
        description="In which it is spoken. Left out where all of the recording is in one language.",
        exclude_if=lambda value: value is None,
    )
    words: tuple[Word, ...] = ()
    channel: int | None = Field(
        None,
        description="The channel that it was spoken on, from 1, where channels were transcribed separately. Left out otherwise.",
        exclude_if=lambda value: value is None,
    )


class Turn(Frozen):
    """One speaker active from `start` to `end`; turns of different speakers may overlap."""

    start: float
    end: float
    speaker: str


class Stretch(Frozen):
    """From `start` to `end`."""

    start: float
    end: float


class VoiceMatch(Frozen):
    """The enrolled voice that a speaker's was recognised as."""

    name: str
    score: float = Field(description="Cosine similarity of the two voices' embeddings.")


class Transcript(Frozen):
    """The merged result, as `json` renders it."""

    language: str = Field(description="In which it is spoken, or most of it.")
    language_probability: float | None = None
    languages: tuple[str, ...] = Field(
        (),
        description="Where it is spoken in several: in the order in which they are first spoken. Left out where there is one.",
        exclude_if=lambda value: not value,
    )
    duration: float
    segments: tuple[Segment, ...]
    word_segments: tuple[Word, ...]
    turns: tuple[Turn, ...] = ()
    speakers: tuple[str, ...] = ()
    speaker_names: dict[str, str] = Field(
        {},
        description="Names that were given to speakers, by label. Left out where there are none.",
        exclude_if=lambda value: not value,
    )
    speaker_matches: dict[str, VoiceMatch] = Field(
        {},
        description="Enrolled voices that speakers were recognised by, by label. Left out where there are none.",
        exclude_if=lambda value: not value,
    )
    untranscribed: tuple[Stretch, ...] = Field(
        (),
        description="Where someone seems to speak for two seconds or more, but no words were recognized. Left out where there are none.",
        exclude_if=lambda value: not value,
    )
    options: dict[str, Any] = {}
    models: dict[str, ModelInfo] = {}
    versions: dict[str, str] = {}
    warnings: tuple[str, ...] = ()
