"""Several recordings in one command beside a command for each: `python -m bench.several [--count 6] [--seconds 90] [--model base]`.

The recordings are stretches of `bench.speed`'s meeting. They are transcribed with speakers by `steno transcribe`, one command after the
other, and by one `steno batch` with each `--concurrency`, in homes where the command has run before, every stage computed. Printed:
seconds, CPU seconds and most memory of each way, and how often one command after the other takes that long.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.meeting import meeting
from bench.memory import clip
from bench.peers import SystemFailed
from bench.speed import used_home
from bench.systems import command_environment, measured, stenoflow
from bench.tables import markdown
from bench.voices import SpeechUnavailableError


@dataclass(frozen=True)
class Way:
    """What it took to transcribe all recordings."""

    name: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int


def alone(recordings: Sequence[Path], model: str, home: Path, timeout: float) -> Way:
    """A command for each. Raises SystemFailed."""
    outcomes = [stenoflow(audio, model, timeout=timeout, home=home) for audio in recordings]
    return Way(
        "a command for each",
        sum(outcome.seconds for outcome in outcomes),
        sum(outcome.cpu_seconds for outcome in outcomes),
        max(outcome.peak_bytes for outcome in outcomes),
    )


def together(recordings: Sequence[Path], concurrency: int, model: str, home: Path, timeout: float) -> Way:
    """One batch of them all. Raises SystemFailed, also when a recording was not done."""
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "in"), Path(folder, "out")
        source.mkdir()
        for audio in recordings:
            shutil.copy(audio, source)
        command = [str(Path(sys.executable).with_name("steno")), "batch", str(source), "--json", "--model", model]
        command += ["--concurrency", str(concurrency), "--output-dir", str(output)]
        environment = command_environment(home) | {"STENO_BATCH__SETTLE_SECONDS": "0"}
        cost, _ = measured(command, environment, timeout)
        written = len([path for path in output.rglob("*.json") if json.loads(path.read_bytes())["segments"]])
    if written != len(recordings):
        raise SystemFailed(f"{written} of {len(recordings)} recordings were done")
    return Way(f"one batch, {concurrency} at a time", cost.seconds, cost.cpu_seconds, cost.peak_bytes)


def table(ways: Sequence[Way], audio_seconds: float) -> str:
    """The ways as Markdown; the first is what the others are compared with."""
    lines = [["way", "seconds", "CPU s", "× real time", "peak GB", "times as fast"], ["---"] * 6]
    for way in ways:
        numbers = [
            way.seconds,
            way.cpu_seconds,
            audio_seconds / way.seconds,
            way.peak_bytes / 1e9,
            ways[0].seconds / way.seconds,
        ]
        lines.append([way.name, *(f"{number:.{places}f}" for number, places in zip(numbers, (0, 0, 1, 2, 2), strict=True))])
    return markdown(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.several", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=6, help="recordings (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=90.0, help="of each (default: %(default)s)")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 2], help="of the batches (default: 1 2)")
    parser.add_argument("--model", default="base", choices=("tiny.en", "base"), help="Whisper weights (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds for one command")
    asked = parser.parse_args()
    try:
        whole = meeting(min(11.0, asked.count * asked.seconds / 60))
        length = whole.truth().duration / asked.count
        recordings = [clip(whole.audio, number * length, (number + 1) * length) for number in range(asked.count)]
        print(f"{asked.count} recordings of {length:.0f} s …", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            ways = [alone(recordings, asked.model, used_home(Path(folder, "alone"), asked.model, asked.timeout), asked.timeout)]
            for number in asked.concurrency:
                home = used_home(Path(folder, str(number)), asked.model, asked.timeout)
                ways.append(together(recordings, number, asked.model, home, asked.timeout))
    except (SpeechUnavailableError, SystemFailed) as error:
        sys.exit(str(error))
    print(f"{asked.count} recordings of {length:.0f} s, {os.cpu_count()} cores\n")
    print(table(ways, whole.truth().duration))


if __name__ == "__main__":
    main()
