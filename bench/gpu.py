"""All figures of a GPU, in ten minutes and without a network: `python -m bench.gpu [--minutes 30] [--inputs FOLDER]`.

turbo, large-v3, wav2vec2-large, community-1's PyanNet and ResNet34: weights of their shapes, made on the spot (`bench.shapes`), through
Stenoflow stage by stage and as a run has it, words beside voices; WhisperX as is and faster-whisper's batched pipeline on the same
weights and GPU. Printed: seconds, × real time, how long the GPU had nothing to do (what the CPU held up), the most of its memory, the
batch, and dollars for an hour of audio at the price of that GPU. Then real weights, where they are: on the GPU they give the text and the
speakers that they give on the CPU. What cannot run is printed with the reason.

`--pack FOLDER` writes there, in 10 MB, what a machine without these packages and without a network needs; `--inputs FOLDER` reads it.
`--device cpu` rehearses all of it where there is no GPU, on fifteen seconds of audio and with one layer of each.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import shapes
from bench.gpu_run import ALL, SYSTEMS
from bench.peers import SystemFailed, quiet_environment, run_quietly
from bench.recordings import build, load_truth
from bench.speed import engine
from bench.tables import markdown
from bench.voices import SpeechUnavailableError
from bench.weights import segmentation_weights, whisper_folder
from infra.prices import GPU_SECOND, Rented, dollars, rented_cost
from infra.settings import ModalSettings
from speech.scoring import diarization_errors, word_errors

REHEARSED = shapes.Depth(1, 1)
"""Layers where a CPU stands for the GPU."""
FOR_REAL = 60.0
"""Seconds of the limit that are kept for real weights."""
TOKENIZER = ("tokenizer.json", "vocabulary.txt", "config.json")
RECORDING = ("sample.flac", "sample.json", "sample.rttm")
SEGMENTATION = "segmentation.bin"


class Inputs(NamedTuple):
    """What is not made on the spot."""

    audio: Path
    """Half a minute of a real call, its truth beside it."""
    tokenizer: Path
    segmentation: Path


def inputs(folder: Path | None) -> Inputs:
    """Packed ones, or those of this machine. Raises SpeechUnavailableError."""
    if folder is not None:
        return Inputs(folder / RECORDING[0], folder, folder / SEGMENTATION)
    return Inputs(build("sample").audio, whisper_folder("base"), segmentation_weights())


def pack(found: Inputs, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER:
        shutil.copyfile(found.tokenizer / name, folder / name)
    for name in RECORDING:
        shutil.copyfile(found.audio.with_name(name), folder / name)
    shutil.copyfile(found.segmentation, folder / SEGMENTATION)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 1e6:.0f} MB")


# -- making the weights -----------------------------------------------------------------------------------------------------


def prepare(found: Inputs, folder: Path, minutes: float, device: str, models: Sequence[str]) -> Path:
    """Fill the folder that `bench.gpu_run` reads; the recording of so many minutes."""
    import soundfile
    from tokenizers import Tokenizer

    real = device == "cuda"
    for name in models:
        shapes.whisper(folder / name, shapes.WHISPER[name] if real else REHEARSED, found.tokenizer)
    shapes.wav2vec2(folder / "wav2vec2", shapes.WAV2VEC2_LAYERS if real else 1)
    shapes.community_1(folder / "hub", found.segmentation)
    truth = load_truth(found.audio.with_suffix(".json"))
    tokens = shapes.said(Tokenizer.from_file(str(found.tokenizer / TOKENIZER[0])), truth.text, truth.duration)
    (folder / "said.json").write_text(json.dumps(tokens))
    samples, rate = soundfile.read(found.audio, dtype="int16")
    for path, length in ((folder / "warming.flac", 1.0 if real else 0.2), (folder / "audio.flac", minutes)):
        soundfile.write(path, np.resize(samples, round(60 * length * rate)), rate, subtype="PCM_16")
    return folder / "audio.flac"


def environment(folder: Path) -> dict[str, str]:
    """Of the processes that measure: the weights, and torch's cuBLAS under the name that CTranslate2 asks for."""
    env = quiet_environment() | {"HF_HUB_CACHE": str(folder / "hub"), "TOKENIZERS_PARALLELISM": "false"}
    newer = [path for each in sys.path for path in Path(each).glob("nvidia/*/lib/libcublas*.so.13")]
    for path in newer:
        named = folder / "cublas" / path.name.replace(".so.13", ".so.12")
        named.parent.mkdir(exist_ok=True)
        named.symlink_to(path)
    places = [str(folder / "cublas"), *{str(path.parent) for path in newer}] if newer else []
    return env | {"LD_LIBRARY_PATH": os.pathsep.join([*places, *filter(None, [env.get("LD_LIBRARY_PATH")])])}


# -- measuring --------------------------------------------------------------------------------------------------------------


def measured(system: str, model: str, audio: Path, device: str, env: dict[str, str], timeout: float) -> list[dict[str, Any]]:
    """What `bench.gpu_run` measured. Raises SystemFailed."""
    output = audio.parent / "rows.json"
    command = [sys.executable, "-m", "bench.gpu_run", system, "--shapes", str(audio.parent), "--whisper", model]
    command += ["--audio", str(audio), "--device", device, "--output", str(output)]
    run_quietly(command, env, timeout)
    rows: list[dict[str, Any]] = json.loads(output.read_text())
    return rows


