"""The `asr` stage: an engine over a recording's planned chunks, undivided or in shards, and the result that they make together.

An engine is a module here with a `load` that gives an `Engine`, and an entry of `speech.registry.ENGINES`.
"""

from __future__ import annotations

import importlib
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from speech import chunks as planning
from speech.asr.unworded import seconds
from speech.audio import Recording
from speech.diarize.segmentation import Segmentation
from speech.languages import only_language
from speech.models import require, resolve_asr
from speech.registry import Resolved
from speech.schema import (
    WHOLE,
    AsrParams,
    AsrResult,
    AsrSegment,
    AsrWord,
    Chunk,
    Foreign,
    Region,
    RuntimeOptions,
    Shard,
)
from speech.stages import Progress
from speech.stored import read_json
from stenoflow.errors import OutOfMemory
from stenoflow.types import Frozen, ModelInfo, Stretch, Timing

UNDETERMINED = "und"
"""Language of a recording without speech, or when the model does not report it (ISO 639-2)."""
UNSURE = 0.5
MOST_LISTED = 10
"""Places that a warning lists."""
NO_WORDS = "Someone seems to speak, but no words were recognized, at"


class Transcribed(Frozen):
    """The text of a shard's chunks, and the language of the whole recording: every shard detects it on the same chunks.

    Each segment says its own language, if the model reports it."""

    segments: tuple[AsrSegment, ...]
    language: str | None = None
    """None without speech, or when the model does not report it."""
    language_probability: float | None = None
    multilingual: bool
    model: ModelInfo
    timing: Timing = "attention"
    """What the words' times come from."""
    incomplete: tuple[Region, ...] = ()
    """Where the text may stop before the speech does, since the decoder reached its limit."""
    foreign: tuple[Foreign, ...] = ()
    """What sounds like another language than the one that was asked for."""
    untranscribed: tuple[Stretch, ...] = ()
    """Where someone speaks and the text has no words."""
    warnings: tuple[str, ...] = ()


class Engine(Protocol):
    """A loaded ASR model. It may be used by several threads at once."""

    device: str
    """`cpu` or `cuda`."""

    def chunks_at_once(self, params: AsrParams, runtime: RuntimeOptions) -> int:
        """Chunks for one of the runtime's workers, for a request that names no number."""

    def transcribe(
        self,
        recording: Recording,
        plan: Sequence[Chunk],
        params: AsrParams,
        batch_size: int,
        progress: Progress,
        shard: Shard = WHOLE,
    ) -> Transcribed:
        """The text of those of the planned chunks (of at most 30 s) that are the shard's, at most `batch_size` at work at any time.

        Every word of a segment's text is in its words, in order; where there are none, `untranscribed` (`speech.asr.unworded`) says so. How the chunks are batched must not change what is found.
        """


def load(model: Resolved, runtime: RuntimeOptions) -> Engine:
    """The model, loaded once per process. Raises EngineMissing where what it runs on is not installed, and what `speech.weights` raises."""
    require(model.engine)
    engine: Engine = importlib.import_module(model.engine.module).load(model, runtime)
    return engine


def run(
    inputs: Mapping[str, Path], params: AsrParams, runtime: RuntimeOptions, output: Path, progress: Progress
) -> dict[str, Any]:
    """The `asr` stage: audio and segmentation → text."""
    part, facts = _transcribed(inputs, params, runtime, progress, WHOLE)
    return _keep([part], params, output) | facts


def run_shard(
    inputs: Mapping[str, Path],
    params: AsrParams,
    runtime: RuntimeOptions,
    output: Path,
    progress: Progress,
    shard: Shard,
) -> dict[str, Any]:
    """The text of the shard's chunks."""
    part, facts = _transcribed(inputs, params, runtime, progress, shard)
    output.write_text(part.model_dump_json(), encoding="utf-8")
    return facts | {"language": part.language}


def combine(
    inputs: Mapping[str, Path], params: AsrParams, runtime: RuntimeOptions, parts: Sequence[Path], output: Path
) -> dict[str, Any]:
    """The text of all shards' chunks."""
    return _keep([read_json(Transcribed, part) for part in parts], params, output)


def _transcribed(
    inputs: Mapping[str, Path], params: AsrParams, runtime: RuntimeOptions, progress: Progress, shard: Shard
) -> tuple[Transcribed, dict[str, Any]]:
    resolved = resolve_asr(
        params.model, params.language, models_dir=runtime.models_path, offline=runtime.offline, task=params.task
    )
    plan = planning.plan(Segmentation.load(inputs["segmentation"]))
    began = time.perf_counter()
    engine = load(resolved, runtime)
    loaded = time.perf_counter() - began
    with Recording(inputs["audio"]) as recording:
        batch_size = runtime.batch_size or engine.chunks_at_once(params, runtime)
        try:
            part = engine.transcribe(recording, plan, params, batch_size, progress, shard)
        except OutOfMemory as error:
            error.tried = batch_size
            raise
    return part, {"load_seconds": round(loaded, 3), "device": engine.device, "batch_size": batch_size}


