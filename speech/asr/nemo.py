"""Speech to text: NVIDIA's NeMo models (Parakeet, Canary) through onnx-asr, on ONNX Runtime alone.

A transducer's words are timed by the frames at which it gave their tokens; an attention encoder-decoder gives text alone, and its
words share the voiced time of their chunk by their length. Decoding is greedy: the same chunk gives the same text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from speech.asr import Transcribed, timed_words
from speech.asr.unworded import untranscribed
from speech.audio import Recording
from speech.hub import files_in
from speech.languages import only_language
from speech.loaded import Room, bytes_in, load_once
from speech.registry import MODELS, Resolved
from speech.runtime import cpu_threads, resolve_device
from speech.schema import SAMPLE_RATE, USUAL_BATCH, WHOLE, AsrParams, AsrSegment, Chunk, RuntimeOptions, Shard, part_of
from speech.stages import Progress, said
from speech.weights import weights_folder
from stenoflow.errors import EngineMissing, InvalidOption, UnknownModel

if TYPE_CHECKING:
    from onnx_asr.adapters import TimestampedResultsAsrAdapter
    from onnx_asr.asr import TimestampedResult

LONGEST_TOKEN = 0.32
"""Seconds: the longest duration that a token-and-duration transducer gives a token, four frames."""
_STRAY_SPACE = re.compile(r"\s+(?=[.,;:!?…%])")


class Nemo(NamedTuple):
    """A loaded model (`speech.asr.Engine`)."""

    model: TimestampedResultsAsrAdapter
    resolved: Resolved
    device: str

    def chunks_at_once(self, params: AsrParams, runtime: RuntimeOptions) -> int:
        return max(1, 2 * USUAL_BATCH // runtime.workers) if self.device == "cuda" else 1

    def transcribe(
        self,
        recording: Recording,
        plan: Sequence[Chunk],
        params: AsrParams,
        batch_size: int,
        progress: Progress,
        shard: Shard = WHOLE,
    ) -> Transcribed:
        begin, end = part_of(len(plan), shard, USUAL_BATCH)
        # More at once save no time on a CPU, where padding the shorter ones costs some.
        size = batch_size if self.device == "cuda" else 1
        segments: list[AsrSegment] = []
        for first in range(begin, end, size):
            batch = plan[first : min(first + size, end)]
            found = self._recognised(recording, batch, params)
            texts = [self._segment(chunk, result) for chunk, result in zip(batch, found, strict=True)]
            new = [text for text in texts if text is not None]
            said(progress, new)
            segments += new
            progress((first + len(batch) - begin) / (end - begin))
        language = self._language(params)
        return Transcribed(
            segments=tuple(segments),
            language=language,
            multilingual=language != "en",
            model=self.resolved.info,
            timing=self.resolved.engine.times or "interpolated",
            untranscribed=untranscribed(plan[begin:end], segments),
            warnings=tuple(self._warnings(params, language)),
        )

    def _recognised(self, recording: Recording, batch: Sequence[Chunk], params: AsrParams) -> list[TimestampedResult]:
        sound = [recording.read(round(chunk.start * SAMPLE_RATE), round(chunk.end * SAMPLE_RATE)) for chunk in batch]
        language = only_language(params.language)
        target = "en" if params.task == "translate" else language
        try:
            return self.model.recognize(sound, language=language, target_language=target)  # type: ignore[arg-type]
        except KeyError as error:  # of a language's token
            raise InvalidOption(f"The model {self.resolved.name} does not support the language {params.language!r}.") from error

    def _segment(self, chunk: Chunk, result: TimestampedResult) -> AsrSegment | None:
        tokens, logprobs = result.tokens or [], result.logprobs or []
        text = _STRAY_SPACE.sub("", " ".join("".join(tokens).split()))
        if not text:
            return None
        # Those of an encoder-decoder are of its end token as well.
        logprobs = logprobs if len(logprobs) == len(tokens) else [float(np.mean(logprobs or [0.0]))] * len(tokens)
        times = result.timestamps if result.timestamps is not None else spread(tokens, chunk)
        return AsrSegment(
            start=chunk.start,
            end=chunk.end,
            text=text,
            words=tuple(timed_words(text, _pieces(tokens, times, logprobs, result.timestamps is not None), chunk, True)),
            regions=chunk.regions,
            avg_logprob=round(float(np.mean(logprobs)), 4),
        )

    def _language(self, params: AsrParams) -> str | None:
        model = MODELS.get(self.resolved.name)
        alone = model.languages[0] if model is not None and len(model.languages) == 1 else None
        return only_language(params.language) or alone

    def _warnings(self, params: AsrParams, language: str | None) -> list[str]:
        name, found = self.resolved.name, []
        if params.language and params.language != only_language(params.language):
            found.append(f"{name} cannot be limited to some languages; the list ({params.language}) was ignored.")
        if language is None:
            found.append(
                f"{name} does not report the detected language; give `language` to apply its rules for sentences and word times."
            )
        if params.initial_prompt or params.hotwords:
            found.append(f"{name} does not support an initial prompt or hotwords; they were ignored.")
        return found


def _pieces(tokens: Sequence[str], times: Sequence[float], logprobs: Sequence[float], capped: bool) -> list[Mapping[str, Any]]:
    """Tokens as pieces of words, each until the next one begins; where they are `capped`, for LONGEST_TOKEN at most."""
    ends = [*times[1:], times[-1] + LONGEST_TOKEN if capped else times[-1]]
    return [
        {
            "word": token,
            "start": start,
            "end": min(end, start + LONGEST_TOKEN) if capped else end,
            "probability": min(1.0, np.exp(p)),
        }
        for token, start, end, p in zip(tokens, times, ends, logprobs, strict=True)
    ]


def spread(tokens: Sequence[str], chunk: Chunk) -> list[float]:
    """(tokens,) seconds of the chunk at which each begins, when they share its voiced time by their length."""
    regions = chunk.regions
    edges = np.cumsum([0.0, *(region.end - region.start for region in regions)])
    lengths = np.cumsum([0, *(len(token.strip()) for token in tokens)])
    voiced = edges[-1] * lengths[:-1] / max(1, lengths[-1])
    starts = np.array([region.start for region in regions]) - chunk.start
    inside = np.clip(np.searchsorted(edges, voiced, side="right") - 1, 0, len(regions) - 1)
    return [float(value) for value in starts[inside] + voiced - edges[inside]]


def load(model: Resolved, runtime: RuntimeOptions) -> Nemo:
    """Raises UnknownModel for what onnx-asr cannot read, and EngineMissing on a GPU that ONNX Runtime is not built for."""
    device, threads = resolve_device(runtime), cpu_threads(runtime)
    return load_once(
        ("nemo", model, device),
        lambda room: _load(model, runtime.models_path, device, threads, room),
        device=device,
        threads=threads,
    )


def _load(model: Resolved, models_dir: Path, device: str, threads: int, room: Room) -> Nemo:
    import onnx_asr
    import onnxruntime
    from onnx_asr.utils import ModelLoadingError
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidGraph, InvalidProtobuf

    if device == "cuda" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise EngineMissing(
            "ONNX Runtime is installed without CUDA",
            cure="install `onnxruntime-gpu` in place of `onnxruntime`, or set STENO_COMPUTE__DEVICE=cpu",
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Idle threads must not spin: other stages share the cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    folder = weights_folder(model, models_dir)
    room(bytes_in(folder))
    try:
        kind = json.loads((folder / "config.json").read_bytes())["model_type"]
        adapter = onnx_asr.load_model(
            kind,
            folder,
            quantization=_quantization(model, folder),
            sess_options=options,
            providers=["CUDAExecutionProvider", "CPUExecutionProvider"] if device == "cuda" else ["CPUExecutionProvider"],
        )
    except (ModelLoadingError, InvalidGraph, InvalidProtobuf, ValueError, LookupError, TypeError) as error:
        raise UnknownModel(f"{model.name} is not a NeMo model that onnx-asr can load ({error}).") from error
    return Nemo(adapter.with_timestamps(), model, device)


def _quantization(model: Resolved, folder: Path) -> str | None:
    """`int8` where the model is `encoder-model.int8.onnx`; None for `encoder-model.onnx`."""
    entry = MODELS.get(model.name) if model.origin == "hub" else None
    files = entry.fetches if entry is not None else files_in(folder)
    encoders = sorted(file for file in files if file.startswith("encoder-model") and file.endswith(".onnx"))
    return encoders[0].split(".")[1] if encoders and "encoder-model.onnx" not in encoders else None
