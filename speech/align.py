"""A time for every word, from a wav2vec2 model where the language has one here, else from Whisper's cross-attention.

Either way the text is ASR's, untouched: alignment can move words in time, never change or lose one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speech.audio import Recording
from speech.models import resolve_align
from speech.registry import Resolved
from speech.schema import AlignParams, AlignResult, AsrResult, AsrSegment, RuntimeOptions, Segment, Word
from speech.sentences import join_words, separators, split_sentences
from speech.stages import Progress
from speech.timing import attention_words, in_order


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
                words=part,
            )
        )
    return out


def align(asr: AsrResult, recording: Recording, aligner: Any | None, progress: Progress) -> tuple[list[Segment], list[str]]:
    """Timed sentences and warnings. `aligner` is a `speech.wav2vec2.Aligner`, or None for cross-attention."""
    segments: list[Segment] = []
    fallen_back = 0
    floor = 0.0
    for done, segment in enumerate(asr.segments, start=1):
        words = aligner.words(segment, recording) if aligner is not None else None
        if words is None:
            fallen_back += aligner is not None
            words = attention_words(segment, asr.model.name)
        words = in_order(words, floor, segment.end)
        if words:
            floor = words[-1].end
            segments += sentences(segment, words, asr.text_language)
        progress(done / len(asr.segments))
    warnings = []
    if fallen_back:
        warnings.append(
            f"{fallen_back} of {len(asr.segments)} chunks could not be aligned with wav2vec2; Whisper's own word times were used there."
        )
    return segments, warnings


def run(
    inputs: Mapping[str, Path], params: AlignParams, runtime: RuntimeOptions, output: Path, progress: Progress
) -> dict[str, Any]:
    """The `align` stage: audio and text → timed words."""
    began = time.perf_counter()
    models_dir = runtime.models_path
    asr = AsrResult.model_validate_json(inputs["asr"].read_bytes())
    model = _resolve(asr, params, models_dir, runtime.offline)
    aligner, device = None, "cpu"
    if model.kind == "wav2vec2" and asr.segments:
        from speech.wav2vec2 import load_aligner

        aligner = load_aligner(model, asr.language, models_dir, runtime)
        device = aligner.device
    loaded = time.perf_counter() - began
    with Recording(inputs["audio"]) as recording:
        segments, warnings = align(asr, recording, aligner, progress)
    result = AlignResult(
        segments=tuple(segments),
        model=model.info,
        method="wav2vec2" if model.kind == "wav2vec2" else "attention",
        warnings=tuple(warnings),
    )
    output.write_text(result.model_dump_json(), encoding="utf-8")
    words = sum(len(segment.words) for segment in segments)
    return {"words": words, "method": result.method, "load_seconds": round(loaded, 3), "device": device}


def _resolve(asr: AsrResult, params: AlignParams, models_dir: Path, offline: bool) -> Resolved:
    """The aligner for the recording's language. The Whisper model is known by what ASR recorded, not by its name today."""
    whisper = Resolved(kind="whisper", name=asr.model.name, revision=asr.model.revision, origin=asr.model.origin)
    return resolve_align(params.model, asr.language, whisper, models_dir=models_dir, offline=offline)
