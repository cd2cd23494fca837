"""Mutated containers, and the result of each: `python -m bench.containers [--count 300] [--seed 0] [--through-cli]`.

Each of ten kinds of container is mutated in size, tracks, channels, time stamps, length and name (`bench.mutations`; a seed gives the same
files every time) and decoded as a run would. The speech has a mark every half second, which must come out where a player shows it,
within 50 ms, or a warning must say that it does not; none may be silence without one; and what is refused is refused by one of our errors.
`--through-cli` has `steno transcribe` do it, in one process, with an ASR that writes down a word for every mark that it hears: what is
judged are the words of the transcript, the warnings of the result, and the error's code.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.mutations import SECONDS, Mutant, mutant
from bench.tables import markdown
from infra.artifacts import StageOutcome
from infra.jobs import ProgressSink, StageJob
from infra.local import LocalCompute
from infra.settings import StenoSettings
from speech.audio import Recording, normalise
from speech.schema import AlignResult, AsrResult, AsrSegment, AsrWord, Region
from stenoflow.errors import MediaError
from stenoflow.types import Segment, Word
from tests.media import bursts, marks
from tests.stage_double import MODEL, leave, stand_in

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


def judged(case: Mutant, found: list[float | None], warnings: Iterable[str]) -> Outcome:
    """What came of a file that was not refused: how far each of its marks is from where a player shows it."""
    off = [shift for shift in found if shift is not None]
    said = "; ".join(warnings)
    if len(off) < len(found):
        return Outcome(
            "warned" if case.damaged and said else "silent", f"{len(found) - len(off)} of {len(found)} marks missing; {said}"
        )
    worst = max(map(abs, off), default=0.0)
    if worst > SHIFT + _LAG.get(case.kind, 0.0):
        return Outcome("warned" if said else "shifted", f"{worst:.3f} s off; {said}")
    return Outcome("on time", f"{worst:.3f} s off{'; ' + said if said else ''}")


def refused(case: Mutant, code: str, message: str) -> Outcome:
    """What came of a file that an error was the answer to."""
    return Outcome("refused" if case.damaged and code != "internal" else "failed", f"{code}: {message}")


def due(case: Mutant) -> list[float]:
    """Where a player shows each mark, without those at which the time stamps leap."""
    moments = [half / 2 + 0.25 for half in range(int(2 * SECONDS) - 1)]
    return [case.clock(moment) for moment in moments if abs(case.clock(moment + 0.1) - case.clock(moment - 0.1) - 0.2) < 0.04]


# -- as a run decodes it ----------------------------------------------------------------------------------------------


def decoded(cases: Iterable[Mutant], folder: Path) -> Iterator[tuple[Mutant, Outcome]]:
    """The result of each; its file is removed."""
    for case in cases:
        yield case, outcome(case, folder / "out.flac")
        for file in folder.iterdir():
            file.unlink()


def outcome(case: Mutant, target: Path) -> Outcome:
    """What came of one file."""
    try:
        info = normalise(case.path, target, max_duration=3600.0)
    except MediaError as error:
        return refused(case, error.code, str(error))
    with Recording(target) as recording:
        ours = recording.read(0, recording.samples)
    return judged(case, marks(ours, due(case)), info.warnings)


# -- through the command line -----------------------------------------------------------------------------------------


class WordsOfMarks:
    """A compute backend that hears a word in every mark. Merging is the engine's own."""

    async def run(self, job: StageJob, progress: ProgressSink) -> StageOutcome:
        from infra.compute import get_store

        if job.stage == "merge":
            return await LocalCompute(get_store()).run(job, progress)
        if job.stage not in ("asr", "align"):
            return stand_in(job)
        with get_store().local(job.inputs["audio"]) as path, Recording(path) as recording:
            starts = bursts(recording.read(0, recording.samples))
        return leave(job, _asr(starts) if job.stage == "asr" else _aligned(starts))


def compute(settings: StenoSettings) -> WordsOfMarks:
    return WordsOfMarks()


def _asr(starts: list[float]) -> str:
    segments = tuple(
        AsrSegment(
            start=start,
            end=start + 0.1,
            text="mark",
            words=(AsrWord(word="mark", start=start, end=start + 0.1, score=1.0),),
            regions=(Region(start=start, end=start + 0.1),),
            avg_logprob=0.0,
            no_speech_prob=0.0,
        )
        for start in starts
    )
    return AsrResult(language="en", segments=segments, model=MODEL).model_dump_json()


def _aligned(starts: list[float]) -> str:
    words = [Word(word="mark", start=start, end=start + 0.1, score=1.0, timing="attention") for start in starts]
    segments = tuple(Segment(start=word.start, end=word.end, text=word.word, words=(word,)) for word in words)
    return AlignResult(segments=segments, model=MODEL, method="attention").model_dump_json()


def through_cli(cases: list[Mutant], folder: Path) -> Iterator[tuple[Mutant, Outcome]]:
    """The result of each, from the output of one `steno transcribe` and writes."""
    out = folder / "transcripts"
    command = [sys.executable, "-m", "stenoflow.cli.main", "transcribe", "--json", "--no-diarize", "-l", "en", "-m", "tiny.en"]
    homes = {"PREFECT_HOME": str(folder / "prefect"), "STENO_HOME": str(folder / "steno")}
    ours = {"STENO_COMPUTE__BACKEND": "bench.containers:compute", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*command, "-o", str(out), *(str(case.path) for case in cases)],
        env=os.environ | homes | ours,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    said = {line["source"]: line for line in lines if line["type"] in ("result", "error")}
    for case in cases:
        line: dict[str, Any] = said.get(case.path.name, {"type": "nothing"})
        if line["type"] == "result":
            words = json.loads((out / f"{case.path.stem}.json").read_text())["word_segments"]
            yield case, judged(case, _nearest([word["start"] for word in words], due(case)), line["warnings"])
        elif line["type"] == "error":
            yield case, refused(case, line["code"], line["message"])
        else:
            yield case, Outcome("failed", f"nothing said; exit code {done.returncode}: {done.stderr[-300:]}")


def _nearest(starts: list[float], due: list[float], reach: float = 0.25) -> list[float | None]:
    """For each moment, how far the nearest word is; None where there is none within `reach`: half the way to the next mark."""
    heard = np.array(starts or [np.inf])
    shifts = [float(heard[np.argmin(np.abs(heard - moment))] - moment) for moment in due]
    return [shift if abs(shift) < reach else None for shift in shifts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--through-cli", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = (mutant(folder, asked.seed + number) for number in range(asked.count))
        broken = show(through_cli(list(made), folder) if asked.through_cli else decoded(made, folder))
    sys.exit(1 if broken else 0)


def show(outcomes: Iterable[tuple[Mutant, Outcome]]) -> int:
    """Print what came of each kind, and of each file that breaks a promise as it is met; how many do. Ctrl-C ends it early."""
    counts: dict[str, Counter[str]] = {}
    with contextlib.suppress(KeyboardInterrupt):
        for case, result in outcomes:
            counts.setdefault(case.kind, Counter())[result.state] += 1
            if result.broken:
                print(f"{case.path.name} ({case.kind}, {case.what}): {result.state}: {result.detail}", flush=True)
    states = ("on time", "warned", "refused", "shifted", "silent", "failed")
    rows = [["kind", *states], ["---", *["---:"] * len(states)]]
    print(markdown([*rows, *([kind, *(str(found[state]) for state in states)] for kind, found in counts.items())]), flush=True)
    return sum(found[state] for found in counts.values() for state in ("shifted", "silent", "failed"))


if __name__ == "__main__":
    main()
