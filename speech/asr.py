"""The `asr` stage: Whisper over a recording's planned chunks, undivided or in shards, and the result that they make together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speech import chunks as planning
from speech.audio import Recording
from speech.memory import chunks_at_once
from speech.models import resolve_asr
from speech.schema import AsrParams, AsrResult, RuntimeOptions, Shard
from speech.segmentation import Segmentation
from speech.shards import WHOLE
from speech.stages import Progress
from speech.stored import read_json
from speech.whisper import Transcribed, Transcriber, batches_at_once, load_whisper

UNDETERMINED = "und"
"""Language of a recording in which nobody speaks (ISO 639-2)."""
UNSURE = 0.5


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
    models_dir = runtime.models_path
    resolved = resolve_asr(params.model, params.language, models_dir=models_dir, offline=runtime.offline)
    plan = planning.plan(Segmentation.load(inputs["segmentation"]))
    began = time.perf_counter()
    model = load_whisper(resolved, models_dir, runtime)
    loaded = time.perf_counter() - began
    with Recording(inputs["audio"]) as recording:
        transcriber = Transcriber(model, resolved.info, params, batches_at_once(runtime))
        batch_size = runtime.batch_size or chunks_at_once(model, resolved.info, params.beam_size, runtime.workers)
        part = transcriber.transcribe(recording, plan, batch_size, progress, shard)
    facts = {"load_seconds": round(loaded, 3), "device": str(model.model.device), "batch_size": batch_size}
    return part, facts


def _keep(parts: Sequence[Transcribed], params: AsrParams, output: Path) -> dict[str, Any]:
    result = assembled(parts, params)
    output.write_text(result.model_dump_json(), encoding="utf-8")
    return {
        "language": result.language,
        "segments": len(result.segments),
        "words": sum(len(segment.words) for segment in result.segments),
    }


def assembled(parts: Sequence[Transcribed], params: AsrParams) -> AsrResult:
    """The result of all of a recording's shards, in order.

    A recording without words has no language but the one that was asked for: music is not Romanian.
    """
    segments = [segment for part in parts for segment in part.segments]
    heard = next((part for part in parts if part.language is not None), parts[0])
    language, probability = heard.language, heard.language_probability
    warnings: tuple[str, ...] = ()
    if not segments:
        language = params.language or (UNDETERMINED if parts[0].multilingual else "en")
        probability = None
        warnings = ("No speech was found.",)
    elif probability is not None and probability < UNSURE:
        warnings = (
            f"The language was detected as {language!r} with a probability of {probability:.2f} only; give the language if it is another.",
        )
    return AsrResult(
        language=language or UNDETERMINED,
        language_probability=probability,
        task=params.task,
        segments=tuple(segments),
        model=parts[0].model,
        warnings=warnings,
    )
