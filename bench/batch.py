"""A batch under fire: `python -m bench.batch [--count 1000] [--kills 2]`.

`--count` short recordings in an S3 bucket go through `steno batch` against a real Prefect server. Everything is the product
but the models, whose stages leave small artifacts at once: fetching, decoding, merging, exporting, the store, the runs. On the
way 2 % of the recordings kill the process that computes them, every time; 10 % fail once in a way that passes; S3 answers 5 %
of all requests with an error; and the command itself is killed with `kill -9` `--kills` times and given again, as its user would.

Printed are what became of every recording, how fast that was, what orchestration costs per recording, and the memory of the
processes as the batch goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from infra.artifacts import StageOutcome
from infra.compute import get_store
from infra.jobs import ProgressSink, StageJob
from infra.local import LocalCompute
from infra.settings import StenoSettings
from stenoflow.errors import TransientError

ROOT = Path(__file__).parents[1]
SECONDS = 1.0
"""Of each recording."""
POISON = 50
"""One in so many kills its process."""
POISON_AT = 7
"""Which one of them."""
TRANSIENT = 10
"""One in so many fails once."""
FAULTS = 0.05
"""Share of S3's answers that are errors."""
PLAN = "BENCH_BATCH_PLAN"


class FaultyStages:
    """A compute backend whose stages leave small artifacts at once, and fail as the plan says."""

    def __init__(self) -> None:
        self._folder = Path(os.environ[PLAN])
        self._plan = json.loads((self._folder / "plan.json").read_text())

    async def run(self, job: StageJob, progress: ProgressSink) -> StageOutcome:
        from tests.stage_double import stand_in

        audio = job.inputs["audio"].sha256 if "audio" in job.inputs else ""
        if audio in self._plan["poison"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if job.stage == "asr" and audio in self._plan["transient"] and self._first(f"failed-{job.key}"):
            raise TransientError("The stage fails once, as requested.")
        if job.stage == "merge":
            outcome = await LocalCompute(get_store()).run(job, progress)
        else:
            outcome = await asyncio.to_thread(stand_in, job)
        with (self._folder / "stages.log").open("a") as log:
            log.write(f"{job.stage} {job.key}\n")
        return outcome

    def _first(self, name: str) -> bool:
        try:
            (self._folder / name).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def compute(settings: StenoSettings) -> FaultyStages:
    return FaultyStages()


@dataclass
class Usage:
    """What the processes of the batch took, sampled while it ran."""

    resident: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """By process: (recordings done so far, bytes)."""
    cpu: Counter[str] = field(default_factory=Counter)
    """By process: CPU seconds, of those that are gone too."""
    _last: dict[tuple[str, int], float] = field(default_factory=dict)

    def sample(self, name: str, process: psutil.Process, done: int) -> None:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            seconds = times.user + times.system
            self.cpu[name] += seconds - self._last.get((name, process.pid), 0.0)
            self._last[name, process.pid] = seconds
            self.resident.setdefault(name, []).append((done, process.memory_info().rss))

    def peak(self, name: str, below: int) -> int:
        """The most bytes held before `below` recordings were done."""
        return max((held for done, held in self.resident.get(name, ()) if done <= below), default=0)


@dataclass
class Outcome:
    """What became of the batch."""

    count: int
    rows: list[dict[str, Any]]
    """Of the last command: all that is known of every recording."""
    outputs: list[str]
    runs: Counter[str]
    """Flow runs of recordings, by state."""
    stages: Counter[str]
    """How often each (stage, key) was computed to its end."""
    seconds: float
    kills: int
    requests: int
    faults: int
    usage: Usage

    @property
    def states(self) -> Counter[str]:
        return Counter(row["state"] for row in self.rows)


@contextlib.contextmanager
def prefect_server(home: Path) -> Iterator[tuple[dict[str, str], psutil.Process]]:
    """A real Prefect server with a database of its own; the variables that lead its clients to it."""
    from flows.local_server.server import TemporaryServer

    before = os.environ.get("PREFECT_HOME")
    os.environ["PREFECT_HOME"] = str(home)
    server = TemporaryServer()
    try:
        server.wait()
        yield {"PREFECT_API_URL": server.url, "PREFECT_API_AUTH_STRING": server.auth}, psutil.Process(server._process.pid)
    finally:
        server.stop()
        if before is None:
            del os.environ["PREFECT_HOME"]
        else:
            os.environ["PREFECT_HOME"] = before


def prepare(s3: Any, bucket: str, count: int, folder: Path) -> None:
    """Recordings of noise, all different, in the bucket; which of them are poisonous, in the plan."""
    from speech.audio import normalise
    from tests.stage_double import recording

    client, plan = s3.client(), {"poison": [], "transient": []}
    for number in range(count):
        path = recording(folder / "recording.wav", seed=number, seconds=SECONDS)
        client.upload_file(str(path), bucket, f"in/{number // 100:03d}/recording-{number:05d}.wav")
        kind = "poison" if number % POISON == POISON_AT else "transient" if number % TRANSIENT == 3 else ""
        if kind:
            target = folder / "normalised.flac"
            plan[kind].append(normalise(path, target, max_duration=60.0).sha256)
            target.unlink()
    (folder / "plan.json").write_text(json.dumps(plan))


def run(count: int, kills: int, concurrency: int, folder: Path, *, restarts: int = 3, verbose: bool = False) -> Outcome:
    """The whole of it; a recording may kill its process `restarts` times. Raises AssertionError when a command ends as it should not."""
    from tests.s3_faults import serving

    with serving() as s3, prefect_server(folder / "prefect") as (api, server):
        bucket = s3.bucket()
        prepare(s3, bucket, count, folder)
        s3.set({"fault": "error", "rate": FAULTS, "path": rf"^/{bucket}"})
        env = (
            os.environ
            | s3.environment(bucket)
            | api
            | {
                PLAN: str(folder),
                "STENO_HOME": str(folder / "home"),
                "STENO_COMPUTE__BACKEND": "bench.batch:compute",
                "STENO_RETRY__DELAY": "0.05",
                "STENO_RECOVERY__RESTARTS": str(restarts),
                "STENO_RETRY__ATTEMPTS": "6",
                "PREFECT_HOME": str(folder / "prefect"),
                "PYTHONPATH": str(ROOT),
            }
        )
        command = [sys.executable, "-m", "stenoflow.cli.main", "batch", f"s3://{bucket}/in", "--recursive", "--json"]
        command += ["--concurrency", str(concurrency), "-o", f"s3://{bucket}/out"]
        usage, began = Usage(), time.monotonic()
        rows: list[dict[str, Any]] = []
        for turn in range(kills + 1):
            until = None if turn == kills else count * (turn + 1) // (kills + 1)
            rows = _command(command, env, usage, server, until, verbose)
        seconds = time.monotonic() - began
        state = s3.state()
        s3.clear()
        pages = s3.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="out/")
        outputs = [item["Key"] for page in pages for item in page.get("Contents", ()) if item["Key"].endswith(".json")]
        return Outcome(
            count,
            rows,
            outputs,
            _states_of_runs(api),
            Counter((folder / "stages.log").read_text().splitlines()),
            seconds,
            kills,
            len(state["requests"]),
            sum(state["faults"].values()),
            usage,
        )