def price(gpu: str) -> float | None:
    """Dollars per second of a container of the default settings with that GPU; None when the table lacks it."""
    name = next((name for name in GPU_SECOND if name in gpu), None)
    modal = ModalSettings()
    return rented_cost(1.0, Rented(name, float(modal.cpu), modal.memory / 1024)) if name else None


def table(rows: Sequence[dict[str, Any]], duration: float, per_second: float | None) -> str:
    """One row for each stage of each system, as Markdown."""
    head = ["Whisper", "system", "stage", "s", "× real time", "CPU s", "GPU idle, s", "GPU memory, GB", "batch", "$ per hour"]
    lines = [head, ["---", "---", "---", *["---:"] * 7]]
    for row in rows:
        seconds = row["seconds"]
        idle = f"{seconds * (1 - row['busy'] / 100):.2f}" if "busy" in row else "–"
        memory = f"{row['gigabytes']:.1f}" if "gigabytes" in row else "–"
        loading = row["name"] == "load models"
        cost = "–" if per_second is None or loading else dollars(per_second * seconds * 3600 / duration)
        pace = "–" if loading else f"{duration / seconds:.1f}"
        named = [row["whisper"], row["system"], row["name"]]
        batch = str(row.get("batch") or "–")
        lines.append([*named, f"{seconds:.2f}", pace, f"{row['cpu_seconds']:.2f}", idle, memory, batch, cost])
    return markdown(lines)


def real(audio: Path, model: str, device: str, timeout: float) -> str:
    """Real weights on the CPU and on the device: that neither text nor speakers change. Raises SystemFailed."""
    truth = load_truth(audio.with_suffix(".json"))
    lines = [["real weights", "all, s", "WER %", "words unlike the CPU's, %", "DER %", "DER by the CPU's turns, %"]]
    lines.append(["---", *["---:"] * 5])
    here: dict[str, Any] | None = None
    for each in ("cpu", device):
        found = engine(audio, model, timeout, each)
        here = here or found
        seconds = sum(found["stages"][stage]["seconds"] for stage in ("segment", "embed", "cluster", "asr", "align"))
        turns, duration = [tuple(turn) for turn in found["turns"]], found["duration"]
        rates = (
            word_errors(truth.text, found["text"], truth.language).rate,
            word_errors(here["text"], found["text"], truth.language).rate,
            diarization_errors(truth.activity, turns, duration).rate,
            diarization_errors([tuple(turn) for turn in here["turns"]], turns, duration).rate,
        )
        lines.append([f"{model} and CAM++, {each}", f"{seconds:.2f}", *(f"{100 * rate:.1f}" for rate in rates)])
    return markdown(lines)


def gpu_name(device: str) -> str:
    if device == "cpu":
        return "a rehearsal on a CPU, with one layer of each"
    import torch

    return str(torch.cuda.get_device_name())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help="of audio (default: 30, and a quarter of one on a CPU)")
    parser.add_argument("--inputs", type=Path, help="a folder that --pack filled")
    parser.add_argument("--pack", type=Path, metavar="FOLDER")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--whisper", nargs="+", choices=shapes.WHISPER, help="default: both, and on a CPU turbo")
    parser.add_argument("--system", nargs="+", default=SYSTEMS, choices=SYSTEMS)
    parser.add_argument("--real", default="base", help="real Whisper weights (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=570, help="seconds for all of it (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="also write all numbers as JSON")
    asked = parser.parse_args()
    began = time.monotonic()
    try:
        found = inputs(asked.inputs)
        if asked.pack:
            pack(found, asked.pack)
            return
        gpu = gpu_name(asked.device)
    except (SpeechUnavailableError, OSError, RuntimeError) as error:  # RuntimeError: torch finds no GPU
        sys.exit(f"{error}")
    minutes = asked.minutes or (30.0 if asked.device == "cuda" else 0.25)
    models = asked.whisper or list(shapes.WHISPER)[: 2 if asked.device == "cuda" else 1]
    rows: list[dict[str, Any]] = []
    lacking: list[str] = []

    def left() -> float:
        return max(1.0, float(asked.limit) - (time.monotonic() - began))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        audio = prepare(found, folder, minutes, asked.device, models)
        print(f"weights made in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        env = environment(folder)
        for model in models:
            for system in asked.system:
                print(f"{system}, {model} …", file=sys.stderr, flush=True)
                try:
                    new = measured(system, model, audio, asked.device, env, max(1.0, left() - FOR_REAL))
                except SystemFailed as error:
                    lacking.append(f"{system} with {model}: {error}")
                    continue
                rows += [{"whisper": model, "system": system, **row} for row in new if row["name"] != "warming"]
                if asked.output:
                    asked.output.write_text(json.dumps({"gpu": gpu, "seconds": 60 * minutes, "rows": rows}, indent=1) + "\n")
    print(f"{gpu}, {minutes:g} minutes of audio, {os.cpu_count()} cores\n\n{table(rows, 60 * minutes, price(gpu))}\n")
    try:
        print(real(found.audio, asked.real, asked.device, left()))
    except SystemFailed as error:
        lacking.append(f"real weights: {error}")
    hour = [f"{row['whisper']} in {60 * row['seconds'] / minutes:.1f} s" for row in rows if row["name"] == ALL]
    print(f"\nAn hour of audio with speakers, models loaded: {', '.join(hour) or 'not measured'}.")
    print("\n".join(["", "Not measured:", *(f"- {each}" for each in lacking)]) if lacking else "", end="\n")
    print(f"{time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
