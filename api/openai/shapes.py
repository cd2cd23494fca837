"""A transcript in OpenAI's shapes."""

from __future__ import annotations

import string
import zlib
from collections.abc import Iterator

from pydantic import BaseModel

from api.openai.schemas import (
    AudioForm,
    DiarizedTranscription,
    SpeakerSegment,
    TextDelta,
    TextDone,
    Transcription,
    TranscriptionForm,
    TranscriptSegment,
    TranscriptWord,
    Translation,
    Usage,
    VerboseTranscription,
)
from infra.drafts import Draft
from speech.formats import RenderOptions, render_text
from speech.languages import LANGUAGES, WITHOUT_SPACES, language_of_text
from stenoflow.types import Segment, Transcript

NOBODY = "unknown"


def rendered(transcript: Transcript, form: AudioForm) -> BaseModel | str:
    """The answer to a call: an object, or text."""
    match form.response_format:
        case "srt" | "vtt":
            return render_text(transcript, form.response_format, RenderOptions(layout="whisperx"))
        case "text":
            return f"{text_of(transcript)}\n"
        case "verbose_json":
            return verbose(transcript, form)
        case "json" if not isinstance(form, TranscriptionForm):
            return Translation(text=text_of(transcript))
        case "json":
            return Transcription(text=text_of(transcript), usage=_usage(transcript))
        case _:
            return diarized(transcript)


def text_of(transcript: Transcript) -> str:
    """The whole text, without speakers."""
    return "".join(_pieces(transcript))


def verbose(transcript: Transcript, form: AudioForm) -> VerboseTranscription:
    """`verbose_json`, with what `timestamp_granularities[]` asks for."""
    asked = set(form.timestamp_granularities) if isinstance(form, TranscriptionForm) else set()
    segments = [_segment(number, segment) for number, segment in enumerate(transcript.segments)]
    words = [TranscriptWord(word=word.word, start=word.start, end=word.end) for word in transcript.word_segments]
    return VerboseTranscription(
        task="transcribe" if isinstance(form, TranscriptionForm) else "translate",
        language=LANGUAGES.get(language_of_text(transcript), transcript.language),
        duration=transcript.duration,
        text=text_of(transcript),
        segments=segments if "segment" in asked or not asked else None,
        words=words if "word" in asked else None,
        usage=_usage(transcript),
    )


def diarized(transcript: Transcript) -> DiarizedTranscription:
    """`diarized_json`."""
    return DiarizedTranscription(
        duration=transcript.duration,
        text=text_of(transcript),
        segments=_speaker_segments(transcript),
        usage=_usage(transcript),
    )


def text_of_draft(draft: Draft) -> str:
    """What is found so far, as `text_of` has it."""
    return ("" if draft.language in WITHOUT_SPACES else " ").join(segment.text for segment in draft.segments)


def events(transcript: Transcript, form: TranscriptionForm, said: str = "") -> Iterator[BaseModel]:
    """The text piece by piece, with `diarized_json` each piece's segment after it, and last the whole text.

    Of what was `said` already, only the rest; nothing, if the text is another in the end, as with replacements after recognition.
    """
    parts = _speaker_segments(transcript) if form.response_format == "diarized_json" else None
    pieces = _pieces(transcript)
    if said:
        text = "".join(pieces)
        pieces = [text[len(said) :]] if text.startswith(said) and len(text) > len(said) else []
    for number, piece in enumerate(pieces):
        yield TextDelta(delta=piece, segment_id=parts[number].id if parts else None)
        if parts:
            yield parts[number]
    yield TextDone(text=text_of(transcript))


def _pieces(transcript: Transcript) -> list[str]:
    """Each segment's text, with what separates it from the one before."""
    spaces = ["" if language_of_text(transcript, segment) in WITHOUT_SPACES else " " for segment in transcript.segments]
    pieces = enumerate(zip(spaces, transcript.segments, strict=True))
    return [f"{space if number else ''}{segment.text}" for number, (space, segment) in pieces]


def _usage(transcript: Transcript) -> Usage:
    return Usage(seconds=transcript.duration)


def _segment(number: int, segment: Segment) -> TranscriptSegment:
    text = segment.text.encode()
    return TranscriptSegment(
        id=number,
        seek=round(segment.start * 100),
        start=segment.start,
        end=segment.end,
        text=segment.text,
        tokens=[],
        temperature=0.0,
        avg_logprob=segment.avg_logprob or 0.0,
        # As OpenAI's whisper/utils.py has it.
        compression_ratio=round(len(text) / len(zlib.compress(text)), 4),
        no_speech_prob=segment.no_speech_prob or 0.0,
    )


def _speaker_segments(transcript: Transcript) -> list[SpeakerSegment]:
    speakers = dict.fromkeys(segment.speaker for segment in transcript.segments if segment.speaker is not None)
    recognised = {label: match.name for label, match in transcript.speaker_matches.items()}
    others = [speaker for speaker in speakers if speaker not in recognised]
    called = recognised | {speaker: _letters(place) for place, speaker in enumerate(others)}
    return [
        SpeakerSegment(
            id=f"seg_{number:03d}",
            start=segment.start,
            end=segment.end,
            text=segment.text,
            speaker=called[segment.speaker] if segment.speaker is not None else NOBODY,
        )
        for number, segment in enumerate(transcript.segments)
    ]


def _letters(place: int) -> str:
    """A, B, …, Z, AA, AB, …"""
    more, last = divmod(place, 26)
    return (_letters(more - 1) if more else "") + string.ascii_uppercase[last]
