"""Mutated containers, and what comes of each: `python -m bench.containers [--count 300] [--seed 0] [--through-cli 10]`.

Each of ten kinds of container is mutated in size, tracks, channels, time stamps, length and name (`bench.mutations`; a seed gives the same
files every time) and decoded as a run would. The speech has a mark every half second, which must come out where a player shows it,
within 50 ms, or a warning must say that it does not; none may be silence without one; and what is refused is refused by one of our errors. `--through-cli` sends the first of them through `steno transcribe` as well.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.mutations import SECONDS, Mutant, mutant
from bench.tables import markdown
from speech.audio import Recording, normalise
from speech.errors import MediaError
from tests.media import marks

SHIFT = 0.05
"""Seconds by which words may be off without a warning."""
_LAG = {"mpegts": 0.045, "flv": 0.045}
"""Seconds of an encoder's delay that these containers do not tell: players show it as well."""


class Outcome(NamedTuple):
    state: str
    """`on time`, `warned` or `refused`; `shifted`, `silent` or `failed` where a promise is broken."""
    detail: str

    @property
    def broken(self) -> bool:
        return self.state in ("shifted", "silent", "failed")


def outcome(case: Mutant, target: Path) -> Outcome:
    """What came of one file."""
    try:
        info = normalise(case.path, target, max_duration=3600.0)
    except MediaError as error:
        return Outcome("refused" if case.damaged else "failed", f"{error.code}: {error}")
    with Recording(target) as recording:
        ours = recording.read(0, recording.samples)
    found = shifts(ours, case)
    off = [shift for shift in found if shift is not None]
    said = "; ".join(info.warnings)
    if len(off) < len(found):
        return Outcome(
            "warned" if case.damaged and info.warnings else "silent",
            f"{len(found) - len(off)} of {len(found)} marks missing; {said}",
        )
    worst = max(map(abs, off), default=0.0)
    if worst > SHIFT + _LAG.get(case.kind, 0.0):
        return Outcome("warned" if info.warnings else "shifted", f"{worst:.3f} s off; {said}")
    return Outcome("on time", f"{worst:.3f} s off{'; ' + said if said else ''}")


def shifts(ours: np.ndarray, case: Mutant) -> list[float | None]:
    """For each mark, how far it is from where a player shows it, in seconds; None where it is not heard."""
    moments = [half / 2 + 0.25 for half in range(int(2 * SECONDS) - 1)]
    smooth = [moment for moment in moments if abs(case.clock(moment + 0.1) - case.clock(moment - 0.1) - 0.2) < 0.04]
    return marks(ours, [case.clock(moment) for moment in smooth])  # without those at which the time stamps leap


def through_cli(cases: list[Mutant], folder: Path) -> list[str]:
    """What `steno transcribe` breaks of its promises: anything but a transcript with words or an error of its own."""
    command = [sys.executable, "-m", "stenoflow.cli.main", "transcribe", "--json", "--no-diarize", "-l", "en", "-m", "tiny.en"]
    done = subprocess.run(
        [*command, "-o", str(folder), *(str(case.path) for case in cases)], capture_output=True, text=True, check=False
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    broken = []
    for case in cases:
        last: dict[str, Any] = next(
            (line for line in reversed(lines) if line.get("source") == case.path.name and line["type"] != "stage"), {}
        )
        if last.get("type") == "result" and last.get("words"):
            continue
        if last.get("type") == "error" and last["code"] != "internal" and case.damaged:
            continue
        broken.append(f"{case.path.name} ({case.kind}, {case.what}): {last or done.stderr[-300:]}")
    return broken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--through-cli", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        broken = decoded(asked.seed, asked.count, Path(name))
        cases = [mutant(Path(name), asked.seed + number) for number in range(asked.through_cli)]
        told = through_cli(cases, Path(name) / "transcripts") if cases else []
    if cases:
        print(f"Through the command line: {len(cases) - len(told)} of {len(cases)}.", *told, sep="\n")
    sys.exit(1 if broken or told else 0)


def decoded(seed: int, count: int, folder: Path) -> int:
    """Print what came of each kind, and of each file that breaks a promise as it is met; how many do. Ctrl-C ends it early."""
    counts: dict[str, Counter[str]] = {}
    with contextlib.suppress(KeyboardInterrupt):
        for number in range(count):
            case = mutant(folder, seed + number)
            result = outcome(case, folder / "out.flac")
            counts.setdefault(case.kind, Counter())[result.state] += 1
            if result.broken:
                print(f"{case.path.name} ({case.kind}, {case.what}): {result.state}: {result.detail}", flush=True)
            for file in folder.iterdir():
                file.unlink()
    states = ("on time", "warned", "refused", "shifted", "silent", "failed")
    rows = [["kind", *states], ["---", *["---:"] * len(states)]]
    print(markdown([*rows, *([kind, *(str(found[state]) for state in states)] for kind, found in counts.items())]), flush=True)
    return sum(found[state] for found in counts.values() for state in ("shifted", "silent", "failed"))


if __name__ == "__main__":
    main()
