"""The transcript in an answer, as WhisperX has it: what `speech.formats.whisperx_json` renders, for the OpenAPI document.

A key without a value is left out, and there may be more of them than are named here.
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from speech.schema import SpeakerSource, Timing

_OPEN = ConfigDict(extra="allow")
Seconds = Annotated[float, Field(ge=0, description="Seconds from the recording's, or the session's, beginning.")]
Speaker = Annotated[str, Field(description="`SPEAKER_00`, `SPEAKER_01`, …; left out where nobody was told apart.")]


class Word(TypedDict):
    """A word with its time."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]

    word: str
    start: Seconds
    end: Seconds
    score: Annotated[float, Field(description="The aligner's confidence, 0 to 1.")]
    speaker: NotRequired[Speaker]
    timing: NotRequired[Annotated[Timing, Field(description="What timed it.")]]
    speaker_source: NotRequired[SpeakerSource]


class Segment(TypedDict):
    """A sentence, or a speaker's part of one."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]

    start: Seconds
    end: Seconds
    text: str
    words: NotRequired[Annotated[list[Word], Field(description="With `align`.")]]
    speaker: NotRequired[Speaker]
    avg_logprob: NotRequired[Annotated[float, Field(description="Of the chunk of up to 30 s that it is of.")]]


class SpeakerTurn(TypedDict):
    """One speaker, active from `start` to `end`."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]

    start: Seconds
    end: Seconds
    speaker: Speaker


class TranscriptFile(TypedDict):
    """A transcript as `json`."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]

    language: str
    language_probability: NotRequired[float]
    duration: Annotated[float, Field(description="Seconds of audio.")]
    segments: list[Segment]
    word_segments: list[Word]
    turns: list[SpeakerTurn]
    speakers: list[str]
    options: dict[str, Any]
    models: dict[str, Any]
    versions: dict[str, str]
    warnings: list[str]
