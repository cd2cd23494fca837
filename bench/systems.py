"""Stenoflow as a user runs it, for the benchmarks: the command line, in a process and a home of its own."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peers import Outcome, SystemFailed, quiet_environment
from speech.scoring import Spoken

_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Cost:
    """What a process and all its children took."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    """Most memory of all of them at once, sampled twice a second; shared pages are counted once (proportional set size)."""
    peak_process_bytes: int
    """Most resident memory of the largest single process, by the kernel's own account (getrusage)."""


def stenoflow(
    audio: Path,
    model: str,
    *,
    language: str | None = None,
    timeout: float = 3600,
    home: Path | None = None,
    options: Sequence[str] = (),
) -> Outcome:
    """`steno transcribe` on `audio` with further `options`, in a fresh home unless one is given. Raises SystemFailed."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        command = [str(Path(sys.executable).with_name("steno")), "transcribe", str(audio), "--json", "--model", model]
        command += ["--output-file", str(work / "transcript.json")]
        command += ["--language", language] if language else []
        command += options
        cost, events = measured(command, command_environment(home or work), timeout)
        transcript = json.loads((work / "transcript.json").read_text())
        stages = _stage_seconds(events)
    words = [_spoken(word, "word") for word in transcript["word_segments"]]
    return Outcome(
        system="stenoflow",
        language=transcript["language"],
        text=" ".join(segment["text"].strip() for segment in transcript["segments"]),
        segments=[_spoken(segment, "text") for segment in transcript["segments"]],
        words=words,
        turns=[(turn["speaker"], turn["start"], turn["end"]) for turn in transcript["turns"]],
        seconds=cost.seconds,
        load_seconds=0.0,
        cpu_seconds=cost.cpu_seconds,
        peak_bytes=cost.peak_bytes,
        facts={"stages": stages, "warnings": transcript.get("warnings", []), "peak_process_bytes": cost.peak_process_bytes},
    )


def command_environment(home: Path) -> dict[str, str]:
    """A home of its own, so that nothing is taken from a cache. Joined weights are shared: joining them is no work of the run."""
    models = Path(os.environ.get("STENO_MODELS_DIR") or _ROOT / ".cache" / "models")
    elsewhere = {"PREFECT_API_URL", "PREFECT_API_KEY", "STENO_STORE", "STENO_SCRATCH"}
    return {name: value for name, value in quiet_environment().items() if name not in elsewhere} | {
        "STENO_HOME": str(home / "steno"),
        "STENO_MODELS_DIR": str(models),
        "STENO_OFFLINE": "1",
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
    }


def _spoken(item: dict[str, Any], key: str) -> Spoken:
    return Spoken(str(item[key]).strip(), item.get("start"), item.get("end"), item.get("speaker"))


def _stage_seconds(printed: str) -> dict[str, float]:
    """Seconds by stage, from the JSON lines that the command printed."""
    stages: dict[str, float] = {}
    for line in printed.splitlines():
        event = json.loads(line) if line.startswith("{") else {}
        if event.get("stage") and event.get("seconds") is not None:
            stages[event["stage"]] = event["seconds"]
    return stages


def measured(command: list[str], environment: dict[str, str], timeout: float) -> tuple[Cost, str]:
    """Run the command; what it cost, and what it printed. Raises SystemFailed when it fails or takes too long."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began, peak = time.perf_counter(), 0
        process = subprocess.Popen(command, cwd=_ROOT, env=environment, stdout=out, stderr=err, start_new_session=True)
        try:
            while True:
                # wait4 rather than Popen.wait: it alone tells what this child, and not its siblings before it, has used.
                ended, status, usage = os.wait4(process.pid, os.WNOHANG)
                if ended:
                    break
                if time.perf_counter() - began > timeout:
                    raise SystemFailed(f"no result within {timeout:.0f} s")
                peak = max(peak, tree_bytes(process.pid))
                time.sleep(0.5)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode:
            err.seek(0)
            raise SystemFailed(f"exit code {process.returncode}: {err.read().strip()[-600:]}")
        out.seek(0)
        # A child starts with its parent's high-water mark; below that the kernel's account says nothing of the child.
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        largest = usage.ru_maxrss * 1024 if usage.ru_maxrss > own else peak
        cost = Cost(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, max(peak, largest), largest)
        return cost, out.read()


def tree_bytes(pid: int) -> int:
    """Memory of a process and its children now; 0 when it has ended."""
    import psutil

    total = 0
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                memory = process.memory_full_info()
                total += getattr(memory, "pss", 0) or memory.rss
    return total
