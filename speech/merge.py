"""Words × speaker turns → segments with one speaker each; the last stage before rendering."""

from __future__ import annotations

import importlib.metadata
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speech.attribution import attributed
from speech.glossary import Replacement, replaced
from speech.registry import ENGINES
from speech.schema import AlignResult, AsrResult, Diarization, MergeParams, RuntimeOptions
from speech.sentences import join_words, separators
from stenoflow.types import ModelInfo, Segment, Transcript, Turn, Word

if TYPE_CHECKING:
    from speech.stages import Progress
from speech.stored import read_json, reading

NO_SPEECH = "No speech was found."
NO_TURNS = "No speech was attributed to a speaker: diarization found no speaker turn."
NO_DIARIZATION = "No speech was attributed to a speaker: diarization failed."
TEXT_CHANGED = "The aligned words differ from the recognised text; some of it may be missing."

PACKAGES = ("stenoflow", "whisperx", "faster-whisper", "ctranslate2", "pyannote.audio", "torch")


def run(
    inputs: Mapping[str, Path], params: MergeParams, runtime: RuntimeOptions, output: Path, progress: Progress
) -> dict[str, Any]:
    """The stage's door: reads the artifacts there are, writes the transcript, returns counts."""
    import soundfile

    alignment, diarization = inputs.get("alignment"), inputs.get("diarization")
    with reading(inputs["audio"]):
        duration = soundfile.info(str(inputs["audio"])).duration
    transcript = merge(
        duration,
        read_json(AsrResult, inputs["asr"]),
        read_json(AlignResult, alignment) if alignment else None,
        read_json(Diarization, diarization) if diarization else None,
        params.options,
        params.replacements,
    )
    output.write_text(transcript.model_dump_json(), encoding="utf-8")
    progress(1.0)
    return counts(transcript)


def counts(transcript: Transcript) -> dict[str, Any]:
    """The facts of a transcript that its artifact's reference carries."""
    return {
        "language": transcript.language,
        **({"languages": list(transcript.languages)} if transcript.languages else {}),
        "duration": transcript.duration,
        "segments": len(transcript.segments),
        "words": len(transcript.word_segments),
        "speakers": len(transcript.speakers),
        "warnings": len(transcript.warnings),
    }


def merge(
    audio_duration: float,
    asr: AsrResult,
    alignment: AlignResult | None,
    diarization: Diarization | None,
    options: dict[str, Any],
    replacements: Sequence[Replacement] = (),
) -> Transcript:
    """One transcript of what the branches found. `audio_duration` in seconds.

    Every word keeps its text and its place in the text; starts never decrease, and no word ends before it starts.
    Without alignment a segment is a chunk of ASR, or one speaker's part of it, without words.
    """
    segments, turns = spoken(audio_duration, asr, alignment, diarization)
    recognised = segments
    segments = replaced(recognised, replacements, asr.text_language)
    if not is_aligned(alignment):
        segments = [segment.model_copy(update={"words": ()}) for segment in segments]
    return Transcript(
        language=asr.language,
        language_probability=asr.language_probability,
        languages=asr.languages,
        duration=round(audio_duration, 3),
        segments=tuple(segments),
        word_segments=tuple(word for segment in segments for word in segment.words),
        turns=turns,
        speakers=tuple(dict.fromkeys(turn.speaker for turn in turns)),
        untranscribed=asr.untranscribed,
        options=options,
        models=models_of(asr, alignment, diarization),
        versions=versions(),
        warnings=_warnings(asr, alignment, diarization, segments, recognised, bool(options.get("diarize"))),
    )


def is_aligned(alignment: AlignResult | None) -> bool:
    """Whether words have times. Without, those that `spoken` gives them are rough."""
    return alignment is not None and bool(alignment.segments)


def spoken(
    audio_duration: float, asr: AsrResult, alignment: AlignResult | None, diarization: Diarization | None
) -> tuple[list[Segment], tuple[Turn, ...]]:
    """Who said what when: segments with one speaker each, and the speakers' turns. Words that are not aligned have rough times."""
    source = alignment.segments if alignment is not None and alignment.segments else _chunks(asr)
    segments = _orderly([segment for segment in source if segment.words or segment.text.strip()], audio_duration)
    # Where nothing was said, nobody spoke: music can sound like a voice to the segmentation.
    turns = _clipped(diarization.turns, audio_duration) if diarization and segments else ()
    if diarization and turns:
        segments = attributed(segments, turns, _clipped(diarization.exclusive_turns, audio_duration))
    return [part for segment in segments for part in _by_speaker(segment, asr.text_language(segment))], turns


# -- time ---------------------------------------------------------------------------------------------------------------


def _chunks(asr: AsrResult) -> tuple[Segment, ...]:
    """The chunks as segments. Their words' rough times only serve to cut a chunk of 30 s where the speaker changes."""
    chunks: list[Segment] = []
    for chunk in asr.segments:
        whole = _bare_text(word.word for word in chunk.words) == _bare_text([chunk.text])
        words = tuple(Word(**vars(word), timing=asr.timing, speaker_source=None) for word in chunk.words) if whole else ()
        chunks.append(
            Segment(
                start=chunk.start,
                end=chunk.end,
                text=chunk.text,
                avg_logprob=chunk.avg_logprob,
                no_speech_prob=chunk.no_speech_prob,
                language=chunk.language,
                words=words,
            )
        )
    return tuple(chunks)


