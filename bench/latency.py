"""Seconds from asking to the answer: `python -m bench.latency [--against REVISION] [--repeat 3]`.

A recording of 30 s is transcribed once; then other formats of it are asked for, each a command of its own in a process of its own,
of which everything is in the store. Beside it the same with the code of `--against` (by default the commit before), in the same minutes.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import recordings
from bench.tables import markdown

ROOT = Path(__file__).parents[1]
FORMATS = ("txt", "srt", "vtt", "tsv", "lrc", "rttm")


def command(code: Path, folder: Path, source: Path, format_: str) -> tuple[float, float]:
    """Wall and CPU seconds of one `steno transcribe` with that code."""
    environ = os.environ | {
        "PYTHONPATH": str(code),
        "STENO_HOME": str(folder / "home"),
        "PREFECT_HOME": str(folder / "prefect"),
    }
    environ.pop("PREFECT_API_URL", None)
    words = ["transcribe", str(source), "--model", "base", "--format", format_, "-o", str(folder / "out"), "--quiet"]
    began, before = time.perf_counter(), _cpu_of_children()
    subprocess.run([sys.executable, "-m", "stenoflow.cli.main", *words], env=environ, cwd=folder, check=True)
    return time.perf_counter() - began, _cpu_of_children() - before


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.latency")
    parser.add_argument("--against", default="HEAD~1", help="revision whose code is measured beside")
    parser.add_argument("--repeat", type=int, default=3, choices=range(1, len(FORMATS) + 1), help="formats that are asked for")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="latency-") as name:
        folder, before = Path(name), Path(name) / "before"
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "--quiet", "--detach", before, options.against], check=True)
        try:
            source = recordings.build("sample").audio
            seconds: dict[str, list[tuple[float, float]]] = {"now": [], options.against: []}
            first = command(ROOT, folder, source, "json")
            for format_ in FORMATS[: options.repeat]:
                for label, code in (("now", ROOT), (options.against, before)):
                    target = folder / "out"
                    for written in target.glob(f"*.{format_}"):
                        written.unlink()
                    seconds[label].append(command(code, folder, source, format_))
        finally:
            subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", before], check=True)
    rows = [["a format of what is stored", "wall, median", "CPU, median"], ["---", "---:", "---:"]]
    for label, taken in seconds.items():
        rows.append([label, *(f"{statistics.median(column):.1f} s" for column in zip(*taken, strict=True))])
    print(markdown(rows))
    print(f"\nThe first transcription of the recording: {first[0]:.1f} s, {first[1]:.1f} CPU s.")


if __name__ == "__main__":
    main()