def _command(
    command: list[str], env: dict[str, str], usage: Usage, server: psutil.Process, until: int | None, verbose: bool
) -> list[dict[str, Any]]:
    """Give the command; `kill -9` it once `until` recordings have ended. The rows it emitted."""
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout
    rows: list[dict[str, Any]] = []
    watched = psutil.Process(process.pid)
    over = threading.Event()

    def sample() -> None:
        while not over.wait(0.5):
            usage.sample("batch", watched, len(rows))
            usage.sample("server", server, len(rows))
            with contextlib.suppress(psutil.Error):
                for child in watched.children():
                    usage.sample("executor", child, len(rows))

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        for line in process.stdout:
            told = json.loads(line)
            if told["type"] != "recording":
                continue
            rows.append(told)
            if verbose and len(rows) % 100 == 0:
                print(f"  {len(rows)} ended", file=sys.stderr, flush=True)
            if until is not None and len(rows) >= until:
                process.kill()
                break
        code = process.wait(timeout=120)
    finally:
        over.set()
        sampler.join()
        process.kill()
        process.stdout.close()
    assert until is not None or code in (0, 8), f"steno batch ended with {code}"
    return rows


def _states_of_runs(api: Mapping[str, str]) -> Counter[str]:
    import httpx

    states: Counter[str] = Counter()
    user, _, password = api["PREFECT_API_AUTH_STRING"].partition(":")
    with httpx.Client(trust_env=False, timeout=60, auth=(user, password)) as client:
        while page := client.post(
            f"{api['PREFECT_API_URL']}/flow_runs/filter",
            json={"flows": {"name": {"any_": ["transcribe"]}}, "limit": 200, "offset": sum(states.values())},
        ).json():
            states.update(run["state_name"] for run in page)
    return states


