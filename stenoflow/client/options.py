"""The options that callers give, as types. Written by `make options` from `flows.options`; not by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict, get_args

Format = Literal["json", "srt", "vtt", "txt", "tsv", "rttm", "aud", "lrc"]
FORMATS: tuple[Format, ...] = get_args(Format)


class ChunkOptions(TypedDict, total=False):
    """How a chunk is transcribed. What is left out is as the service has it."""

    language: str | None
    """The spoken language, as a code (`en`) or a name (`french`); detected when left out."""
    model: str
    """Whisper model: a size, or another that the service allows; `auto` takes its default."""
    task: Literal["transcribe", "translate"]
    """Keep the spoken language, or translate to English."""
    initial_prompt: str | None
    """Text that primes the spelling and style of the transcript."""
    hotwords: str | None
    """Names and terms that are likely to be said, separated by spaces."""
    align: bool
    """Give every word a time."""
    diarize: bool
    """Say who speaks."""
    num_speakers: int | None
    """The number of speakers, when it is known."""
    min_speakers: int | None
    """At least this many speakers."""
    max_speakers: int | None
    """At most this many speakers."""


class Options(ChunkOptions, total=False):
    """How a recording is transcribed. What is left out is as the service has it."""

    align_model: str
    """Model for word times: `attention` uses Whisper's own, others are the operator's to allow; `auto` takes the language's."""
    track: str | int | None
    """Which of several audio tracks: its number, from 1, or its language; when left out the first that decodes, is not silent and, where a language is given, is tagged with it."""
    allow_truncated: bool
    """Transcribe what is there when a recording is cut short, instead of refusing it."""
    max_duration: float | None
    """Refuse a recording that lasts longer, in seconds; the service's own limit holds in any case."""
    diarization_model: str
    """What tells voices apart: `community-1` or `segmentation-3.0+campplus`; `auto` takes the service's default."""
    on_diarization_failure: Literal["fail", "degrade"]
    """What a failed diarization means: `degrade` completes without speakers and says so, `fail` fails."""
    formats: Sequence[Format]
    """The files to write: `links` names them; every format is available in any case."""
    highlight_words: bool
    """Underline each word as it is spoken, in srt and vtt; give each its time, in lrc."""
    max_line_width: int | None
    """Characters per line of subtitles and lrc."""
    max_line_count: int | None
    """Lines per subtitle; needs max_line_width."""
    batch_size: int | None
    """Chunks of audio decoded at once; as many as a GPU's memory holds, or 8 on a CPU, when left out."""


class Changes(TypedDict, total=False):
    """What a retry may do differently. What is left out stays."""

    language: str | None
    """The spoken language, as a code (`en`) or a name (`french`); detected when left out."""
    model: str | None
    """Whisper model: a size, or another that the service allows; `auto` takes its default."""
    task: Literal["transcribe", "translate"] | None
    """Keep the spoken language, or translate to English."""
    initial_prompt: str | None
    """Text that primes the spelling and style of the transcript."""
    hotwords: str | None
    """Names and terms that are likely to be said, separated by spaces."""
    align: bool | None
    """Give every word a time."""
    align_model: str | None
    """Model for word times: `attention` uses Whisper's own, others are the operator's to allow; `auto` takes the language's."""
    track: str | int | None
    """Which of several audio tracks: its number, from 1, or its language; when left out the first that decodes, is not silent and, where a language is given, is tagged with it."""
    allow_truncated: bool | None
    """Transcribe what is there when a recording is cut short, instead of refusing it."""
    max_duration: float | None
    """Refuse a recording that lasts longer, in seconds; the service's own limit holds in any case."""
    diarize: bool | None
    """Say who speaks."""
    diarization_model: str | None
    """What tells voices apart: `community-1` or `segmentation-3.0+campplus`; `auto` takes the service's default."""
    num_speakers: int | None
    """The number of speakers, when it is known."""
    min_speakers: int | None
    """At least this many speakers."""
    max_speakers: int | None
    """At most this many speakers."""
    on_diarization_failure: Literal["fail", "degrade"] | None
    """What a failed diarization means: `degrade` completes without speakers and says so, `fail` fails."""
    highlight_words: bool | None
    """Underline each word as it is spoken, in srt and vtt; give each its time, in lrc."""
    max_line_width: int | None
    """Characters per line of subtitles and lrc."""
    max_line_count: int | None
    """Lines per subtitle; needs max_line_width."""
    batch_size: int | None
    """Chunks of audio decoded at once; as many as a GPU's memory holds, or 8 on a CPU, when left out."""
