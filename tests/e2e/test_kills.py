"""`kill -9` of whatever takes part in a run, at any moment: the run completes by itself, and no finished stage is repeated.

A real server with its automations, a real worker, real flow processes and real S3 requests; only the stages are stand-ins.
`make test` plays a few cases, `make test-matrix` all of them; both print the table.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.deployed import Deployed
from tests.s3_faults import FaultyS3
from tests.stage_double import TEXT, recording

STAGES = ("segment", "asr", "align", "embed", "cluster", "merge")
MIDDLES = tuple(f"in {stage}" for stage in ("fetch", *STAGES))
WRITES = tuple(f"writing {stage}" for stage in STAGES)
GAPS = ("before asr", "before align", "before merge")
PATIENCE = 600
"""Seconds that a run may take to recover, on a machine that has other things to do."""
AT_ONCE = 4
"""Runs that are brought to their moments before something is killed under all of them."""


@dataclass(frozen=True)
class Case:
    """What is killed, when, and what the store is."""

    process: str
    """`flow`, `worker`, `server`; `machine`: worker and flow together, so that nobody is left to report it; `shutdown`: the
    flow's process is asked to end, as when its machine is switched off."""
    moment: str
    store: str

    @property
    def stage(self) -> str:
        return self.moment.split()[1]

    @property
    def plan(self) -> dict[str, Any]:
        """What makes the moment last, for `tests.stub_compute`."""
        if self.moment == "in fetch":
            return {}
        kind = {"in": "seconds", "writing": "writing", "before": "before"}[self.moment.split()[0]]
        return {kind: {self.stage: 0.3}, "hold": True}

    @property
    def event(self) -> str:
        return {"in": "progress"}.get(self.moment.split()[0], self.moment.split()[0])


_QUIET = 2.0
"""Seconds."""


@dataclass(frozen=True)
class Scene:
    """A run at its moment."""

    case: Case
    run: str
    pid: int
    source: str
    out: Path
    began: float


@dataclass(frozen=True)
class Row:
    """What came of one case."""

    case: Case
    crashes: int
    executions: dict[str, int]
    outcome: str
    seconds: float
    wrong: tuple[str, ...]
    """What is not as it must be."""

    def __str__(self) -> str:
        counts = " ".join(f"{self.executions.get(stage, 0):>7}" for stage in STAGES)
        case = self.case
        outcome = self.outcome if not self.wrong else f"{self.outcome}: {'; '.join(self.wrong)}"
        return f"{case.process:<8} {case.moment:<16} {case.store:<7} {self.crashes:>7} {counts} {self.seconds:>8.1f}  {outcome}"


HEAD = f"{'process':<8} {'moment':<16} {'store':<7} {'crashes':>7} {' '.join(f'{stage:>7}' for stage in STAGES)} {'seconds':>8}  outcome"


