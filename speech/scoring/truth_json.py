"""Truth in JSON: what WhisperX writes and what `steno transcribe` writes, corrected by hand."""

from __future__ import annotations

import json
from typing import NamedTuple

from pydantic import BaseModel, Field, ValidationError

from speech.languages import language_code
from speech.scoring.marks import Utterance
from speech.scoring.types import Activity, Spoken
from stenoflow.errors import InvalidOption, InvalidReference


class JsonTruth(NamedTuple):
    """What the file says; None for what it does not."""

    utterances: tuple[Utterance, ...] | None = None
    words: tuple[Spoken, ...] | None = None
    turns: tuple[Activity, ...] | None = None
    language: str | None = None


class _Timed(BaseModel):
    start: float | None = Field(None, ge=0, allow_inf_nan=False)
    end: float | None = Field(None, ge=0, allow_inf_nan=False)
    speaker: str | None = None


class _Word(_Timed):
    word: str


class _Segment(_Timed):
    text: str
    words: tuple[_Word, ...] = ()


class _Turn(BaseModel):
    start: float = Field(ge=0, allow_inf_nan=False)
    end: float = Field(ge=0, allow_inf_nan=False)
    speaker: str


class _File(BaseModel):
    """Of both formats; keys that say nothing of the truth are passed over."""

    segments: tuple[_Segment, ...]
    turns: tuple[_Turn, ...] | None = None
    language: str | None = None


def read_json(file: str, text: str) -> JsonTruth:
    """Segments, their words and the turns. Raises InvalidReference with the line, or the place in the document."""
    try:
        content = json.loads(text)
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise InvalidReference(f"{file}, line {line}: not valid JSON ({getattr(error, 'msg', 'unreadable')}).") from None
    if isinstance(content, list):
        content = {"segments": content}
    if not isinstance(content, dict):
        raise InvalidReference(f"{file}, top level: must be an object with `segments`, as WhisperX writes it.")
    try:
        found = _File.model_validate(content)
    except ValidationError as error:
        raise InvalidReference(f"{file}, {_first_fault(error)}") from None
    everything: list[_Segment | _Turn] = [*found.segments, *(found.turns or ())]
    for place, timed in enumerate(everything):
        if timed.start is not None and timed.end is not None and timed.end < timed.start:
            where = f"segments.{place}" if place < len(found.segments) else f"turns.{place - len(found.segments)}"
            raise InvalidReference(f"{file}, {where}: ends at {timed.end:g} s, before it starts at {timed.start:g} s.")
    segments = sorted(found.segments, key=lambda segment: segment.start or 0.0)
    words = tuple(
        Spoken(word.word.strip(), word.start, word.end, word.speaker or segment.speaker)
        for segment in segments
        # Words without a time hold the others' places: the same word is said more than once.
        for word in segment.words or [_Word(word=part) for part in segment.text.split()]
    )
    return JsonTruth(
        utterances=tuple(utterance for segment in segments for utterance in _utterances(segment) if utterance.text),
        words=words if any(word.start is not None for word in words) else None,
        # A transcript that was made without speakers has an empty list: it does not say that nobody spoke.
        turns=tuple((turn.speaker, turn.start, turn.end) for turn in found.turns or ())
        if found.turns or not segments
        else None,
        language=_language(file, found.language),
    )


def _utterances(segment: _Segment) -> list[Utterance]:
    """The segment; or its parts where its words belong to several speakers."""
    speakers = {word.speaker for word in segment.words if word.speaker}
    if not speakers or speakers == {segment.speaker}:
        return [Utterance(segment.speaker, segment.start, segment.end, segment.text.strip())]
    parts: list[list[_Word]] = []
    for word in segment.words:
        if parts and (word.speaker or segment.speaker) == (parts[-1][-1].speaker or segment.speaker):
            parts[-1].append(word)
        else:
            parts.append([word])
    return [
        Utterance(part[0].speaker or segment.speaker, part[0].start, part[-1].end, " ".join(word.word.strip() for word in part))
        for part in parts
    ]


def _language(file: str, language: str | None) -> str | None:
    try:
        return language_code(language) if language else None
    except InvalidOption:
        raise InvalidReference(f"{file}, language: must be a code such as 'en' or the name of a known language.") from None


def _first_fault(error: ValidationError) -> str:
    """Where and what, without the value: it may be the transcript's text."""
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, fault["loc"]))
    needs = "; a reference has `segments` with `text`, as WhisperX writes it" if where == "segments" else ""
    return f"{where}: {fault['msg'][0].lower()}{fault['msg'][1:]}{needs}."
