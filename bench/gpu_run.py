"""One system on weights of true shapes, in a process of its own: what `bench.gpu` starts.

`python -m bench.gpu_run SYSTEM --shapes FOLDER --whisper NAME --audio FILE --device cuda --output FILE`

    stenoflow        its stages one after the other, and then as a run has them: words beside voices
    whisperx         WhisperX as is: its VAD and batches, community-1 by pyannote's own pipeline, speakers to words
    faster-whisper   BatchedInferencePipeline with word times; it does not diarize
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

from bench.shapes import Forced

SYSTEMS = ("stenoflow", "whisperx", "faster-whisper")
VOICES = {"model": "community-1"}
ALL = "all, overlapped"


class Watch:
    """How busy the GPU is, and how much of its memory is taken, ten times a second; and seconds by name."""

    def __init__(self, device: str) -> None:
        self.rows: list[dict[str, Any]] = []
        self._seen: list[tuple[float, float, float]] = []
        if device == "cuda":
            threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        asked = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "-lms", "100"]
        with subprocess.Popen(asked, stdout=subprocess.PIPE, text=True) as looking:
            assert looking.stdout is not None
            for line in looking.stdout:
                busy, used = map(float, line.split(","))
                self._seen.append((time.perf_counter(), busy, used))

    @contextmanager
    def timing(self, name: str) -> Iterator[dict[str, Any]]:
        began, cpu = time.perf_counter(), time.process_time()
        row: dict[str, Any] = {"name": name}
        yield row
        ended = time.perf_counter()
        seen = [each for each in self._seen if began <= each[0] <= ended]
        row |= {"seconds": ended - began, "cpu_seconds": time.process_time() - cpu}
        if seen:
            row |= {"busy": sum(each[1] for each in seen) / len(seen), "gigabytes": max(each[2] for each in seen) / 1024}
        self.rows.append(row)


class Asked(NamedTuple):
    shapes: Path
    """The folder that `bench.gpu` filled."""
    whisper: Path
    audio: Path
    warming: Path
    """A minute, with which everything is computed once before anything is measured."""
    device: Literal["cpu", "cuda"]
    tokens: list[int]
    """That are said in a chunk."""


def stenoflow(asked: Asked, watch: Watch) -> None:
    from speech.align import load as load_aligner
    from speech.asr import load as load_asr
    from speech.diarize.networks import load_embedder, load_segmenter
    from speech.models import resolve_align, resolve_asr, resolve_diarization
    from speech.schema import AsrResult, RuntimeOptions
    from speech.stages import STAGES, run_stage

    models = asked.shapes / "models"
    runtime = RuntimeOptions(models_dir=str(models), offline=True, device=asked.device)
    where: dict[str, Any] = {"models_dir": models, "offline": True}
    aligner = str(asked.shapes / "wav2vec2")
    with watch.timing("load models"):
        voices = resolve_diarization("community-1", **where)
        load_segmenter(voices, models, runtime)
        load_embedder(voices, models, runtime)
        text = resolve_asr(str(asked.whisper), "en", **where)
        engine: Any = load_asr(text, runtime)
        empty = AsrResult(language="en", segments=(), model=text.info)
        load_aligner(resolve_align(aligner, "en", text, **where), empty, runtime)
    _force(engine.weights.model, asked.tokens)
    params: dict[str, dict[str, Any]] = {"segment": VOICES, "embed": VOICES, "align": {"model": aligner}}
    params["asr"] = {"model": str(asked.whisper), "language": "en"}

    def stages(audio: Path, folder: Path) -> Callable[[str], dict[str, Any]]:
        folder.mkdir()
        files = {"audio": audio} | {spec.output: folder / name for name, spec in STAGES.items()}
        files["diarization"] = folder / "cluster"

        def compute(name: str) -> dict[str, Any]:
            inputs = {kind: files[kind] for kind in STAGES[name].inputs}
            return run_stage(name, inputs, params.get(name, {}), runtime, files[STAGES[name].output], lambda done: None)

        return compute

    def whole(compute: Callable[[str], Any]) -> None:
        def branch(*names: str) -> None:
            for name in names:
                compute(name)

        compute("segment")
        with ThreadPoolExecutor(2) as pool:
            both = [pool.submit(branch, "asr", "align"), pool.submit(branch, "embed", "cluster")]
        for each in both:
            each.result()

    whole(stages(asked.warming, asked.shapes / f"warming-{asked.whisper.name}"))
    one = stages(asked.audio, asked.shapes / f"stages-{asked.whisper.name}")
    for name in ("segment", "embed", "cluster", "asr", "align"):
        with watch.timing(name) as row:
            facts = one(name)
        row |= {"batch": facts.get("batch_size"), "words": facts.get("words")}
    with watch.timing(ALL):
        whole(stages(asked.audio, asked.shapes / f"whole-{asked.whisper.name}"))


def whisperx(asked: Asked, watch: Watch) -> None:
    import whisperx as peer
    from whisperx.diarize import DiarizationPipeline, assign_word_speakers

    kind = "float16" if asked.device == "cuda" else "int8"
    with watch.timing("load models"):
        recogniser = peer.load_model(str(asked.whisper), asked.device, compute_type=kind, language="en", local_files_only=True)
        pipeline = DiarizationPipeline(str(_community_1(asked.shapes)), device=asked.device)
    _force(recogniser.model, asked.tokens)
    recogniser.transcribe(_samples(asked.warming), batch_size=8)
    pipeline(_samples(asked.warming))
    samples = _samples(asked.audio)
    with watch.timing("all, one after the other"):
        with watch.timing("VAD and asr") as row:
            row["batch"] = 8
            found = recogniser.transcribe(samples, batch_size=8)
        with watch.timing("diarize"):
            turns = pipeline(samples)
        assign_word_speakers(turns, found)


def faster_whisper(asked: Asked, watch: Watch) -> None:
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    kind = "float16" if asked.device == "cuda" else "int8"
    with watch.timing("load models"):
        recogniser = WhisperModel(str(asked.whisper), device=asked.device, compute_type=kind, local_files_only=True)
    _force(recogniser, asked.tokens)
    batched = BatchedInferencePipeline(recogniser)
    for audio in (asked.warming, asked.audio):
        with watch.timing("VAD, asr and word times" if audio == asked.audio else "warming") as row:
            row["batch"] = 8
            stream, _ = batched.transcribe(_samples(audio), batch_size=8, word_timestamps=True, language="en")
            list(stream)


def _force(model: Any, tokens: list[int]) -> None:
    model.model = Forced(model.model, model.hf_tokenizer.token_to_id("<|endoftext|>"), tokens)


def _community_1(shapes: Path) -> Path:
    [folder] = (shapes / "hub").glob("models--*/snapshots/*")
    return folder


def _samples(audio: Path) -> Any:
    import soundfile

    return soundfile.read(audio, dtype="float32")[0]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_run")
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("--shapes", type=Path, required=True)
    parser.add_argument("--whisper", required=True)
    parser.add_argument("--audio", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    if importlib.util.find_spec("av") is None:  # faster-whisper imports it to decode files, of which there are none here
        sys.modules["av"] = ModuleType("av")
    asked = Asked(
        given.shapes,
        given.shapes / given.whisper,
        given.audio,
        given.shapes / "warming.flac",
        given.device,
        json.loads((given.shapes / "said.json").read_text()),
    )
    watch = Watch(given.device)
    {"stenoflow": stenoflow, "whisperx": whisperx, "faster-whisper": faster_whisper}[given.system](asked, watch)
    given.output.write_text(json.dumps(watch.rows))


if __name__ == "__main__":
    main()