class SlowSources:
    """An HTTP server whose recordings stop half-way the first time they are asked for, until they are let go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.halfway: dict[str, threading.Event] = {}
        self.let_go: dict[str, threading.Event] = {}
        sources = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rpartition("/")[2]
                content = (sources.folder / name).read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    if name in sources.halfway and not sources.halfway[name].is_set():
                        self.wfile.write(content[: len(content) // 2])
                        self.wfile.flush()
                        sources.halfway[name].set()
                        sources.let_go[name].wait(60)
                        content = content[len(content) // 2 :]
                    self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, name: str) -> str:
        self.halfway[name], self.let_go[name] = threading.Event(), threading.Event()
        return f"http://127.0.0.1:{self.server.server_address[1]}/{name}"


class Stage:
    """Where cases are played: a deployment on one kind of store."""

    _numbers = itertools.count(1000)

    def __init__(self, store: str, deployed: Deployed, sources: SlowSources) -> None:
        self.store, self.deployed, self.sources = store, deployed, sources
        self.plans: dict[str, dict[str, Any]] = {}
        self.guard = threading.Lock()

    def play(self, cases: list[Case]) -> list[Row]:
        """A run for each case, all brought to their moments; then one kill, and a look at what is left."""
        with ThreadPoolExecutor(len(cases)) as pool:
            scenes = list(pool.map(self._begun, cases))
            self._wait_until_quiet(scenes)
            self._kill(cases[0].process, [scene.pid for scene in scenes])
            for scene in scenes:
                self._plan(scene.run, {})
                if scene.source in self.sources.let_go:
                    self.sources.let_go[scene.source].set()
            return list(pool.map(self._concluded, scenes))

    def _begun(self, case: Case) -> Scene:
        number = next(self._numbers)
        name = f"kill-{number}.wav"
        source = recording(self.sources.folder / name, seed=number)
        out = self.deployed.home / "out" / str(number)
        slow, began = case.moment == "in fetch", time.monotonic()
        where = {"source": self.sources.url(name) if slow else str(source), "output_dir": str(out)}
        run = self.deployed.submit(where | {"hotwords": name})  # or the stand-ins' words would give the same transcript
        self._plan(run, case.plan)
        if slow:
            assert self.sources.halfway[name].wait(PATIENCE), "the source was never asked for"
            pid = next(iter(self.deployed.flow_pids(run)))
        else:
            pid = self._wait_for(run, case)["pid"]
        return Scene(case, run, pid, name, out, began)

    def _concluded(self, scene: Scene) -> Row:
        ended = self._ended(scene.run)
        return self._row(scene.case, scene.run, ended, scene.out, time.monotonic() - scene.began)

    def _plan(self, run: str, plan: dict[str, Any]) -> None:
        with self.guard:
            self.plans[run] = plan
            self.deployed.plan(runs=self.plans)

    def _events(self, run: str, event: str) -> list[dict[str, Any]]:
        return [line for line in self.deployed.events(event) if line["run"] == run]

    def _wait_for(self, run: str, case: Case) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = [line for line in self._events(run, case.event) if line["stage"] == case.stage]
            if len(found) >= (3 if case.event == "progress" else 1):
                return found[-1]
            time.sleep(0.02)
        raise AssertionError(f"{case}: the moment never came; worker: {self.deployed.tail('worker')}")

    def _wait_until_quiet(self, scenes: list[Scene]) -> None:
        """Nothing has ended for a while. A stage whose result is not yet in the store is not finished, and the log that
        counts executions is written just before."""
        runs, deadline = {scene.run for scene in scenes}, time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            ends = [line["at"] for line in self.deployed.events("end") if line["run"] in runs]
            if time.time() - max(ends, default=0.0) > _QUIET:
                return
            time.sleep(0.1)

    def _kill(self, process: str, pids: list[int]) -> None:
        """Kill, and start again what `steno up` starts again."""
        if process in ("worker", "machine"):
            self.deployed.kill_worker()
        if process in ("flow", "machine", "shutdown"):
            for pid in pids:
                os.kill(pid, signal.SIGTERM if process == "shutdown" else signal.SIGKILL)
        if process in ("worker", "machine"):
            self.deployed.restart_worker()
        if process == "server":
            self.deployed.kill_server()
            time.sleep(1)
            self.deployed.restart_server()

    def _ended(self, run: str) -> dict[str, Any]:
        """The run once it has ended for good: a crash is not the end."""
        with contextlib.suppress(AssertionError):
            return self.deployed.wait(run, {"COMPLETED", "FAILED", "CANCELLED"}, PATIENCE)
        return self.deployed.run(run)

    def _row(self, case: Case, run: str, ended: dict[str, Any], out: Path, seconds: float) -> Row:
        begun, done = self._events(run, "begin"), self._events(run, "end")
        crashes = self.deployed.states(run).count("Crashed")
        executions = Counter(line["stage"] for line in begun)
        first_end = {line["stage"]: line["at"] for line in reversed(done)}
        interrupted = int(case.process in ("flow", "machine", "shutdown"))
        repeated = sorted({line["stage"] for line in begun if line["at"] > first_end.get(line["stage"], float("inf"))})
        files = sorted(path.name for path in out.rglob("*")) if out.exists() else []
        checks = {
            f"ended as {ended['state_name']}": ended["state_type"] == "COMPLETED",
            f"{crashes} crashes": crashes == interrupted,
            f"{', '.join(repeated)} repeated after it was finished": not repeated,
            "not every stage was finished once": Counter(line["stage"] for line in done) == dict.fromkeys(STAGES, 1),
            f"the output is {files}": [Path(name).suffix for name in files] == [".json", ".srt", ".txt"],
        }
        if files and files[0].endswith(".json"):
            transcript = json.loads((out / files[0]).read_text())
            said = [word["word"] for word in transcript["word_segments"]]
            checks["the transcript is not whole"] = said == TEXT.split() and len(transcript["speakers"]) == 1
        wrong = tuple(what for what, right in checks.items() if not right)
        if wrong:
            print(
                f"{case}: {wrong}\n{self.deployed.states(run)}\n{self.deployed.logs(run)[-4000:]}\n{self.deployed.tail('worker')}"
            )
        return Row(case, crashes, dict(executions), ended["state_name"], seconds, wrong)


@contextlib.contextmanager
def staged(store: str, folder: Path, s3: FaultyS3) -> Iterator[Stage]:
    folder.mkdir(parents=True)
    sources = SlowSources(folder)
    env = {
        "STENO_NET__ALLOW_HOSTS": json.dumps(["127.0.0.1"]),
        "STENO_DEPLOY__ZOMBIE_SECONDS": "45",
        "STENO_DEPLOY__CONCURRENCY": str(AT_ONCE + 1),
    }
    env |= s3.environment(s3.bucket()) if store == "s3" else {}
    try:
        with Deployed.start(folder / "deployed", env, limit=AT_ONCE + 1) as deployed:
            yield Stage(store, deployed, sources)
    finally:
        sources.server.shutdown()
        sources.server.server_close()


def played(cases: Iterable[Case], folder: Path, s3: FaultyS3) -> list[Row]:
    """Every case, each store's in a deployment of its own; the table is printed as it grows."""
    rows: list[Row] = []
    print(f"\n{HEAD}", flush=True)

    def keep(wave: list[Row]) -> None:
        rows.extend(wave)
        print(*wave, sep="\n", flush=True)

    for store, group in itertools.groupby(sorted(cases, key=lambda case: case.store), key=lambda case: case.store):
        mine = list(group)
        with staged(store, folder / store, s3) as stage:
            for process in dict.fromkeys(case.process for case in mine):
                alike = [case for case in mine if case.process == process]
                for first in range(0, len(alike), AT_ONCE):
                    keep(stage.play(alike[first : first + AT_ONCE]))
            left = [path for path in (stage.deployed.home / "steno" / "scratch").rglob("*") if path.is_file()]
            assert left == [], left
    return rows


SLICE = [
    Case("flow", "in asr", "folder"),
    Case("worker", "in embed", "folder"),
    Case("server", "in asr", "folder"),
    Case("flow", "writing embed", "s3"),
]
MATRIX = [
    *(
        Case(process, moment, store)
        for store in ("folder", "s3")
        for process in ("flow", "worker", "server")
        for moment in (*MIDDLES, *WRITES, *GAPS)
    ),
    *(
        Case(process, moment, store)
        for process in ("machine", "shutdown")
        for store in ("folder", "s3")
        for moment in ("in asr", "writing embed")
    ),
]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_runs_survive_kills(tmp_path: Path, s3_service: FaultyS3) -> None:
    rows = played(SLICE, tmp_path / "kills", s3_service)
    assert [str(row) for row in rows if row.wrong] == []


@pytest.mark.matrix
@pytest.mark.timeout(4 * 3600)
def test_runs_survive_every_kill(tmp_path: Path, s3_service: FaultyS3) -> None:
    rows = played(MATRIX, tmp_path / "kills", s3_service)
    assert len(rows) == len(MATRIX)
    assert [str(row) for row in rows if row.wrong] == []
