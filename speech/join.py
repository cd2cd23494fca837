"""Several channels or tracks of one session, each transcribed by itself → one transcript, with a speaker for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speech.asr import NO_WORDS, listed
from speech.audio import Recording
from speech.bleed import FRAME, Decibels, Said, levels_of, own_words
from speech.glossary import Replacement, replaced
from speech.merge import NO_SPEECH, counts, is_aligned, models_of, spoken, versions
from speech.schema import AlignResult, AsrResult, Diarization, JoinParams, RuntimeOptions, StreamParams
from speech.sentences import join_words, separators
from speech.stored import read_json, reading
from stenoflow.types import Segment, Stretch, Transcript, Turn, Word

if TYPE_CHECKING:
    from speech.stages import Progress

_BREATH = 0.5
"""Seconds between words at which a turn ends, and a segment where somebody else begins to speak."""
_AWAY = 1.5
"""Seconds between words at which a segment ends whose words between them bled in from elsewhere."""


@dataclass(frozen=True)
class Stream:
    """What was found on one channel or track."""

    about: StreamParams
    asr: AsrResult
    alignment: AlignResult | None
    diarization: Diarization | None
    duration: float
    levels: Decibels

    @property
    def called(self) -> str:
        return self.about.name or f"channel {self.about.channel}"


def run(
    inputs: Mapping[str, Path], params: JoinParams, runtime: RuntimeOptions, output: Path, progress: Progress
) -> dict[str, Any]:
    """The stage's door: reads `audio`, the whole, and `audio-1`, `asr-1` … of each stream; writes the transcript."""
    streams = []
    for number, about in enumerate(params.streams, 1):
        alignment, diarization = inputs.get(f"alignment-{number}"), inputs.get(f"diarization-{number}")
        path = inputs[f"audio-{number}"]
        with reading(path), Recording(path) as recording:
            duration, levels = recording.duration, levels_of(recording)
        streams.append(
            Stream(
                about,
                read_json(AsrResult, inputs[f"asr-{number}"]),
                read_json(AlignResult, alignment) if alignment else None,
                read_json(Diarization, diarization) if diarization else None,
                duration,
                levels,
            )
        )
        progress(number / (len(params.streams) + 1))
    with reading(inputs["audio"]), Recording(inputs["audio"]) as whole:
        duration = whole.duration
    transcript = join(duration, streams, params.options, params.replacements)
    output.write_text(transcript.model_dump_json(), encoding="utf-8")
    progress(1.0)
    return counts(transcript)


def join(
    duration: float, streams: Sequence[Stream], options: dict[str, Any], replacements: Sequence[Replacement] = ()
) -> Transcript:
    """One transcript of what was said on all streams. `duration` of the whole, in seconds.

    Segments are in order of their starts; those of different speakers may overlap. What bled from one stream into another is left out
    of the other.
    """
    found = [spoken(stream.duration, stream.asr, stream.alignment, stream.diarization) for stream in streams]
    words = [[word for segment in segments for word in segment.words] for segments, _ in found]
    own = own_words([Said(each, stream.levels) for each, stream in zip(words, streams, strict=True)])
    segments: list[Segment] = []
    turns: list[Turn] = []
    names: dict[str, str] = {}
    speakers: list[str] = []
    for stream, (theirs, diarized), kept in zip(streams, found, own, strict=True):
        labels = _labels(diarized, len(speakers))
        speakers += labels.values()
        if stream.about.name:
            names |= _names(stream.about.name, labels)
        parts = [part.model_copy(update={"language": stream.asr.spoken(part)}) for part in theirs]
        mine = [_labelled(part, labels, stream.about.channel) for part in _kept(parts, kept, stream.asr.text_language)]
        mine = replaced(mine, replacements, stream.asr.text_language)
        turns += _turns(mine, diarized, labels)
        segments += mine
    heard = max(streams, key=_said_most)
    segments = _in_order(segments, heard.asr.text_language)
    languages = tuple(dict.fromkeys(segment.language for segment in segments if segment.language))
    if len(languages) < 2:
        segments = [segment.model_copy(update={"language": None}) for segment in segments]
    if not all(is_aligned(stream.alignment) for stream in streams if stream.asr.segments):
        segments = [segment.model_copy(update={"words": ()}) for segment in segments]
    untranscribed = _untranscribed(streams)
    return Transcript(
        language=heard.asr.language,
        language_probability=heard.asr.language_probability,
        languages=languages if len(languages) > 1 else (),
        duration=round(duration, 3),
        segments=tuple(segments),
        word_segments=tuple(word for segment in segments for word in segment.words),
        turns=tuple(sorted(turns, key=lambda turn: (turn.start, turn.end))),
        speakers=tuple(speakers) if segments else (),
        speaker_names=names if segments else {},
        untranscribed=untranscribed,
        options=options,
        models=models_of(heard.asr, heard.alignment, heard.diarization),
        versions=versions(),
        warnings=_warnings(streams, untranscribed, segments),
    )


def _said_most(stream: Stream) -> int:
    return sum(len(segment.words) for segment in stream.asr.segments)


# -- speakers -----------------------------------------------------------------------------------------------------------


def _labels(turns: Sequence[Turn], before: int) -> dict[str | None, str]:
    """Of the stream's own speakers, or of its only one, the labels that they have in the transcript."""
    own: Iterable[str | None] = dict.fromkeys(turn.speaker for turn in turns) or (None,)
    return {speaker: f"SPEAKER_{before + index:02}" for index, speaker in enumerate(own)}