def _keep(parts: Sequence[Transcribed], params: AsrParams, output: Path) -> dict[str, Any]:
    result = assembled(parts, params)
    output.write_text(result.model_dump_json(), encoding="utf-8")
    return {
        "language": result.language,
        **({"languages": list(result.languages)} if result.languages else {}),
        "segments": len(result.segments),
        "words": sum(len(segment.words) for segment in result.segments),
    }


def assembled(parts: Sequence[Transcribed], params: AsrParams) -> AsrResult:
    """The result of all of a recording's shards, in order.

    A recording without words has no language but the one that was asked for: music is not Romanian.
    """
    segments, languages = _by_language([segment for part in parts for segment in part.segments])
    heard = next((part for part in parts if part.language is not None), parts[0])
    language, probability = heard.language, heard.language_probability
    warnings = [*parts[0].warnings]
    if not segments:
        language = only_language(params.language) or (UNDETERMINED if parts[0].multilingual else "en")
        probability = None
        warnings = ["No speech was found."]
    elif len(languages) > 1:
        language = _most_spoken(segments)
        probability = None
    elif languages and languages != [language]:
        language, probability = languages[0], None
    elif probability is not None and probability < UNSURE:
        warnings.append(
            f"The language was detected as {language!r} with a probability of only {probability:.2f}; give `language` if it is another."
        )
    incomplete = [region for part in parts for region in part.incomplete]
    if incomplete:
        warnings.append(f"The model reached its limit of tokens; the text may be incomplete at {listed(incomplete)}.")
    foreign = [stretch for part in parts for stretch in part.foreign]
    if foreign and segments:
        others = [f"{code!r} at {listed([one for one in foreign if one.language == code])}" for code in _in_order(foreign)]
        warnings.append(
            f"The language was given as {language!r}, but the recording sounds like {', '.join(others)}; "
            f"give `language` as a list ('{','.join([str(language), *_in_order(foreign)])}'), or omit it."
        )
    untranscribed = tuple(stretch for part in parts for stretch in part.untranscribed)
    if untranscribed and segments:
        warnings.append(f"{NO_WORDS} {listed(untranscribed)}.")
    return AsrResult(
        language=language or UNDETERMINED,
        language_probability=probability,
        task=params.task,
        languages=tuple(languages) if len(languages) > 1 else (),
        segments=tuple(segments),
        model=parts[0].model,
        timing=parts[0].timing,
        untranscribed=untranscribed,
        warnings=tuple(warnings),
    )


def _by_language(segments: Sequence[AsrSegment]) -> tuple[list[AsrSegment], list[str]]:
    """The segments and their languages in order of speech; where there is one language for all, no segment says it."""
    languages = _in_order(segments)
    if len(languages) > 1:
        return list(segments), languages
    return [segment.model_copy(update={"language": None}) for segment in segments], languages


def _in_order(parts: Iterable[AsrSegment | Foreign]) -> list[str]:
    """The languages of the parts, each once."""
    return list(dict.fromkeys(part.language for part in parts if part.language is not None))


def _most_spoken(segments: Sequence[AsrSegment]) -> str | None:
    """The language with most seconds of voice; of equals, the first."""
    spoken: Counter[str | None] = Counter()
    for segment in segments:
        spoken[segment.language] += round(1000 * seconds(segment.regions))
    return max(spoken, key=lambda language: spoken[language])


def listed(regions: Sequence[Region | Stretch | Foreign]) -> str:
    """The first few of them, in seconds, and how many more there are."""
    times = ", ".join(f"{region.start:.1f}–{region.end:.1f} s" for region in regions[:MOST_LISTED])
    more = len(regions) - MOST_LISTED
    return f"{times} and {more} more" if more > 0 else times


def timed_words(text: str, pieces: Sequence[Mapping[str, Any]], chunk: Chunk, spaced: bool) -> list[AsrWord]:
    """The text's own words, each spanning the pieces of tokens it is made of: mappings with `word`, `start` and `end` in seconds of
    the chunk, and `probability`.

    The pieces split at punctuation (`twenty`, `-one`) and carry spaces; the text's words are what a reader sees. Both are
    walked by characters, so that no character of the text can be lost.
    """
    words = text.split() if spaced else [character for character in text if not character.isspace()]
    owner = [piece for piece in pieces for character in piece["word"] if not character.isspace()]
    timed: list[AsrWord] = []
    at = 0
    for word in words:
        mine = owner[at : at + len(word)] or owner[-1:]
        at += len(word)
        start = chunk.start + float(mine[0]["start"]) if mine else chunk.start
        end = chunk.start + float(mine[-1]["end"]) if mine else chunk.end
        score = float(np.mean([piece["probability"] for piece in mine])) if mine else 0.0
        start = min(max(start, chunk.start), chunk.end)
        timed.append(
            AsrWord(word=word, start=round(start, 3), end=round(min(max(end, start), chunk.end), 3), score=round(score, 3))
        )
    return timed
