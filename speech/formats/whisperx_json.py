"""WhisperX's JSON, with what else is known of the transcript beside it."""

from __future__ import annotations

import json as _json
from typing import Any

from speech.formats.options import RenderOptions
from speech.formats.speakers import chosen_names
from stenoflow.types import Segment, Transcript, Word


def json(transcript: Transcript, options: RenderOptions) -> str:
    """One object: WhisperX's `segments`, `word_segments` and `language`, then our own keys.

    As in WhisperX a key without a value is left out, `words` is there whenever the transcript was aligned, the object is on
    one line and characters are not escaped.
    """
    aligned = bool(transcript.word_segments)
    content: dict[str, Any] = {
        "segments": [_segment(segment, aligned) for segment in transcript.segments],
        "word_segments": [_word(word) for word in transcript.word_segments],
        "language": transcript.language,
        "language_probability": transcript.language_probability,
        "languages": list(transcript.languages) or None,
        "duration": transcript.duration,
        "turns": [turn.model_dump() for turn in transcript.turns],
        "speakers": list(transcript.speakers),
        "speaker_names": chosen_names(transcript, options) or None,
        "speaker_matches": {label: match.model_dump() for label, match in transcript.speaker_matches.items()} or None,
        "untranscribed": [stretch.model_dump() for stretch in transcript.untranscribed] or None,
        "options": transcript.options,
        "models": {name: model.model_dump() for name, model in transcript.models.items()},
        "versions": transcript.versions,
        "warnings": list(transcript.warnings),
    }
    return _json.dumps(_without_none(content), ensure_ascii=False, allow_nan=False)


def _segment(segment: Segment, aligned: bool) -> dict[str, Any]:
    words = {"words": [_word(word) for word in segment.words]} if aligned else {}
    fields = {"start": segment.start, "end": segment.end, "text": segment.text, **words}
    known = {
        "avg_logprob": segment.avg_logprob,
        "speaker": segment.speaker,
        "channel": segment.channel,
        "language": segment.language,
    }
    return _without_none({**fields, **known})


def _word(word: Word) -> dict[str, Any]:
    fields = {"word": word.word, "start": word.start, "end": word.end, "score": word.score, "speaker": word.speaker}
    return _without_none({**fields, "timing": word.timing, "speaker_source": word.speaker_source})


def _without_none(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
