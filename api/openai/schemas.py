"""What OpenAI's clients send and get; the fields of `openai/types/audio` and `openai/types/model.py`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from api.schemas import Body
from flows.doors import Door, model_at, options_of
from flows.options import MOST_LANGUAGES, MOST_TEXT, TranscribeOptions

ResponseFormat = Literal["json", "text", "srt", "verbose_json", "vtt", "diarized_json"]
MOST_KNOWN = 4
"""OpenAI's limit."""
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
        description="A model from `GET /v1/models`, or one of OpenAI's model names for this service's default model.",
    )
    prompt: Text2000 | None = Field(None, description="Text that sets the spelling and style of the transcript.")
    response_format: ResponseFormat = "json"
    temperature: float = Field(0.0, ge=0, le=1, description="Ignored: decoding is deterministic.")
    language: str | None = Field(
        None,
        max_length=MOST_LANGUAGES,
        description="Spoken language, as a code or a name, or those that may be spoken (`en,fr`). Detected by default.",
    )


class TranslationForm(AudioForm):
    """`POST /v1/audio/translations`, beside the recording."""

    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] = "json"


class TranscriptionForm(AudioForm, OurSpeakerOptions):
    """`POST /v1/audio/transcriptions`, beside the recording."""

    response_format: ResponseFormat = Field("json", description="`diarized_json` identifies speakers, with any model.")
    timestamp_granularities: tuple[Literal["word", "segment"], ...] = Field(
        (), alias="timestamp_granularities[]", max_length=10, description="For `verbose_json`; segments by default."
    )
    stream: bool = Field(False, description="Stream server-sent events, with `json`, `text` or `diarized_json`.")
    chunking_strategy: Literal["auto"] | None = Field(None, description="Ignored: recordings are always split at silences.")
    keywords: tuple[Annotated[str, StringConstraints(min_length=1, max_length=200)], ...] = Field(
        (), alias="keywords[]", max_length=100, description="Words and phrases to expect."
    )
    languages: tuple[Annotated[str, StringConstraints(min_length=1, max_length=40)], ...] = Field(
        (), alias="languages[]", max_length=100, description="The languages that may be spoken, where `language` is omitted."
    )
    known_speaker_names: tuple[Annotated[str, StringConstraints(min_length=1, max_length=100)], ...] = Field(
        (), alias="known_speaker_names[]", max_length=MOST_KNOWN, description="Names of speakers who may be heard."
    )
    known_speaker_references: tuple[str, ...] = Field(
        (),
        alias="known_speaker_references[]",
        max_length=MOST_KNOWN,
        description="For each of these names, 2 to 10 seconds of that person's speech as a data URL, `data:audio/wav;base64,…`.",
    )

    @property
    def known(self) -> bool:
        """Whether voices came with the call."""
        return bool(self.known_speaker_names or self.known_speaker_references)


class Usage(BaseModel):
    type: Literal["duration"] = "duration"
    seconds: float = Field(description="Duration of the audio, in seconds.")


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
    avg_logprob: float = Field(description="Average log probability of the chunk, up to 30 s long, that contains the segment.")
    compression_ratio: float
    no_speech_prob: float = Field(description="Probability of silence in the chunk that contains the segment.")


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
    speaker: str = Field(
        description="The name of a known speaker; else `A`, `B`, … in order of first appearance; `unknown` if no speaker was found."
    )


class DiarizedTranscription(BaseModel):
    """`diarized_json`."""

    task: Literal["transcribe"] = "transcribe"
    duration: float
    text: str
    segments: list[SpeakerSegment]
    usage: Usage


class TextDelta(BaseModel):
    """The next piece of the text."""

    type: Literal["transcript.text.delta"] = "transcript.text.delta"
    delta: str
    segment_id: str | None = None


class TextDone(BaseModel):
    """The complete text."""

    type: Literal["transcript.text.done"] = "transcript.text.done"
    text: str


class Model(BaseModel):
    """An available model."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(0, description="Always 0: unknown.")
    owned_by: str


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]
