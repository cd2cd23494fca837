"""Seconds from asking to the answer: `python -m bench.latency [--against REVISION] [--repeat 3] [--posts 8]`.

A recording of 30 s is transcribed once; then other formats of it are asked for, each a command of its own in a process of its own,
of which everything is in the store. Then clips of 5 s are posted to the REST API of `steno up --api`, which has had one before: one after
the other, then by four callers at once. Beside each the same with the code of `--against` (by default the commit before), in the same
minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import soundfile

from bench import recordings
from bench.tables import markdown

ROOT = Path(__file__).parents[1]
CALLERS = 4
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


@contextlib.contextmanager
def served(code: Path, folder: Path) -> Iterator[str]:
    """The URL of a REST API with that code, and a worker."""
    with socket.socket() as one, socket.socket() as other:
        for free in (one, other):
            free.bind(("127.0.0.1", 0))
        prefect, api = (free.getsockname()[1] for free in (one, other))
    folder.mkdir()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | {
        "PYTHONPATH": str(code),
        "STENO_HOME": str(folder / "home"),
        "PREFECT_HOME": str(folder / "prefect"),
        "STENO_DEPLOY__CONCURRENCY": str(CALLERS),
        "STENO_API__PORT": str(api),
    }
    up = [sys.executable, "-m", "stenoflow.cli.main", "up", "--api", "--port", str(prefect)]
    with (
        (folder / "up.log").open("wb") as log,
        subprocess.Popen(up, env=environ, cwd=folder, stdout=log, stderr=log) as process,
    ):
        try:
            until = time.monotonic() + 180
            while not _answers(f"http://127.0.0.1:{api}/health/ready"):
                if time.monotonic() > until or process.poll() is not None:
                    raise SystemExit((folder / "up.log").read_text(errors="replace"))
                time.sleep(0.5)
            yield f"http://127.0.0.1:{api}"
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def post(url: str, clip: Path) -> float:
    """Seconds until the job has ended. No model may be chosen: it is that of every job."""
    began = time.perf_counter()
    answer = httpx.post(
        f"{url}/transcribes", params={"wait": 60}, files={"file": clip.read_bytes()}, timeout=120, trust_env=False
    )
    if answer.json().get("status") != "completed":
        raise SystemExit(f"not completed: {answer.status_code} {answer.text[:300]}")
    return time.perf_counter() - began


def posts(code: Path, folder: Path, clips: list[Path]) -> tuple[list[float], list[float]]:
    """Seconds of each clip: half of them one after the other, half by several callers."""
    half = (len(clips) - CALLERS - 1) // 2
    with served(code, folder) as url:
        post(url, clips[0])
        single = [post(url, clip) for clip in clips[1 : half + 1]]
        rest = clips[half + 1 :]
        with ThreadPoolExecutor(CALLERS) as callers:
            several = list(callers.map(lambda clip: post(url, clip), rest))
    return single, several[CALLERS:]  # the first of each caller finds no process that is warm


def cut(source: Path, folder: Path, count: int) -> list[Path]:
    """Clips of 5 s, each with samples of its own."""
    samples, rate = soundfile.read(source, dtype="float32")
    clips = []
    for number in range(count):
        begin = (number * rate) % (len(samples) - 5 * rate)
        clips.append(folder / f"clip-{number}.wav")
        soundfile.write(clips[-1], samples[begin : begin + 5 * rate] * (1 - number / 1000), rate)
    return clips


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.latency")
    parser.add_argument("--against", default="HEAD~1", help="revision whose code is measured beside")
    parser.add_argument("--repeat", type=int, default=3, choices=range(1, len(FORMATS) + 1), help="formats that are asked for")
    parser.add_argument(
        "--posts", type=int, default=8, help="clips that are posted one after the other, and by several callers"
    )
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
            clips = cut(source, folder, 2 * options.posts + CALLERS + 1)
            posted = {label: posts(code, folder / label, clips) for label, code in (("now", ROOT), (options.against, before))}
        finally:
            subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", before], check=True)
    rows = [["a format of what is stored", "wall, median", "CPU, median"], ["---", "---:", "---:"]]
    for label, taken in seconds.items():
        rows.append([label, *(f"{statistics.median(column):.1f} s" for column in zip(*taken, strict=True))])
    print(markdown(rows))
    print(f"\nThe first transcription of the recording: {first[0]:.1f} s, {first[1]:.1f} CPU s.\n")
    rows = [["a clip of 5 s, posted", "median", f"{CALLERS} callers, median", "p95"], ["---", "---:", "---:", "---:"]]
    for label, (single, several) in posted.items():
        most = statistics.quantiles(several, n=20)[-1]
        rows.append([label, *(f"{value:.1f} s" for value in (statistics.median(single), statistics.median(several), most))])
    print(markdown(rows))


if __name__ == "__main__":
    main()
