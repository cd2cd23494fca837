"""Speed beside peers on the same weights: `python -m bench.speed [--minutes 10] [--repeat 3] [--system NAME…] [--output FILE]`.

Each system transcribes the same recording of several speakers (`bench.meeting`) in a process of its own, one after the other, in
turn, `--repeat` times: Stenoflow and WhisperX with speakers, faster-whisper's batched pipeline and Stenoflow's engine for ASR
alone. Printed: what each took from end to end, the ratios with their spread, the engine stage by stage, clustering again with
another number of speakers, and what the command line takes on half a minute before and after its first stage.
docs/performance.md says how to read it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.accuracy import Row, evaluate, machine
from bench.meeting import meeting
from bench.peers import PEERS, SystemFailed, quiet_environment, run_quietly
from bench.peers import run as run_peer
from bench.recordings import Truth, build
from bench.systems import command_environment, measured, stenoflow
from bench.tables import markdown
from bench.voices import SpeechUnavailableError

SYSTEMS = ("stenoflow", "engine", *PEERS)


class Results:
    """All that was measured so far."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.rows: dict[str, list[Row]] = {}
        self.engine: list[dict[str, Any]] = []
        self.starts: list[dict[str, float]] = []

    def as_json(self) -> dict[str, Any]:
        rows = [asdict(row) for rows in self.rows.values() for row in rows]
        return {"machine": machine(), "rows": rows, "engine": self.engine, "starts": self.starts}


def measure(results: Results, audio: Path, systems: Sequence[str], model: str, home: Path, timeout: float) -> None:
    """Each system once, in turn. Raises SystemFailed."""
    for system in systems:
        print(f"{audio.stem}: {system} …", file=sys.stderr, flush=True)
        if system == "engine":
            results.engine.append(engine(audio, model, timeout))
            continue
        if system == "stenoflow":
            _forget(home)
            outcome = stenoflow(audio, model, timeout=timeout, home=home)
        else:
            outcome = run_peer(system, audio, model, timeout=timeout)
        results.rows.setdefault(system, []).append(evaluate(results.truth, model, outcome))


def used_home(folder: Path, model: str, timeout: float) -> Path:
    """A home in which the command has run before: a machine's first run makes Prefect's database, once (12 CPU seconds)."""
    stenoflow(build("sample").audio, model, timeout=timeout, home=folder)
    return folder


def _forget(home: Path) -> None:
    """Remove what earlier runs computed, so that every stage runs."""
    shutil.rmtree(home / "steno", ignore_errors=True)


def engine(audio: Path, model: str, timeout: float, device: str = "cpu", batch_size: int | None = None) -> dict[str, Any]:
    """`bench.engine` in a process of its own. Raises SystemFailed."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "engine.json")
        command = [sys.executable, "-m", "bench.engine", str(audio), "--model", model, "--output", str(output)]
        command += ["--device", device, *(["--batch-size", str(batch_size)] if batch_size else [])]
        run_quietly(command, quiet_environment(), timeout)
        found: dict[str, Any] = json.loads(output.read_text())
        return found


# -- the start of the command ---------------------------------------------------------------------------------------------

_IMPORT = "from stenoflow.cli.session import import_flow; import_flow()"
_SERVE = "from flows.local_server.server import TemporaryServer; server = TemporaryServer(); server.wait(); server.stop()"


def start(audio: Path, model: str, home: Path, timeout: float) -> dict[str, float]:
    """Seconds of one `steno transcribe` of a short clip, in a home used before: to its first stage, of each stage, and in all;
    and of the two things it does before, each measured alone. Raises SystemFailed."""
    environment = command_environment(home)
    alone, _ = measured([sys.executable, "-c", _IMPORT], environment, timeout)
    server, _ = measured([sys.executable, "-c", _SERVE], environment, timeout)
    command = [str(Path(sys.executable).with_name("steno")), "transcribe", str(audio), "--json", "--model", model]
    command += ["--output-file", str(home / "transcript.json")]
    began = time.perf_counter()
    # Its first event says that Prefect's API has answered and the run has begun.
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        first = time.perf_counter() - began
        ended = first
        for line in process.stdout:
            if '"type": "result"' in line:
                ended = time.perf_counter() - began
    if process.returncode:
        raise SystemFailed(f"steno transcribe ended with code {process.returncode}")
    return {
        "imports alone": alone.seconds,
        "imports alone, CPU": alone.cpu_seconds,
        "server alone": server.seconds,
        "server alone, CPU": server.cpu_seconds,
        "command to transcript": ended,
        "… of it to the first stage": first,
        "… of it from there on": ended - first,
        "transcript to exit": time.perf_counter() - began - ended,
        "all": time.perf_counter() - began,
    }


def starts(results: Results, model: str, repeat: int, home: Path, timeout: float) -> None:
    """The command on half a minute, every stage computed."""
    audio = build("sample").audio
    for _ in range(repeat):
        _forget(home)
        print(f"{audio.stem}: the start of the command …", file=sys.stderr, flush=True)
        results.starts.append(start(audio, model, home, timeout))


# -- printing -------------------------------------------------------------------------------------------------------------

_COLUMNS: tuple[tuple[str, Callable[[Row], float | None], str], ...] = (
    ("seconds", lambda row: row.seconds + row.load_seconds, "{:.0f}"),
    ("CPU s", lambda row: row.cpu_seconds, "{:.0f}"),
    ("× real time", lambda row: row.times_real_time, "{:.1f}"),
    ("peak GB", lambda row: row.peak_bytes / 1e9, "{:.2f}"),
    ("WER %", lambda row: 100 * row.wer, "{:.1f}"),
    ("DER %", lambda row: None if row.der is None else 100 * row.der, "{:.1f}"),
    ("word start MAE ms", lambda row: None if row.start_mae is None else 1000 * row.start_mae, "{:.0f}"),
)


def spread(values: Sequence[float], shape: str) -> str:
    """The median, and the least and most where they look different."""
    middle, least, most = (shape.format(value) for value in (statistics.median(values), min(values), max(values)))
    return middle if least == most else f"{middle} ({least}–{most})"


def table(results: Results) -> str:
    """Systems from end to end, as Markdown."""
    lines = [["system", *(name for name, _, _ in _COLUMNS)]]
    lines.append(["---"] * len(lines[0]))
    for system, rows in results.rows.items():
        cells = []
        for _, value, shape in _COLUMNS:
            values = [found for row in rows if (found := value(row)) is not None]
            cells.append(spread(values, shape) if values else "–")
        lines.append([system, *cells])
    return markdown(lines)


def ratios(results: Results) -> str:
    """Each peer's cost over Stenoflow's in the same round; for a peer of ASR alone, over the engine's ASR."""
    lines = []
    for peer in PEERS:
        rows = results.rows.get(peer, [])
        if peer == "faster-whisper":
            mine = [_asr_alone(run) for run in results.engine]
            what = "engine's segmentation, ASR and word times"
        else:
            mine = [(row.seconds + row.load_seconds, row.cpu_seconds) for row in results.rows.get("stenoflow", [])]
            what = "stenoflow"
        pairs = list(zip(rows, mine, strict=False))
        if pairs:
            wall = spread([(row.seconds + row.load_seconds) / ours[0] for row, ours in pairs], "{:.1f}")
            cpu = spread([row.cpu_seconds / ours[1] for row, ours in pairs], "{:.1f}")
            lines.append(f"{peer} / {what}: CPU seconds × {cpu}, wall time × {wall} ({len(pairs)} rounds)")
    return "\n".join(lines)