def _clipped(turns: Sequence[Turn], duration: float) -> tuple[Turn, ...]:
    """The turns in order of time, to the millisecond, inside the recording; empty ones dropped."""
    inside = (
        Turn(start=round(max(turn.start, 0.0), 3), end=round(min(turn.end, duration), 3), speaker=turn.speaker)
        for turn in turns
    )
    return tuple(sorted((turn for turn in inside if turn.end > turn.start), key=lambda turn: (turn.start, turn.end)))


def _orderly(segments: Sequence[Segment], duration: float) -> list[Segment]:
    """The same segments and words with times inside the recording, to the millisecond, that never run backwards."""
    words = iter(_orderly_words([word for segment in segments for word in segment.words], duration))
    result: list[Segment] = []
    last = 0.0
    for segment in segments:
        own = tuple(next(words) for _ in segment.words)
        start = own[0].start if own else round(min(max(segment.start, last), duration), 3)
        end = max(word.end for word in own) if own else round(min(max(segment.end, start), max(duration, start)), 3)
        last = own[-1].start if own else start
        result.append(segment.model_copy(update={"start": start, "end": end, "words": own}))
    return result


def _orderly_words(words: Sequence[Word], duration: float) -> list[Word]:
    """A word whose start does not fit the others' order is moved between its neighbours, and says so.

    Only the outlier moves: clamping each start to the one before would drag all later words along with one late outlier.
    """
    keep = _longest_rising([word.start for word in words])
    following = np.minimum.accumulate([words[i].start if i in keep else np.inf for i in range(len(words))][::-1])[::-1]
    result: list[Word] = []
    last = 0.0
    for index, word in enumerate(words):
        length = max(word.end - word.start, 0.0)
        start = min(max(word.start, last, 0.0), duration)
        end = min(start + length, duration)
        moved = index not in keep
        if moved:
            start = max(min(start, float(following[index])), last)
            end = max(min(start + length, float(following[index]), duration), start)
        last = round(start, 3)
        times = {"start": last, "end": max(round(end, 3), last)} | ({"timing": "interpolated"} if moved else {})
        # Made anew: pydantic's model_copy costs several times as much, and there are tens of thousands.
        result.append(Word(**(vars(word) | times | {"word": word.word.strip()})))
    return result


def _longest_rising(values: Sequence[float]) -> set[int]:
    """Indices of a longest non-decreasing subsequence (patience sorting, O(n log n))."""
    tails: list[float] = []
    tail_index: list[int] = []
    before: list[int] = []
    for index, value in enumerate(values):
        at = bisect_right(tails, value)
        before.append(tail_index[at - 1] if at else -1)
        tails[at : at + 1] = [value]
        tail_index[at : at + 1] = [index]
    chosen: set[int] = set()
    index = tail_index[-1] if tail_index else -1
    while index >= 0:
        chosen.add(index)
        index = before[index]
    return chosen


def _by_speaker(segment: Segment, language: str) -> list[Segment]:
    """The segment cut where the speaker changes, its text rebuilt from the words with the spacing it had."""
    if not segment.words:
        return [segment.model_copy(update={"text": " ".join(segment.text.split())})]
    texts = [word.word for word in segment.words]
    spaces = separators(texts, segment.text, language)
    parts: list[Segment] = []
    at = 0
    for speaker, group in groupby(segment.words, key=lambda word: word.speaker):
        words = tuple(group)
        part = slice(at, at + len(words))
        at = part.stop
        update = {
            "start": words[0].start,
            "end": max(word.end for word in words),
            "text": join_words(texts[part], spaces[part]),
            "speaker": speaker,
            "words": words,
        }
        parts.append(segment.model_copy(update=update))
    return parts


# -- provenance ---------------------------------------------------------------------------------------------------------


def models_of(asr: AsrResult, alignment: AlignResult | None, diarization: Diarization | None) -> dict[str, ModelInfo]:
    models = {"asr": asr.model}
    if alignment is not None:
        models["align"] = alignment.model
        models |= {f"align:{language}": model for language, model in alignment.others.items() if model != alignment.model}
    return models | (diarization.models if diarization else {})


def versions() -> dict[str, str]:
    found: dict[str, str] = {}
    optional = [package for engine in ENGINES.values() if engine.extra not in ("cpu", "gpu") for package in engine.runs_on]
    for package in dict.fromkeys((*PACKAGES, *optional)):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _warnings(
    asr: AsrResult,
    alignment: AlignResult | None,
    diarization: Diarization | None,
    segments: Sequence[Segment],
    recognised: Sequence[Segment],
    diarize: bool,
) -> tuple[str, ...]:
    """All stages' warnings, each once, and what only shows when they are put together."""
    found = [warning for part in (asr, alignment, diarization) if part is not None for warning in part.warnings]
    if not segments:
        said = any(NO_SPEECH.rstrip(".").lower() in warning.lower() for warning in found)
        return tuple(dict.fromkeys(found if said else [*found, NO_SPEECH]))
    if all(segment.speaker is None for segment in segments) and (diarization is not None or diarize):
        found.append(NO_TURNS if diarization is not None else NO_DIARIZATION)
    if alignment is not None and _bare_text(segment.text for segment in recognised) != _bare_text(
        chunk.text for chunk in asr.segments
    ):
        found.append(TEXT_CHANGED)
    return tuple(dict.fromkeys(found))


def _bare_text(texts: Iterable[str]) -> str:
    """The texts' characters without whitespace."""
    return "".join("".join(text.split()) for text in texts)
