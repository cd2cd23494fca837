"""A time for every word: from an acoustic model where the language has one here, else from the ASR model itself.

Either way the text is ASR's, untouched: alignment can move words in time, never change or lose one. An aligner is a module here
with a `load` that gives an `Aligner`, and an entry of `speech.registry.ENGINES`.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from speech.align.attention import in_order, own_times
from speech.audio import Recording
from speech.models import require, resolve_align
from speech.registry import Resolved
from speech.schema import WHOLE, AlignParams, AlignResult, AsrResult, AsrSegment, RuntimeOptions, Shard, part_of
from speech.sentences import join_words, separators, split_sentences
from speech.stages import Progress
from speech.stored import read_json
from stenoflow.types import Frozen, Segment, Timing, Word


class Aligner(Protocol):
    """A loaded aligner of one language of a recording."""

    device: str
    """`cpu` or `cuda`."""

    def words(self, segments: Sequence[AsrSegment], recording: Recording) -> Generator[list[Word] | None, None, None]:
        """Each segment's words, each with a time, in order; None when they cannot be aligned with its audio."""


def load(model: Resolved, asr: AsrResult, runtime: RuntimeOptions) -> Aligner:
    """The aligner for a recording's text in `asr.language`; its model is loaded once per process. Raises as `speech.asr.load` does."""
    require(model.engine)
    aligner: Aligner = importlib.import_module(model.engine.module).load(model, asr, runtime)
    return aligner


class TimedWords(Frozen):
    """A shard's chunks, each with its words as the aligner times them; None for one that it cannot align."""

    words: tuple[tuple[Word, ...] | None, ...]


def sentences(segment: AsrSegment, words: Sequence[Word], language: str) -> list[Segment]:
    """A chunk's timed words as one segment per sentence."""
    texts = [word.word for word in words]
    spaces = separators(texts, segment.text, language)
    out = []
    for first, last in split_sentences(texts, language):
        part = tuple(words[first:last])
        out.append(
            Segment(
                start=part[0].start,
                end=max(word.end for word in part),
                text=join_words(texts[first:last], spaces[first:last]),
                avg_logprob=segment.avg_logprob,
                no_speech_prob=segment.no_speech_prob,
                language=segment.language,
                words=part,
            )
        )
    return out


def timed(
    asr: AsrResult, recording: Recording, aligners: Mapping[str, Aligner], progress: Progress, shard: Shard = WHOLE
) -> TimedWords:
    """The words of the shard's chunks as the aligners of their languages time them."""
    begin, end = part_of(len(asr.segments), shard, 1)
    words: list[tuple[Word, ...] | None] = []
    for language, together in groupby(asr.segments[begin:end], key=asr.spoken):
        with closing(aligners[language].words(list(together), recording)) as timings:
            for found in timings:
                words.append(None if found is None else tuple(found))
                progress(len(words) / (end - begin))
    return TimedWords(words=tuple(words))


def align(asr: AsrResult, found: TimedWords | None) -> tuple[list[Segment], list[str]]:
    """Timed sentences and warnings, from what an aligner found, or None for the ASR model's own times."""
    segments: list[Segment] = []
    fallen_back = 0
    floor = 0.0
    for index, segment in enumerate(asr.segments):
        words: Sequence[Word] | None = found.words[index] if found is not None else own_times(asr, segment)
        if words is None:
            fallen_back += 1
            words = own_times(asr, segment)
        words = in_order(words, floor, segment.end)
        if words:
            floor = words[-1].end
            segments += sentences(segment, words, asr.text_language(segment))
    warnings = []
    if fallen_back:
        warnings.append(
            f"{fallen_back} of {len(asr.segments)} chunks could not be aligned with wav2vec2; they have {_WHOSE[asr.timing]} own word times."
        )
    return segments, warnings


_WHOSE: dict[Timing, str] = {"attention": "Whisper's", "tokens": "the ASR model's", "interpolated": "the ASR model's"}


def run(
    inputs: Mapping[str, Path], params: AlignParams, runtime: RuntimeOptions, output: Path, progress: Progress
) -> dict[str, Any]:
    """The `align` stage: audio and text → timed words."""
    asr = _read(inputs)
    models = _resolve(asr, params, runtime)
    found, facts = _found(asr, models, inputs, runtime, progress, WHOLE)
    return _keep(asr, models, found, output) | facts


def run_shard(
    inputs: Mapping[str, Path],
    params: AlignParams,
    runtime: RuntimeOptions,
    output: Path,
    progress: Progress,
    shard: Shard,
) -> dict[str, Any]:
    """The words of the shard's chunks as the aligner times them."""
    asr = _read(inputs)
    found, facts = _found(asr, _resolve(asr, params, runtime), inputs, runtime, progress, shard)
    output.write_text(found.model_dump_json(), encoding="utf-8")
    return facts


def combine(
    inputs: Mapping[str, Path], params: AlignParams, runtime: RuntimeOptions, parts: Sequence[Path], output: Path
) -> dict[str, Any]:
    """The timed words of all shards' chunks. They are put in order only here: a word's start depends on the one before it."""
    asr = _read(inputs)
    words = [chunk for part in parts for chunk in read_json(TimedWords, part).words]
    return _keep(asr, _resolve(asr, params, runtime), TimedWords(words=tuple(words)), output)


def _found(
    asr: AsrResult,
    models: Mapping[str, Resolved],
    inputs: Mapping[str, Path],
    runtime: RuntimeOptions,
    progress: Progress,
    shard: Shard,
) -> tuple[TimedWords, dict[str, Any]]:
    """What the aligners find, and facts of the run."""
    begin, end = part_of(len(asr.segments), shard, 1)
    if begin == end:
        progress(1.0)
        return TimedWords(words=()), {"load_seconds": 0.0, "device": "cpu"}
    began = time.perf_counter()
    spoken = dict.fromkeys(map(asr.spoken, asr.segments[begin:end]))
    aligners = {language: load(models[language], asr.model_copy(update={"language": language}), runtime) for language in spoken}
    loaded = time.perf_counter() - began
    with Recording(inputs["audio"]) as recording:
        found = timed(asr, recording, aligners, progress, shard)
    return found, {"load_seconds": round(loaded, 3), "device": next(iter(aligners.values())).device}


def _keep(asr: AsrResult, models: Mapping[str, Resolved], found: TimedWords, output: Path) -> dict[str, Any]:
    segments, warnings = align(asr, found)
    own = asr.model.model_copy(update={"name": f"{asr.timing}:{asr.model.name}"})
    infos = {language: model.info if model.engine.times else own for language, model in models.items()}
    result = AlignResult(
        segments=tuple(segments),
        model=infos.pop(asr.language),
        method=models[asr.language].engine.times or asr.timing,
        others=infos,
        warnings=tuple(warnings),
    )
    output.write_text(result.model_dump_json(), encoding="utf-8")
    return {"words": sum(len(segment.words) for segment in segments), "method": result.method}


def _read(inputs: Mapping[str, Path]) -> AsrResult:
    return read_json(AsrResult, inputs["asr"])


def _resolve(asr: AsrResult, params: AlignParams, runtime: RuntimeOptions) -> dict[str, Resolved]:
    """The aligners by language. The ASR model is known by what ASR recorded, not by its name today."""
    text = Resolved(kind="whisper", name=asr.model.name, revision=asr.model.revision, origin=asr.model.origin)
    return {
        language: resolve_align(
            params.others.get(language, params.model), language, text, models_dir=runtime.models_path, offline=runtime.offline
        )
        for language in asr.languages or (asr.language,)
    }
