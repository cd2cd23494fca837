"""What a GPU waits for: `python -m bench.waits [--minutes 4] [--output FILE]`, on any machine, without a GPU.

A GPU stands idle while the thread that feeds it does something else. Each stage runs here as on a GPU, the networks' calls standing for
it: printed are CPU milliseconds per minute of audio that this thread takes outside of the calls, and those of the threads beside it,
which a GPU waits for only if they are more than its own work. Segmentation and Whisper (`base`) compute on the CPU, for real results; the
trunk of speaker embeddings has community-1's shapes and random output, wav2vec2 a true frame rate and alphabet and one small layer.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.recordings import build
from bench.tables import markdown
from speech.audio import Recording
from speech.schema import AsrParams, AsrResult, RuntimeOptions

BATCH = 16
"""Chunks that Whisper decodes at once."""


class Gpu:
    """The calls that a GPU would answer, and the CPU seconds of Python's threads outside of them."""

    device = "cuda"

    def __init__(self) -> None:
        self._inside: dict[int, float] = {}
        self._ended = 0.0
        self._deep = threading.local()

    def call(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            if getattr(self._deep, "inside", False):
                return function(*arguments, **named)
            self._deep.inside, began = True, time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                me = threading.get_ident()
                self._inside[me] = self._inside.get(me, 0.0) + time.thread_time() - began
                self._deep.inside = False

        return called

    def measure(self, stage: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
        """What the stage returns; CPU seconds of this thread and of those that it starts, outside of the calls."""
        run = threading.Thread.run

        def timed(thread: threading.Thread) -> None:
            run(thread)
            self._ended += time.thread_time() - self._inside.pop(threading.get_ident(), 0.0)

        self._inside, self._ended = {}, 0.0
        threading.Thread.run = timed  # type: ignore[method-assign, assignment]
        try:
            began = time.thread_time()
            found = stage()
            own = time.thread_time() - began - self._inside.get(threading.get_ident(), 0.0)
        finally:
            threading.Thread.run = run  # type: ignore[method-assign]
        return found, {"waits": own, "beside": self._ended}


class Network:
    """A network of `speech.diarize.networks` on that GPU."""

    device = "cuda"

    def __init__(self, gpu: Gpu, compute: Callable[[Any], Any]) -> None:
        self._compute = gpu.call(compute)

    def send(self, batch: Any) -> Any:
        return batch

    def __call__(self, batch: Any) -> Any:
        return self._compute(batch)


class Whispers:
    """CTranslate2's model on that GPU."""

    device = "cuda"

    def __init__(self, gpu: Gpu, model: Any) -> None:
        self._model = model
        for name in ("encode", "generate", "align", "detect_language"):
            setattr(self, name, gpu.call(getattr(model, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def measure(audio: Path, models_dir: Path, folder: Path, minutes: float) -> dict[str, dict[str, float]]:
    """CPU milliseconds per minute of audio by stage: `waits` and `beside`."""
    from speech import chunks
    from speech.align import timed
    from speech.asr import assembled
    from speech.diarize.embedding import embed
    from speech.diarize.segmentation import segment

    gpu, recording = Gpu(), Recording(_tiled(audio, folder, minutes))
    runtime = RuntimeOptions(models_dir=str(models_dir), offline=True, device="cpu", threads=1)
    found: dict[str, dict[str, float]] = {}

    def stage(name: str, work: Callable[[], Any]) -> Any:
        result, spent = gpu.measure(work)
        found[name] = {kind: 60e3 * seconds / recording.duration for kind, seconds in spent.items()}
        return result

    segmenter, embedder = _segmenter(gpu, models_dir, runtime), _embedder(gpu)
    segmentation = stage("segment", lambda: segment(recording, segmenter, _ignore))
    stage("embed", lambda: embed(recording, segmentation, embedder, _ignore))
    transcriber, plan = _transcriber(gpu, models_dir, runtime), chunks.plan(segmentation)
    part = stage("asr", lambda: transcriber.transcribe(recording, plan, BATCH, _ignore))
    asr: AsrResult = assembled([part], AsrParams(language="en"))
    aligner = _aligner(gpu)
    stage("align", lambda: timed(asr, recording, {asr.language: aligner}, _ignore))
    return found


def _ignore(done: float) -> None:
    pass


def _tiled(audio: Path, folder: Path, minutes: float) -> Path:
    import soundfile

    samples, rate = soundfile.read(audio, dtype="int16")
    soundfile.write(folder / "audio.flac", np.resize(samples, round(minutes * 60 * rate)), rate, subtype="PCM_16")
    return folder / "audio.flac"


def _segmenter(gpu: Gpu, models_dir: Path, runtime: RuntimeOptions) -> Any:
    from speech.diarize.networks import load_segmenter
    from speech.models import resolve_diarization

    real = load_segmenter(resolve_diarization("auto", models_dir=models_dir, offline=True), models_dir, runtime)
    return real._replace(network=Network(gpu, real.network))


def _embedder(gpu: Gpu) -> Any:
    """Of ResNet34's shapes."""
    from speech.diarize.networks import Embedder
    from speech.features import FbankOptions

    generator = np.random.default_rng(0)
    frames = np.maximum(generator.standard_normal((64, 2560, 125), dtype=np.float32), 0)
    head = generator.standard_normal((256, 5120), dtype=np.float32)
    network = Network(gpu, lambda batch: frames[: len(batch)])
    return Embedder(network, head, np.zeros(256, np.float32), FbankOptions(window="hamming", scale=32768.0))


def _transcriber(gpu: Gpu, models_dir: Path, runtime: RuntimeOptions) -> Any:
    import copy

    from speech.asr.whisper import Transcriber, load_whisper
    from speech.models import resolve_asr

    resolved = resolve_asr("base", "en", models_dir=models_dir, offline=True)
    weights = load_whisper(resolved, models_dir, runtime)
    model = copy.copy(weights.model)
    model.model = Whispers(gpu, model.model)
    return Transcriber(type(weights)(model, weights.file), resolved.info, AsrParams(language="en"))


def _aligner(gpu: Gpu) -> Any:
    import torch
    import torchaudio

    from speech.align.wav2vec2 import Aligner

    torch.manual_seed(0)
    torch.set_num_threads(1)
    bundle = torchaudio.pipelines.WAV2VEC2_ASR_BASE_960H
    small = {"encoder_embed_dim": 48, "encoder_num_layers": 1, "encoder_num_heads": 4, "encoder_ff_interm_features": 64}
    layers = [[32, kernel, stride] for _, kernel, stride in bundle._params["extractor_conv_layer_config"]]
    model = torchaudio.models.wav2vec2_model(**bundle._params | small | {"extractor_conv_layer_config": layers}).eval()
    alphabet = {character.lower(): place for place, character in enumerate(bundle.get_labels())}
    metadata = {"language": "en", "dictionary": alphabet, "type": "torchaudio"}
    on_gpu, here = (Aligner(model, metadata, device) for device in ("cuda", "cpu"))
    on_gpu.emissions = gpu.call(here.emissions)  # type: ignore[method-assign]
    return on_gpu


def table(found: dict[str, dict[str, float]]) -> str:
    """As Markdown, with the sum of all stages."""
    total = {kind: sum(each[kind] for each in found.values()) for kind in ("waits", "beside")}
    rows: Sequence[tuple[str, dict[str, float]]] = [*found.items(), ("all", total)]
    lines = [["stage", "the GPU waits for", "beside it"], ["---"] * 3]
    return markdown(lines + [[name, f"{each['waits']:.1f}", f"{each['beside']:.1f}"] for name, each in rows])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.waits", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=4.0, help="of audio (default: %(default)s)")
    parser.add_argument("--models-dir", type=Path, default=Path(__file__).resolve().parents[1] / ".cache" / "models")
    parser.add_argument("--output", type=Path, help="also write the numbers as JSON")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(build("sample").audio, asked.models_dir, Path(folder), asked.minutes)
    if asked.output:
        asked.output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"CPU milliseconds per minute of audio, {asked.minutes:g} minutes:\n\n{table(found)}")


if __name__ == "__main__":
    main()