def _asr_alone(run: dict[str, Any]) -> tuple[float, float]:
    """Wall and CPU seconds of what gives text with word times, imports and loading included."""
    parts = [run["stages"][name] for name in ("imports", "load models", "decode", "segment", "asr", "align")]
    return sum(part["seconds"] for part in parts), sum(part["cpu_seconds"] for part in parts)


def stages(results: Results) -> str:
    """The engine stage by stage, and clustering again, as Markdown."""
    if not results.engine:
        return ""
    duration = results.engine[0]["duration"]
    lines = [["stage", "CPU s", "CPU s per minute of audio", "seconds"], ["---"] * 4]
    for kind, prefix in (("stages", ""), ("again", "other speakers: ")):
        for name in results.engine[0][kind]:
            cpu = [run[kind][name]["cpu_seconds"] for run in results.engine]
            wall = [run[kind][name]["seconds"] for run in results.engine]
            minute = "–" if prefix else f"{statistics.median(cpu) / duration * 60:.2f}"
            lines.append([prefix + name, spread(cpu, "{:.2f}"), minute, spread(wall, "{:.2f}")])
    return markdown(lines)


def starting(results: Results) -> str:
    """The command on half a minute, as Markdown."""
    if not results.starts:
        return ""
    lines = [["part", "seconds"], ["---"] * 2]
    for part in results.starts[0]:
        lines.append([part, spread([run[part] for run in results.starts], "{:.1f}")])
    return markdown(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.speed", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the recording (default: %(default)s, at most 11)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument("--system", nargs="+", default=SYSTEMS, choices=SYSTEMS, help="default: all")
    parser.add_argument("--model", default="base", choices=("tiny.en", "base"), help="Whisper weights (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="also write all numbers as JSON")
    parser.add_argument("--timeout", type=float, default=4 * 3600, help="seconds for one system on one recording")
    parser.add_argument("--no-start", action="store_true", help="leave out the start of the command")
    asked = parser.parse_args()
    try:
        recording = meeting(asked.minutes)
    except SpeechUnavailableError as error:
        sys.exit(str(error))
    results = Results(recording.truth())
    # It takes long: an interrupted benchmark prints what it has.
    with contextlib.suppress(KeyboardInterrupt), tempfile.TemporaryDirectory() as folder:
        try:
            home = used_home(Path(folder), asked.model, asked.timeout)
            if not asked.no_start:
                starts(results, asked.model, asked.repeat, home, asked.timeout)
            for _ in range(asked.repeat):
                measure(results, recording.audio, asked.system, asked.model, home, asked.timeout)
                if asked.output:
                    asked.output.write_text(json.dumps(results.as_json(), indent=1) + "\n")
        except SystemFailed as error:
            print(f"A system failed, and the rounds end here: {error}", file=sys.stderr)
    print(f"{results.truth.duration:.0f} s, {len(results.truth.speakers)} speakers, {os.cpu_count()} cores\n")
    print("\n\n".join(filter(None, (table(results), ratios(results), stages(results), starting(results)))))


if __name__ == "__main__":
    main()
