"""One transcript against the truth about its recording: every score that both can give."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from speech.languages import language_of_text
from speech.scoring.normaliser import in_characters, normalise, whisper_normalise
from speech.scoring.references import Reference
from speech.scoring.times import time_errors
from speech.scoring.turns import diarization_errors
from speech.scoring.types import Activity, DiarizationErrors, Scores, ScoringOptions, Span, SpeakerCount, Spoken, WordErrors
from speech.scoring.words import (
    Normaliser,
    speaker_attributed_errors,
    texts_by_speaker,
    time_constrained_errors,
    word_errors,
)
from stenoflow.types import Transcript


def score(
    reference: Reference,
    transcript: Transcript,
    options: ScoringOptions,
    *,
    diarized: bool,
    language: str | None = None,
) -> Scores:
    """Every score of the transcript; `diarized` says whether speakers were requested and are available.

    Texts are normalised by the rules of `language`, else of the truth's, else of the transcript's. Words count where their
    middle lies in what is scored. Needs the engine: rapidfuzz and SciPy.
    """
    language = language or reference.language or language_of_text(transcript)
    counted = reference.counted(transcript.duration)
    everything = reference.scored is None and not reference.ignored
    heard = _transcribed_words(transcript)
    said = [Spoken(part.text, part.start, part.end, part.speaker) for part in reference.utterances or ()]
    if not everything:
        heard, said = _within(heard, counted), _within(said, counted)
    with_text, with_speakers = reference.utterances is not None, diarized and reference.has_speakers
    return Scores(
        words=_words(said, heard, language) if with_text else None,
        whisper_words=_words(said, heard, language, whisper_normalise) if with_text else None,
        speaker_words=_speaker_words(said, heard, language) if with_speakers else None,
        timed_words=time_constrained_errors(said, heard, language) if with_speakers else None,
        diarization=_diarization(reference, transcript, counted, options) if diarized else None,
        speakers=_speakers(reference, transcript, counted) if diarized else None,
        times=time_errors(_within(reference.timed_words, counted), heard, language) if reference.timed_words else None,
        language=language,
        in_characters=in_characters(language),
    )


def _transcribed_words(transcript: Transcript) -> list[Spoken]:
    """The transcript's words in order; its segments where words have no times of their own."""
    return [
        Spoken(part, start, end, speaker)
        for segment in transcript.segments
        for part, start, end, speaker in (
            ((word.word, word.start, word.end, word.speaker) for word in segment.words)
            if segment.words
            else ((segment.text, segment.start, segment.end, segment.speaker),)
        )
    ]


def _words(said: Iterable[Spoken], heard: Iterable[Spoken], language: str, normaliser: Normaliser = normalise) -> WordErrors:
    return word_errors(" ".join(part.word for part in said), " ".join(part.word for part in heard), language, normaliser)


def _speaker_words(said: Iterable[Spoken], heard: Iterable[Spoken], language: str) -> WordErrors:
    truth = {speaker: text for speaker, text in texts_by_speaker(said).items() if speaker is not None}
    return speaker_attributed_errors(truth, texts_by_speaker(heard), language)


def _diarization(
    reference: Reference, transcript: Transcript, counted: Sequence[Span], options: ScoringOptions
) -> DiarizationErrors | None:
    if reference.activity is None:
        return None
    return diarization_errors(reference.activity, _turns(transcript), transcript.duration, scored=counted, options=options)


def _speakers(reference: Reference, transcript: Transcript, counted: Sequence[Span]) -> SpeakerCount | None:
    if reference.activity is None:
        return None
    return SpeakerCount(true=_active(reference.activity, counted), found=_active(_turns(transcript), counted))


def _turns(transcript: Transcript) -> list[Activity]:
    return [(turn.speaker, turn.start, turn.end) for turn in transcript.turns]


def _active(turns: Iterable[Activity], counted: Sequence[Span]) -> int:
    """How many speakers are audible in what is scored."""
    return len({speaker for speaker, start, end in turns for low, high in counted if min(end, high) > max(start, low)})


def _within(parts: Iterable[Spoken], counted: Sequence[Span]) -> list[Spoken]:
    """Words whose middle is scored, and words without times."""

    def counts(part: Spoken) -> bool:
        if part.start is None or part.end is None:
            return True
        middle = (part.start + part.end) / 2
        return any(start <= middle <= end for start, end in counted)

    return [part for part in parts if counts(part)]
