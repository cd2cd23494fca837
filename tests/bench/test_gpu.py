"""What the GPU's benchmark prints follows from what it measured."""

from __future__ import annotations

from typing import Any

from bench.gpu import table


def run(seconds: float, text: str = "one two three four", gpu_bytes: int = 0) -> dict[str, Any]:
    names = ("load models", "decode", "segment", "embed", "cluster", "asr", "align")
    stages = {name: {"seconds": seconds, "cpu_seconds": seconds} for name in names}
    return {"duration": 600.0, "batch_size": 8, "stages": stages, "text": text, "peak_gpu_bytes": gpu_bytes}


def test_each_run_is_compared_with_the_cpu_of_its_own_round() -> None:
    rounds = [
        {"cpu": run(10.0), "cuda: 8": run(1.0, gpu_bytes=2 * 10**9)},
        {"cpu": run(30.0), "cuda: 8": run(1.0, "one two three", gpu_bytes=3 * 10**9)},
    ]
    _, _, cpu, gpu = table(rounds, "one two three four", "en").splitlines()
    assert cpu == "| cpu, batch 8 | 20.00 | 20.00 | 20.00 | 20.00 | 20.00 | 100.0 | 8.0 | 1.0 | 20.0 | 0.0 | – |"
    assert gpu == "| cuda: 8, batch 8 | 1.00 | 1.00 | 1.00 | 1.00 | 1.00 | 5.0 | 120.0 | 20.0 | 1.0 | 12.5 | 3.00 |"