def problems(outcome: Outcome) -> list[str]:
    """What is not as promised: nothing lost, nothing twice, every recording accounted for."""
    poison = sum(number % POISON == POISON_AT for number in range(outcome.count))
    found = []
    names = Counter(row["name"] for row in outcome.rows)
    expected = {"done": outcome.count - poison} | ({"quarantined": poison} if poison else {})
    checks = {
        f"rows by state are {dict(outcome.states)}, not {expected}": outcome.states == expected,
        f"{len(names)} recordings have a row, of {outcome.count}": len(names) == outcome.count,
        "recordings have more than one row": set(names.values()) == {1},
        f"{len(outcome.outputs)} transcripts, not {outcome.count - poison}": len(outcome.outputs) == outcome.count - poison,
        f"flow runs are {dict(outcome.runs)}": sum(outcome.runs.values()) == outcome.count
        and set(outcome.runs) <= {"Completed", "Quarantined"},
    }
    found += [what for what, fine in checks.items() if not fine]
    twice = sum(times > 1 for times in outcome.stages.values())
    if twice > 4 * (outcome.kills + 1):  # those that had been computed when the process died, and not yet written down
        found.append(f"{twice} stages were computed twice")
    return found


def show(outcome: Outcome, concurrency: int) -> None:
    """Print what came of it."""
    done = outcome.states["done"]
    print(f"{outcome.count} recordings of {SECONDS:g} s, {concurrency} at a time, command killed {outcome.kills} times")
    print(f"S3: {outcome.requests} requests, {outcome.faults} answered with an error")
    print(
        f"done {done}, quarantined {outcome.states['quarantined']}, failed {outcome.states['failed']}; runs {dict(outcome.runs)}"
    )
    print(f"stages computed more than once: {sum(times > 1 for times in outcome.stages.values())} of {len(outcome.stages)}")
    print(f"{outcome.seconds:.0f} s: {outcome.count / outcome.seconds:.2f} recordings per second")
    print("\nCPU ms per recording")
    for name, seconds in outcome.usage.cpu.items():
        print(f"  {name:<10}{1000 * seconds / outcome.count:8.0f}")
    marks = sorted({mark for mark in (100, 500, 1000, outcome.count) if mark <= outcome.count})
    print("\npeak memory, MB   " + "".join(f"{f'at {mark}':>10}" for mark in marks))
    for name in outcome.usage.resident:
        print(f"  {name:<16}" + "".join(f"{outcome.usage.peak(name, mark) / 2**20:>10.0f}" for mark in marks))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=2, help="how often the command is killed with -9")
    parser.add_argument("--concurrency", type=int, default=8)
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave no process behind
    with tempfile.TemporaryDirectory(prefix="bench-batch-") as folder:
        outcome = run(asked.count, asked.kills, asked.concurrency, Path(folder), verbose=True)
    show(outcome, asked.concurrency)
    found = problems(outcome)
    for problem in found:
        print(f"NOT AS PROMISED: {problem}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