def _names(name: str, labels: Mapping[str | None, str]) -> dict[str, str]:
    if len(labels) == 1:
        return dict.fromkeys(labels.values(), name)
    return {label: f"{name} ({number})" for number, label in enumerate(labels.values(), 1)}


def _labelled(segment: Segment, labels: Mapping[str | None, str], channel: int | None) -> Segment:
    speaker = labels[segment.speaker]
    words = tuple(Word(**(vars(word) | {"speaker": speaker, "speaker_source": word.speaker_source})) for word in segment.words)
    return segment.model_copy(update={"speaker": speaker, "words": words, "channel": channel})


def _turns(segments: Sequence[Segment], diarized: Sequence[Turn], labels: Mapping[str | None, str]) -> list[Turn]:
    """The diarized turns of the stream; of its only speaker the words without the breaths between them."""
    if diarized:
        return [turn.model_copy(update={"speaker": labels[turn.speaker]}) for turn in diarized]
    spans = sorted((part.start, part.end) for segment in segments for part in (segment.words or (segment,)))
    turns: list[Turn] = []
    for start, end in spans:
        if turns and start - turns[-1].end <= _BREATH:
            turns[-1] = turns[-1].model_copy(update={"end": max(turns[-1].end, end)})
        elif end > start:
            turns.append(Turn(start=start, end=end, speaker=labels[None]))
    return turns


# -- words --------------------------------------------------------------------------------------------------------------


def _kept(segments: Sequence[Segment], own: Sequence[bool], language: Callable[[Segment], str]) -> Iterator[Segment]:
    """The segments without the words that bled in."""
    at = 0
    for segment in segments:
        kept = own[at : at + len(segment.words)]
        at += len(segment.words)
        if all(kept):
            yield segment
            continue
        chosen = [index for index, mine in enumerate(kept) if mine]
        cuts = [
            place
            for place, (one, other) in enumerate(pairwise(chosen), 1)
            if other > one + 1 and segment.words[other].start - segment.words[one].end > _AWAY
        ]
        for begin, end in pairwise([0, *cuts, len(chosen)]):
            if begin < end:
                yield _part(segment, chosen[begin:end], language(segment))


def _part(segment: Segment, chosen: Sequence[int], language: str) -> Segment:
    """Some of the segment's words as a segment."""
    texts = [word.word for word in segment.words]
    spaces = separators(texts, segment.text, language)
    words = tuple(segment.words[index] for index in chosen)
    return segment.model_copy(
        update={
            "start": words[0].start,
            "end": max(word.end for word in words),
            "text": join_words([texts[index] for index in chosen], [spaces[index] for index in chosen]),
            "words": words,
        }
    )


def _in_order(segments: Sequence[Segment], language: Callable[[Segment], str]) -> list[Segment]:
    """By their starts, each cut where it pauses for somebody else to begin."""
    begins = sorted((segment.start, segment.speaker or "") for segment in segments)
    parts: list[Segment] = []
    for segment in segments:
        others = np.asarray([start for start, speaker in begins if speaker != segment.speaker])
        cuts = [
            index
            for index, (word, after) in enumerate(pairwise(segment.words), 1)
            if after.start - word.end >= _BREATH and np.searchsorted(others, word.end) < np.searchsorted(others, after.start)
        ]
        ranges = [range(begin, end) for begin, end in pairwise([0, *cuts, len(segment.words)])]
        parts += [_part(segment, chosen, language(segment)) for chosen in ranges] if cuts else [segment]
    return sorted(parts, key=lambda segment: (segment.start, segment.end))


# -- warnings -----------------------------------------------------------------------------------------------------------


def _untranscribed(streams: Sequence[Stream]) -> tuple[Stretch, ...]:
    """Where someone seems to speak without words on the stream that is the loudest there; elsewhere it is another's voice."""
    found: list[Stretch] = []
    for stream in streams:
        for stretch in stream.asr.untranscribed:
            part = slice(int(stretch.start / FRAME), int(stretch.end / FRAME))
            loudest = max(
                streams, key=lambda other: float(np.mean(10 ** (other.levels[part] / 10))) if len(other.levels[part]) else 0.0
            )
            if loudest is stream:
                found.append(stretch)
    return tuple(sorted(found, key=lambda stretch: (stretch.start, stretch.end)))


def _warnings(streams: Sequence[Stream], untranscribed: Sequence[Stretch], segments: Sequence[Segment]) -> tuple[str, ...]:
    """Each once; those of one stream with its name."""
    by_text: dict[str, list[Stream]] = {}
    for stream in streams:
        parts = [part for part in (stream.asr, stream.alignment, stream.diarization) if part is not None]
        for warning in dict.fromkeys(warning for part in parts for warning in part.warnings):
            by_text.setdefault(warning, []).append(stream)
    found = [
        warning if len(who) == len(streams) else f"{who[0].called.capitalize()}: {warning}"
        for warning, who in by_text.items()
        if warning != NO_SPEECH and not warning.startswith(NO_WORDS)
    ]
    if not segments:
        return (*found, NO_SPEECH)
    if untranscribed:
        found.append(f"{NO_WORDS} {listed(untranscribed)}.")
    return tuple(found)
