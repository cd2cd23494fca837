"""The options that callers give, as types. Written by `make options` from `flows.options`; not by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict, get_args

Format = Literal["json", "srt", "vtt", "txt", "tsv", "rttm", "aud", "lrc", "md", "docx", "html", "csv", "eaf"]
FORMATS: tuple[Format, ...] = get_args(Format)
BINARY: frozenset[Format] = frozenset({"docx"})
"""Formats that are not text."""
RetryFrom = Literal["fetch", "segment", "asr", "align", "embed", "diarize", "merge"]
"""The steps of a job, of which a retry may repeat one and what follows it."""


class ChunkOptions(TypedDict, total=False):
    """How a chunk is transcribed. What is left out is as the service has it."""

    language: str | None
    """Spoken language, as a code (`en`) or a name (`french`), or those that may be spoken (`en,fr,es`). Detected by default."""
    model: str
    """ASR model: a size, or another model that the service allows. `auto` is the service's default."""
    task: Literal["transcribe", "translate"]
    """`transcribe` keeps the spoken language, `translate` translates to English."""
    initial_prompt: str | None
    """Text that sets the spelling and style of the transcript."""
    hotwords: str | None
    """Names and terms to expect, separated by spaces."""
    align: bool
    """Add a start and end time to every word."""
    diarize: bool
    """Identify speakers."""
    num_speakers: int | None
    """Number of speakers, if known."""
    min_speakers: int | None
    """Minimum number of speakers."""
    max_speakers: int | None
    """Maximum number of speakers."""


class Options(ChunkOptions, total=False):
    """How a recording is transcribed. What is left out is as the service has it."""

    glossary: str | None
    """Name of one of your glossaries: terms to expect, and spellings."""
    align_model: str
    """Model for word times: `attention` for Whisper's own, or another that the service allows. `auto` chooses by language."""
    track: str | int | None
    """Audio track, by number (from 1) or language. By default the first one that decodes and is not silent; with `language`, one tagged with it is preferred."""
    channels: Literal["auto", "mix", "separate"]
    """Channels of a recording: `mix` transcribes them as one, `separate` each by itself with a speaker for each. `auto` separates two that carry different voices, as in a call, if speakers are identified."""
    allow_truncated: bool
    """Transcribe a truncated recording as far as it goes instead of rejecting it."""
    max_duration: float | None
    """Longest recording to accept, in seconds. The service's own limit also applies."""
    diarization_model: str
    """Diarization model: `community-1` or `segmentation-3.0+campplus`. `auto` is the service's default."""
    voices: bool
    """Name the speakers whose voices you have enrolled at `/voices`."""
    on_diarization_failure: Literal["fail", "degrade"]
    """If diarization fails: `degrade` to a transcript without speakers and say so, or `fail` the job."""
    formats: Sequence[Format]
    """Formats to list in `links`. All formats can always be fetched."""
    layout: Literal["readable", "whisperx"]
    """`readable`: paragraphs in txt, subtitles by broadcasters' rules, speakers by name; `whisperx`: files as WhisperX writes them."""
    speaker_names: str | None
    """Names of the speakers in the order in which they first speak (`Anna, Ben`), or by label (`SPEAKER_01=Ben`)."""
    highlight_words: bool
    """Underline each word as it is spoken in srt and vtt; add word times in lrc."""
    max_line_width: int | None
    """Maximum characters per line in subtitles and lrc; 42 by default in subtitles, any number in WhisperX's layout."""
    max_line_count: int | None
    """Lines per subtitle, 2 by default; in WhisperX's layout it needs a width as well."""
    batch_size: int | None
    """Audio chunks per batch. By default as many as fit into the GPU's memory, or 8 on a CPU."""


class Changes(TypedDict, total=False):
    """What a retry may do differently. What is left out stays."""

    language: str | None
    """Spoken language, as a code (`en`) or a name (`french`), or those that may be spoken (`en,fr,es`). Detected by default."""
    model: str | None
    """ASR model: a size, or another model that the service allows. `auto` is the service's default."""
    task: Literal["transcribe", "translate"] | None
    """`transcribe` keeps the spoken language, `translate` translates to English."""
    initial_prompt: str | None
    """Text that sets the spelling and style of the transcript."""
    hotwords: str | None
    """Names and terms to expect, separated by spaces."""
    glossary: str | None
    """Name of one of your glossaries: terms to expect, and spellings."""
    align: bool | None
    """Add a start and end time to every word."""
    align_model: str | None
    """Model for word times: `attention` for Whisper's own, or another that the service allows. `auto` chooses by language."""
    track: str | int | None
    """Audio track, by number (from 1) or language. By default the first one that decodes and is not silent; with `language`, one tagged with it is preferred."""
    channels: Literal["auto", "mix", "separate"] | None
    """Channels of a recording: `mix` transcribes them as one, `separate` each by itself with a speaker for each. `auto` separates two that carry different voices, as in a call, if speakers are identified."""
    allow_truncated: bool | None
    """Transcribe a truncated recording as far as it goes instead of rejecting it."""
    max_duration: float | None
    """Longest recording to accept, in seconds. The service's own limit also applies."""
    diarize: bool | None
    """Identify speakers."""
    diarization_model: str | None
    """Diarization model: `community-1` or `segmentation-3.0+campplus`. `auto` is the service's default."""
    num_speakers: int | None
    """Number of speakers, if known."""
    min_speakers: int | None
    """Minimum number of speakers."""
    max_speakers: int | None
    """Maximum number of speakers."""
    voices: bool | None
    """Name the speakers whose voices you have enrolled at `/voices`."""
    on_diarization_failure: Literal["fail", "degrade"] | None
    """If diarization fails: `degrade` to a transcript without speakers and say so, or `fail` the job."""
    layout: Literal["readable", "whisperx"] | None
    """`readable`: paragraphs in txt, subtitles by broadcasters' rules, speakers by name; `whisperx`: files as WhisperX writes them."""
    speaker_names: str | None
    """Names of the speakers in the order in which they first speak (`Anna, Ben`), or by label (`SPEAKER_01=Ben`)."""
    highlight_words: bool | None
    """Underline each word as it is spoken in srt and vtt; add word times in lrc."""
    max_line_width: int | None
    """Maximum characters per line in subtitles and lrc; 42 by default in subtitles, any number in WhisperX's layout."""
    max_line_count: int | None
    """Lines per subtitle, 2 by default; in WhisperX's layout it needs a width as well."""
    batch_size: int | None
    """Audio chunks per batch. By default as many as fit into the GPU's memory, or 8 on a CPU."""
