"""`make demo`: a real phone conversation of two people through the command line, and what came of it.

The recording ships inside pyannote.audio (`sample/sample.wav`, 30 s), which `make demo` unpacks beside the environment. The command is the public one, `steno transcribe
--json`; its events are drawn as they arrive.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from infra.progress import StageEvent
from speech.stages import AROUND
from stenoflow.cli.progress import StageTable, live, terminal
from stenoflow.cli.report import duration, near

MODEL = "tiny.en"
OUTPUT = "demo-output"


def sample_recording() -> Path:
    """The conversation inside pyannote.audio: as `make demo` unpacked it, or where the package is installed. It is not imported."""
    spec = importlib.util.find_spec("pyannote")
    for root in (Path(sys.prefix, "demo", "pyannote"), *((spec.submodule_search_locations or []) if spec else [])):
        path = Path(root, "audio", "sample", "sample.wav")
        if path.is_file():
            return path
    raise SystemExit("The demo's recording is not here: run it as `make demo`.")


def main() -> int:
    options = ["--model", MODEL, "--format", "all", "--output-dir", OUTPUT]
    source = sample_recording()
    print(f"$ steno transcribe {near(str(source))} {' '.join(options)}\n", flush=True)
    # The demo shows what pip installed; with a token, `auto` would fetch the hub's models.
    environment = os.environ | {"STENO_OFFLINE": "1"}
    command = [sys.executable, "-m", "stenoflow.cli.main", "transcribe", "--json", *options, str(source)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        result = follow(process.stdout)
    if result is None:
        return process.returncode or 1
    show_transcript(json.loads(Path(result["files"]["json"]).read_text()))
    show_stages(result)
    show_files(result)
    show_set_up()
    return process.returncode


def follow(lines: Iterable[str]) -> dict[str, Any] | None:
    """Draw the events of `steno --json` and return its result; None when there was an error, which is printed."""
    table = StageTable(f"{OUTPUT}: sample.wav", note="starting (the first time, Prefect's database is made)")
    result: dict[str, Any] | None = None
    with ExitStack() as stack:
        if console := terminal():
            stack.enter_context(live(console, table, keep=False))
        for line in lines:
            message = json.loads(line)
            kind = message.pop("type")
            if kind == "stage":
                message.pop("source")
                table(StageEvent(**message))
            elif kind == "result":
                result = message
            else:
                print(f"steno: error: {message['message']}", file=sys.stderr)
    return result


def show_transcript(transcript: dict[str, Any]) -> None:
    for segment in transcript["segments"]:
        print(f"{segment['start']:6.2f} – {segment['end']:6.2f}  {segment.get('speaker') or '?'}  {segment['text'].strip()}")
    words = transcript["word_segments"]
    timed = sum(word["end"] >= word["start"] for word in words)
    named = sum(word.get("speaker") is not None for word in words)
    print(f"\n{len(words)} words: {timed} with a time, {named} with a speaker.\n")


def show_stages(result: dict[str, Any]) -> None:
    print(f"{'stage':<9} {'':<9} {'seconds':>8}  {'computed in':>11}")
    for stage in result["stages"]:
        what = {"cached": "reused"}.get(stage["state"], stage["state"])
        computed = f"{stage['compute_seconds']:.1f}" if stage["compute_seconds"] is not None else ""
        print(f"{stage['stage']:<9} {what:<9} {stage['seconds']:>8.1f}  {computed:>11}")
    stages = [stage for stage in result["stages"] if stage["state"] in ("computed", "cached") and stage["stage"] not in AROUND]
    reused = sum(stage["state"] == "cached" for stage in stages)
    pace = result["duration"] / max(result["total_seconds"], 0.001)
    print(f"\n{duration(result['duration'])} of audio in {duration(result['total_seconds'])} ({pace:.1f} × real time).")
    if reused == len(stages):
        print("Every stage was reused: nothing was computed again, and no run of it made.")
    elif reused:
        print(f"{reused} of {len(stages)} stages were reused.")
    else:
        print("Run it again: every stage will be reused.")


def show_files(result: dict[str, Any]) -> None:
    print("\nFiles:")
    for path in result["files"].values():
        print(f"  {near(path)}")
    if all(stage["state"] != "computed" for stage in result["stages"] if stage["stage"] not in AROUND):
        return
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    print(f"\nThe run itself is in {home}; `.venv/bin/prefect server start` shows it at http://127.0.0.1:4200.")


def show_set_up() -> None:
    """What `make` installed, and how long that took; nothing when something else did."""
    took = Path(sys.prefix, "set-up-seconds")
    if took.is_file():
        size = sum(path.lstat().st_size for path in Path(sys.prefix).rglob("*") if not path.is_dir())
        torch = "with" if importlib.util.find_spec("torch") else "without"
        print(f"\n.venv was set up in {duration(float(took.read_text()))}: {size / 1e9:.1f} GB, {torch} torch.")


if __name__ == "__main__":
    sys.exit(main())
