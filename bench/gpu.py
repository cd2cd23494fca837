"""The engine on a GPU beside the same engine on this machine's CPU: `python -m bench.gpu [--minutes 10] [--model base]`.

The recording is `bench.speed`'s. Each run is a process of its own (`bench.engine`): the CPU once, then the GPU with each
`--batch-size`, and with the one that the engine finds from the free memory. Printed, with the hardware: seconds of each stage with
its model loaded, the ratio to the CPU's in the same round, WER (half precision and other batches must not change the text's quality),
and the most of the GPU's memory. `--device cpu` tries the benchmark where there is none.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.accuracy import machine
from bench.engine import ORDER
from bench.meeting import meeting
from bench.peers import SystemFailed
from bench.recordings import load_truth
from bench.speed import engine
from bench.tables import markdown
from bench.voices import SpeechUnavailableError
from speech.scoring import word_errors


def work(run: dict[str, Any]) -> float:
    """Seconds of all stages, models loaded."""
    return sum(run["stages"][stage]["seconds"] for stage in ORDER)


def table(rounds: Sequence[dict[str, dict[str, Any]]], truth_text: str, language: str) -> str:
    """The medians over all rounds, as Markdown; the first run of a round is what its others are compared with."""
    lines = [["run", *ORDER, "all, s", "× real time", "× the CPU's", "loading, s", "WER %", "GPU memory, GB"]]
    lines.append(["---"] * len(lines[0]))
    for name in rounds[0]:
        runs = [found[name] for found in rounds]
        first = [next(iter(found.values())) for found in rounds]
        middle = statistics.median
        pace = middle(run["duration"] / work(run) for run in runs)
        ratio = middle(work(base) / work(run) for base, run in zip(first, runs, strict=True))
        loading = middle(run["stages"]["load models"]["seconds"] for run in runs)
        wer = middle(word_errors(truth_text, run["text"], language).rate for run in runs)
        memory = max(run["peak_gpu_bytes"] for run in runs)
        lines.append(
            [
                f"{name}, batch {runs[0]['batch_size']}",
                *(f"{middle(run['stages'][stage]['seconds'] for run in runs):.2f}" for stage in ORDER),
                f"{middle(map(work, runs)):.1f}",
                f"{pace:.1f}",
                f"{ratio:.1f}",
                f"{loading:.1f}",
                f"{100 * wer:.1f}",
                f"{memory / 1e9:.2f}" if memory else "–",
            ]
        )
    return markdown(lines)


def gpu_name(device: str) -> str:
    if device == "cpu":
        return "no GPU"
    import torch

    return str(torch.cuda.get_device_name())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the recording (default: %(default)s, at most 11)")
    parser.add_argument("--audio", type=Path, help="a recording of `bench.recordings` or `bench.meeting` made elsewhere")
    parser.add_argument("--model", default="base", help="Whisper weights (default: %(default)s)")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--batch-size", type=int, nargs="*", default=[1, 8, 32], help="beside the one found (default: 1 8 32)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="also write all numbers as JSON")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds for one run")
    asked = parser.parse_args()
    try:
        audio = asked.audio or meeting(asked.minutes).audio
        truth = load_truth(audio.with_suffix(".json"))
        gpu = gpu_name(asked.device)
    except (SpeechUnavailableError, OSError, RuntimeError) as error:  # RuntimeError: torch finds no GPU
        sys.exit(f"{error}")
    rounds: list[dict[str, dict[str, Any]]] = []
    plan = [
        ("cpu", "cpu", None),
        *((f"{asked.device}: {size or 'found'}", asked.device, size) for size in (*asked.batch_size, None)),
    ]
    for _ in range(asked.repeat):
        found = {}
        for name, device, size in plan:
            print(f"{audio.stem}: {name} …", file=sys.stderr, flush=True)
            try:
                found[name] = engine(audio, asked.model, asked.timeout, device, size)
            except SystemFailed as error:
                sys.exit(f"{name}: {error}")
        rounds.append(found)
        if asked.output:
            asked.output.write_text(json.dumps({"machine": machine(), "gpu": gpu, "rounds": rounds}, indent=1) + "\n")
    print(f"{truth.duration:.0f} s, {len(truth.speakers)} speakers, {os.cpu_count()} cores, {gpu}, {len(rounds)} rounds\n")
    print(table(rounds, truth.text, truth.language))


if __name__ == "__main__":
    main()
