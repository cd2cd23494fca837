"""Memory against length: `python -m bench.memory [--hours 3] [--model base]`.

Transcribes ten seconds, ten minutes and `--hours` hours of the same telephone call (tiled), each through the command line in
a process and a home of its own, and prints the peak memory of the process tree. What ten seconds take is the models' and the
libraries' share; the rest is what a recording's length costs. `--turns` measures only how speakers' turns are made of a
segmentation of that many hours and sixty speakers, in which no model runs.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.peers import SystemFailed
from bench.recordings import build, tiled
from bench.systems import stenoflow
from bench.voices import cache_folder


@dataclass(frozen=True)
class Point:
    """One run: the recording's length, and the most memory that its process tree and its largest process held."""

    name: str
    duration: float
    peak_bytes: int
    peak_process_bytes: int
    seconds: float
    words: int


def clip(audio: Path, start: float, end: float) -> Path:
    """A FLAC of the recording from `start` to `end` seconds, in the cache."""
    import soundfile

    target = cache_folder() / f"{audio.stem}-{start:g}-{end:g}.flac"
    if not target.is_file():
        rate = soundfile.info(audio).samplerate
        samples, _ = soundfile.read(audio, start=round(start * rate), stop=round(end * rate), dtype="int16")
        soundfile.write(target, samples, rate, format="FLAC", subtype="PCM_16")
    return target


def measure(name: str, audio: Path, model: str, timeout: float) -> Point:
    """One recording through Stenoflow. Raises SystemFailed."""
    import soundfile

    outcome = stenoflow(audio, model, timeout=timeout)
    return Point(
        name=name,
        duration=soundfile.info(audio).duration,
        peak_bytes=outcome.peak_bytes,
        peak_process_bytes=outcome.facts["peak_process_bytes"],
        seconds=outcome.seconds,
        words=len(outcome.words or ()),
    )


def prepare(audio: Path, model: str, timeout: float) -> None:
    """A run that is not counted. Ends the benchmark when it fails."""
    try:
        stenoflow(audio, model, timeout=timeout)
    except SystemFailed as error:
        sys.exit(f"The first run failed: {error}")


def table(points: Sequence[Point]) -> str:
    """The points as a Markdown table; the first is what the others are compared with."""
    lines = [
        "| recording | seconds of audio | peak, all processes | largest process | beyond the models' | wall seconds | words |"
    ]
    lines.append("|" + " --- |" * 7)
    for point in points:
        beyond = "–" if point is points[0] else f"{(point.peak_bytes - points[0].peak_bytes) / 1e9:.2f} GB"
        lines.append(
            f"| {point.name} | {point.duration:.0f} | {point.peak_bytes / 1e9:.2f} GB | {point.peak_process_bytes / 1e9:.2f} GB "
            f"| {beyond} | {point.seconds:.0f} | {point.words} |"
        )
    return "\n".join(lines)


def growth(points: Sequence[Point]) -> str:
    """What an hour of audio adds, between the last two points."""
    before, after = points[-2:]
    hours = (after.duration - before.duration) / 3600
    return (
        f"From {before.name} to {after.name}: {(after.peak_bytes - before.peak_bytes) / 1e6 / hours:+.0f} MB per hour of audio."
    )


def turns(hours: float, speakers: int) -> str:
    """What making turns of a made-up segmentation takes beyond the segmentation itself: memory and seconds, in a sentence."""
    import numpy as np

    from speech.diarize import labelled_turns
    from speech.diarize.segmentation import Segmentation
    from speech.schema import ClusterParams

    random = np.random.default_rng(0)
    chunks = int(hours * 3600 / 2.5)
    activity = np.repeat(random.random((chunks, 31, 3)) < 0.4, 19, axis=1)
    segmentation = Segmentation(activity, np.zeros(1, np.float32), 0.016875, 0.0619375, int(hours * 3600 * 16_000))
    labels = random.integers(-1, speakers, (chunks, 3))
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    found, _ = labelled_turns(segmentation, labels, speakers, ClusterParams())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (
        f"{len(found)} turns of {speakers} speakers in {hours:g} h: {(peak - before) * 1024 / 1e9:.2f} GB, "
        f"{time.perf_counter() - began:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--hours", type=float, default=3.0, help="length of the long recording (default: %(default)s)")
    parser.add_argument("--model", default="base", help="Whisper weights (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="also write the points as JSON")
    parser.add_argument("--timeout", type=float, default=6 * 3600, help="seconds for one run")
    parser.add_argument("--turns", action="store_true", help="measure only how turns are made of a long segmentation")
    asked = parser.parse_args()
    if asked.turns:
        print(turns(asked.hours, 60))
        return

    sample = build("sample").audio
    recordings = {
        "10 s": clip(sample, 10, 20),
        "10 min": tiled(sample, 1 / 6),
        f"{asked.hours:g} h": tiled(sample, asked.hours),
    }
    # A machine's first run converts the packaged weights, which takes more memory than any recording does.
    prepare(recordings["10 s"], asked.model, asked.timeout)
    points = []
    for name, audio in recordings.items():
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            points.append(measure(name, audio, asked.model, asked.timeout))
        except SystemFailed as error:
            sys.exit(f"{name}: {error}")
    print(table(points))
    print()
    print(growth(points))
    if asked.output:
        asked.output.write_text(json.dumps([asdict(point) for point in points], indent=1) + "\n")


if __name__ == "__main__":
    main()
