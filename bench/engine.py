"""Stenoflow's engine stage by stage, without orchestration: `python -m bench.engine AUDIO [--model base] [--device cpu] --output FILE`.

One process runs the stages one after the other and writes what each took: wall and CPU seconds, of loading and of work. Then it
clusters again with other numbers of speakers, on the same embeddings and on those of an hour (the recording's, repeated).
Memory is the process's resident peak; on a GPU also the most that was taken of its memory, looked at twenty times a second.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from speech.schema import AsrResult, Diarization, RuntimeOptions
from speech.stages import STAGES, StageName, run_stage

HOUR = 3600.0
ORDER: tuple[StageName, ...] = ("segment", "embed", "cluster", "asr", "align")


class Clock:
    """Wall and CPU seconds by name, in order."""

    def __init__(self) -> None:
        self.spent: dict[str, dict[str, float]] = {}

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.spent[name] = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


class GpuMemory:
    """The most bytes of a GPU's memory that were taken since the context was entered; 0 on a CPU."""

    def __init__(self, device: str) -> None:
        self.peak = 0
        self._used = device == "cuda"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        import torch

        before = torch.cuda.mem_get_info()[0]
        while not self._over.wait(0.05):
            self.peak = max(self.peak, before - torch.cuda.mem_get_info()[0])

    def __enter__(self) -> GpuMemory:
        if self._used:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._used:
            self._thread.join()


def measure(
    audio: Path, model: str, folder: Path, device: Literal["cpu", "cuda"] = "cpu", batch_size: int | None = None
) -> dict[str, Any]:
    """What each stage took on `audio`; artifacts go to `folder`."""
    from speech.audio import normalise

    clock = Clock()
    runtime = RuntimeOptions(
        models_dir=os.environ.get("STENO_MODELS_DIR") or str(Path(__file__).resolve().parents[1] / ".cache" / "models"),
        offline=True,
        device=device,
        batch_size=batch_size,
        threads=int(os.environ.get("OMP_NUM_THREADS") or 0) or len(os.sched_getaffinity(0)),
    )
    files = {"audio": folder / "audio.flac"} | {STAGES[stage].output: folder / stage for stage in ORDER}
    with clock.timing("imports"):
        for module in ("onnxruntime", "faster_whisper", "scipy.cluster.hierarchy", "scipy.optimize"):
            importlib.import_module(module)
    with clock.timing("load models"):
        _load(model, runtime)
    with clock.timing("decode"):
        info = normalise(audio, files["audio"], max_duration=86_400.0)
    facts: dict[str, dict[str, Any]] = {}
    for stage in ORDER:
        spec = STAGES[stage]
        params = {"model": model} if stage == "asr" else {}
        inputs = {kind: files[kind] for kind in spec.inputs}
        with clock.timing(stage):
            facts[stage] = run_stage(stage, inputs, params, runtime, files[spec.output], lambda done: None)
    again = _reclustered(files, runtime, folder, info.duration)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    text = AsrResult.model_validate_json(files[STAGES["asr"].output].read_bytes())
    turns = Diarization.model_validate_json(files[STAGES["cluster"].output].read_bytes()).turns
    return {
        "duration": info.duration,
        "device": facts["asr"]["device"],
        "threads": runtime.threads,
        "batch_size": facts["asr"]["batch_size"],
        "stages": clock.spent,
        "again": again,
        "peak_bytes": peak,
        "text": " ".join(segment.text for segment in text.segments),
        "turns": [(turn.speaker, turn.start, turn.end) for turn in turns],
    }


def _load(model: str, runtime: RuntimeOptions) -> None:
    from speech.asr.whisper import load_whisper
    from speech.diarize.networks import load_embedder, load_segmenter
    from speech.models import resolve_asr, resolve_diarization

    voices = resolve_diarization("auto", models_dir=runtime.models_path, offline=True)
    load_segmenter(voices, runtime.models_path, runtime)
    load_embedder(voices, runtime.models_path, runtime)
    load_whisper(resolve_asr(model, None, models_dir=runtime.models_path, offline=True), runtime.models_path, runtime)


def _reclustered(files: dict[str, Path], runtime: RuntimeOptions, folder: Path, duration: float) -> dict[str, dict[str, float]]:
    """Diarizing again with other numbers of speakers, embeddings kept: of this recording, and of an hour."""
    clock = Clock()
    hour = files | {"segmentation": folder / "hour-segmentation", "embeddings": folder / "hour-embeddings"}
    _repeated(files, hour, max(1, round(HOUR / duration)))
    for name, inputs in (("this recording", files), ("an hour", hour)):
        for count in (2, 4):
            with clock.timing(f"{name}, {count} speakers"):
                kinds = {kind: inputs[kind] for kind in STAGES["cluster"].inputs}
                run_stage("cluster", kinds, {"num_speakers": count}, runtime, folder / "again", lambda done: None)
    return clock.spent


def _repeated(files: dict[str, Path], hour: dict[str, Path], times: int) -> None:
    """The segmentation and embeddings of the recording played `times` times; noise keeps the embeddings from being equal."""
    from speech.diarize.embedding import Embeddings
    from speech.diarize.segmentation import Segmentation

    one, voices = Segmentation.load(files["segmentation"]), Embeddings.load(files["embeddings"])
    activity = np.concatenate([one.activity] * times)
    chunks = len(activity)
    length = round((chunks - 1) * 2.5 / one.frame_step) + activity.shape[1]
    speech = np.resize(one.speech, length)
    one._replace(activity=activity, speech=speech, samples=one.samples * times).save(hour["segmentation"])
    vectors = np.concatenate([voices.vectors] * times)
    noise = np.random.default_rng(0).standard_normal(vectors.shape).astype(np.float32)
    scale = 0.1 * float(np.nanstd(vectors))
    Embeddings(vectors + scale * noise, voices.model).save(hour["embeddings"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engine")
    parser.add_argument("audio", type=Path)
    parser.add_argument("--model", default="base", help="base or tiny.en")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch-size", type=int, help="chunks decoded at once; measured by default")
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, GpuMemory(asked.device) as memory:
        found = measure(asked.audio, asked.model, Path(folder), asked.device, asked.batch_size)
    asked.output.write_text(json.dumps(found | {"peak_gpu_bytes": memory.peak}))


if __name__ == "__main__":
    main()
