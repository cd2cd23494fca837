"""What OpenAI's clients send and get; the fields of `openai/types/audio` and `openai/types/model.py`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from api.schemas import Body
from flows.doors import Door, model_at, options_of
from flows.options import MOST_TEXT, TranscribeOptions

ResponseFormat = Literal["json", "text", "srt", "verbose_json", "vtt", "diarized_json"]
Text2000 = Annotated[str, StringConstraints(max_length=MOST_TEXT)]
_OURS = options_of(TranscribeOptions, Door.OPENAI)
SPEAKERS = frozenset(name for name, known in _OURS.items() if known.group == "Speakers")
"""Only transcriptions tell speakers apart."""
OURS = frozenset(_OURS)

if TYPE_CHECKING:

    class OurOptions(Body): ...

    class OurSpeakerOptions(Body): ...

else:
    _made = functools.partial(model_at, Door.OPENAI, TranscribeOptions, Body, said=" This service's own.")
    OurOptions = _made("OurOptions", "Of both calls.", only=[name for name in _OURS if name not in SPEAKERS])
    OurSpeakerOptions = _made("OurSpeakerOptions", "Of transcriptions.", only=[name for name in _OURS if name in SPEAKERS])


class AudioForm(OurOptions):
    """What both calls take beside the recording."""

    model: str = Field(
        min_length=1,
        max_length=200,
        examples=["whisper-1"],
        description="A Whisper model of this service (`GET /v1/models`), or one of OpenAI's names for its default model.",
    )
    prompt: Text2000 | None = Field(None, description="Text that primes the spelling and style of the transcript.")
    response_format: ResponseFormat = "json"
    temperature: float = Field(0.0, ge=0, le=1, description="Without effect: this service samples nothing.")
    language: str | None = Field(
        None, max_length=40, description="The spoken language, as a code or a name; detected when left out."
    )


class TranslationForm(AudioForm):
    """`POST /v1/audio/translations`, beside the recording."""

    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] = "json"


class TranscriptionForm(AudioForm, OurSpeakerOptions):
    """`POST /v1/audio/transcriptions`, beside the recording."""

    response_format: ResponseFormat = Field("json", description="`diarized_json` says who speaks, whichever the model.")
    timestamp_granularities: tuple[Literal["word", "segment"], ...] = Field(
        (), alias="timestamp_granularities[]", max_length=10, description="With `verbose_json`; segments when left out."
    )
    stream: bool = Field(False, description="Server-sent events; with `json`, `text` and `diarized_json`.")
    chunking_strategy: Literal["auto"] | None = Field(None, description="Recordings are cut at silences in any case.")
    keywords: tuple[Annotated[str, StringConstraints(min_length=1, max_length=200)], ...] = Field(
        (), alias="keywords[]", max_length=100, description="Words and phrases that are likely to be said."
    )


class Usage(BaseModel):
    type: Literal["duration"] = "duration"
    seconds: float = Field(description="Of audio.")


class Transcription(BaseModel):
    """`json`."""

    text: str
    usage: Usage


class Translation(BaseModel):
    """`json` of a translation."""

    text: str


class TranscriptSegment(BaseModel):
    id: int
    seek: int = Field(description="The segment's start, in Whisper's frames of 10 ms.")
    start: float
    end: float
    text: str
    tokens: list[int] = Field(description="Always empty: token ids are not kept.")
    temperature: float = Field(description="Always 0: nothing is sampled.")
    avg_logprob: float = Field(description="Of the chunk of up to 30 s that the segment is part of.")
    compression_ratio: float
    no_speech_prob: float = Field(description="Of the chunk that the segment is part of.")


class TranscriptWord(BaseModel):
    word: str
    start: float
    end: float


class VerboseTranscription(BaseModel):
    """`verbose_json`; `segments` and `words` as `timestamp_granularities[]` asks for them."""

    task: Literal["transcribe", "translate"]
    language: str = Field(description="English name of the text's language, in lower case.")
    duration: float
    text: str
    segments: list[TranscriptSegment] | None = None
    words: list[TranscriptWord] | None = None
    usage: Usage


class SpeakerSegment(BaseModel):
    type: Literal["transcript.text.segment"] = "transcript.text.segment"
    id: str
    start: float
    end: float
    text: str
    speaker: str = Field(description="`A`, `B`, … in the order in which they speak first; `unknown` where nobody was found.")


class DiarizedTranscription(BaseModel):
    """`diarized_json`."""

    task: Literal["transcribe"] = "transcribe"
    duration: float
    text: str
    segments: list[SpeakerSegment]
    usage: Usage


class TextDelta(BaseModel):
    """A further piece of the text; all of them together are the text."""

    type: Literal["transcript.text.delta"] = "transcript.text.delta"
    delta: str
    segment_id: str | None = None


class TextDone(BaseModel):
    """The whole text."""

    type: Literal["transcript.text.done"] = "transcript.text.done"
    text: str


class Model(BaseModel):
    """A model that calls may name."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(0, description="Always 0: it is not known.")
    owned_by: str


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]
