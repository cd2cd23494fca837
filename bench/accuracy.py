"""Accuracy beside peers on the same weights: `python -m bench.accuracy [--only NAME…] [--system NAME…] [--output FILE]`.

Prints one Markdown table. Every system runs in a process of its own, one after the other, on recordings with truth
(`bench.recordings`); docs/accuracy.md says what the columns mean. Times are printed and never judged.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import peers
from bench.metrics import backwards, without_speaker, without_time, wrong_speakers
from bench.peers import Outcome, SystemFailed
from bench.recordings import Recording, Truth, build_all
from bench.systems import stenoflow
from bench.tables import markdown
from speech.scoring import (
    Spoken,
    diarization_errors,
    speaker_attributed_errors,
    texts_by_speaker,
    time_constrained_errors,
    time_errors,
    whisper_normalise,
    word_errors,
)

SYSTEMS = ("stenoflow", *peers.PEERS)
MODELS = {"sample": ("tiny.en", "base")}
"""Whisper weights by recording; every other takes the multilingual ones."""
DEFAULT = ("sample", "en", "fr", "es", "conversation")


@dataclass(frozen=True)
class Row:
    """One system on one recording; None where the system does not give what the column is about, or truth does not say."""

    recording: str
    model: str
    system: str
    language: str
    wer: float
    wer_whisper: float
    cp_wer: float | None
    tcp_wer: float | None
    der: float | None
    wrong_words: int | None
    words_matched: int | None
    speakers_found: int | None
    speakers_true: int
    start_mae: float | None
    start_median: float | None
    start_bias: float | None
    words_timed: int | None
    backwards: int | None
    without_time: int | None
    without_speaker: int | None
    seconds: float
    load_seconds: float
    cpu_seconds: float
    peak_bytes: int
    times_real_time: float
    facts: dict[str, Any]


def evaluate(truth: Truth, model: str, outcome: Outcome) -> Row:
    """Every column for one outcome."""
    words = outcome.words
    times = time_errors(_true_words(truth), words, truth.language) if words is not None else None
    turns = outcome.turns
    der = diarization_errors(truth.activity, turns, truth.duration).rate if turns is not None else None
    spoken: dict[str, str] = {}
    for turn in truth.turns:
        spoken[turn.speaker] = f"{spoken.get(turn.speaker, '')} {turn.text}"
    heard = words if words is not None else outcome.segments
    said = [Spoken(turn.text, turn.start, turn.end, turn.speaker) for turn in truth.turns]
    wrong = wrong_speakers(_true_words(truth), words, truth.language) if words is not None and turns is not None else None
    timed = None if turns is None else time_constrained_errors(said, heard, truth.language)
    return Row(
        recording=truth.name,
        model=model,
        system=outcome.system,
        language=outcome.language,
        wer=word_errors(truth.text, outcome.text, truth.language).rate,
        wer_whisper=word_errors(truth.text, outcome.text, truth.language, whisper_normalise).rate,
        cp_wer=None if turns is None else speaker_attributed_errors(spoken, texts_by_speaker(heard), truth.language).rate,
        tcp_wer=None if timed is None else timed.rate,
        der=der,
        wrong_words=wrong[0] if wrong else None,
        words_matched=wrong[1] if wrong else None,
        speakers_found=None if turns is None else len({speaker for speaker, _, _ in turns}),
        speakers_true=len(truth.speakers),
        start_mae=times.start_mae if times else None,
        start_median=times.start_median if times else None,
        start_bias=times.start_bias if times else None,
        words_timed=times.matched if times else None,
        backwards=None if words is None else backwards(words),
        without_time=None if words is None else without_time(words),
        without_speaker=None if words is None or turns is None else without_speaker(words),
        seconds=outcome.seconds,
        load_seconds=outcome.load_seconds,
        cpu_seconds=outcome.cpu_seconds,
        peak_bytes=outcome.peak_bytes,
        times_real_time=truth.duration / (outcome.seconds + outcome.load_seconds),
        facts=outcome.facts,
    )


def _true_words(truth: Truth) -> list[Spoken]:
    """Every word said, with its time where that is known."""
    words: list[Spoken] = []
    for turn in truth.turns:
        timed = turn.words or [(word, None, None) for word in turn.text.split()]
        words += [Spoken(word, start, end, turn.speaker) for word, start, end in timed]
    return words


def measure(
    recordings: Iterable[Recording],
    systems: Sequence[str],
    models: Sequence[str],
    say: Callable[[str], None],
    *,
    timeout: float,
) -> Iterator[Row]:
    """Run each system on each recording, and give each row as it is done. One that fails is reported to `say` and omitted."""
    for recording in recordings:
        truth = recording.truth()
        for model in models or MODELS.get(truth.name, ("base",)):
            for system in systems:
                say(f"{truth.name}: {system} with {model} …")
                try:
                    run = stenoflow if system == "stenoflow" else _peer(system)
                    yield evaluate(truth, model, run(recording.audio, model, timeout=timeout))
                except SystemFailed as error:
                    say(f"{truth.name}: {system} with {model} failed: {error}")


def _peer(system: str) -> Callable[..., Outcome]:
    def run(audio: Path, model: str, *, timeout: float) -> Outcome:
        return peers.run(system, audio, model, timeout=timeout)

    return run


# -- printing -------------------------------------------------------------------------------------------------------------

_COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("recording", lambda row: row.recording),
    ("model", lambda row: row.model),
    ("system", lambda row: row.system),
    ("language", lambda row: row.language),
    ("WER", lambda row: _percent(row.wer)),
    ("WER, Whisper's", lambda row: _percent(row.wer_whisper)),
    ("cpWER", lambda row: _percent(row.cp_wer)),
    ("tcpWER", lambda row: _percent(row.tcp_wer)),
    ("wrong speaker", lambda row: "–" if row.wrong_words is None else f"{row.wrong_words}/{row.words_matched}"),
    ("DER", lambda row: _percent(row.der)),
    ("speakers", lambda row: f"{_number(row.speakers_found)}/{row.speakers_true}"),
    ("word start MAE / median", lambda row: _milliseconds(row.start_mae, row.start_median)),
    ("backwards", lambda row: _number(row.backwards)),
    ("no time", lambda row: _number(row.without_time)),
    ("no speaker", lambda row: _number(row.without_speaker)),
    ("seconds", lambda row: f"{row.seconds + row.load_seconds:.0f}"),
    ("× real time", lambda row: f"{row.times_real_time:.1f}"),
    ("CPU s", lambda row: f"{row.cpu_seconds:.0f}"),
    ("peak GB", lambda row: f"{row.peak_bytes / 1e9:.2f}"),
)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _number(value: int | None) -> str:
    return "–" if value is None else str(value)


def _milliseconds(mean: float | None, median: float | None) -> str:
    return "–" if mean is None or median is None else f"{1000 * mean:.0f} / {1000 * median:.0f} ms"


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [[name for name, _ in _COLUMNS], ["---"] * len(_COLUMNS), *([show(row) for _, show in _COLUMNS] for row in rows)]
    return markdown(lines)


def ratios(rows: Sequence[Row]) -> str:
    """Stenoflow beside each peer, over the recordings and weights that both did."""
    lines = []
    ours = {(row.recording, row.model): row for row in rows if row.system == "stenoflow"}
    for peer in peers.PEERS:
        pairs = [(ours[key], row) for row in rows if row.system == peer and (key := (row.recording, row.model)) in ours]
        if pairs:
            wer = statistics.fmean(mine.wer for mine, _ in pairs) / max(statistics.fmean(row.wer for _, row in pairs), 1e-9)
            time = sum(mine.seconds + mine.load_seconds for mine, _ in pairs) / sum(
                row.seconds + row.load_seconds for _, row in pairs
            )
            lines.append(f"stenoflow / {peer}: mean WER × {wer:.2f}, wall time with loading × {time:.2f} ({len(pairs)} runs)")
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", default=DEFAULT, metavar="RECORDING", help="default: %(default)s; also it, ru")
    parser.add_argument("--system", nargs="+", default=SYSTEMS, choices=SYSTEMS, help="default: all")
    parser.add_argument("--model", nargs="+", default=(), choices=("tiny.en", "base"), help="default: base, on sample both")
    parser.add_argument(
        "--recording", nargs="+", type=Path, default=(), help="own audio files, each with NAME.json and NAME.rttm"
    )
    parser.add_argument("--output", type=Path, help="also write the rows as JSON")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds for one system on one recording")
    asked = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    recordings = [Recording(path) for path in asked.recording] or build_all(asked.only, say)
    rows: list[Row] = []
    # It takes long: what is measured is on disk at once, and an interrupted benchmark prints what it has.
    with contextlib.suppress(KeyboardInterrupt):
        for row in measure(recordings, asked.system, asked.model, say, timeout=asked.timeout):
            rows.append(row)
            if asked.output:
                asked.output.write_text(json.dumps({"machine": machine(), "rows": list(map(asdict, rows))}, indent=1) + "\n")
    print(table(rows))
    print()
    print(ratios(rows))
    if not rows:
        sys.exit("No recording could be measured; see the lines above.")


if __name__ == "__main__":
    main()
