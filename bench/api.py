"""The API under load and under fire: `python -m bench.api [--count 200] [--clients 20]`.

`--count` jobs are submitted at once to `steno api`, beside a real Prefect server and a real worker; only the models are stood
in for. `--clients` clients poll the jobs until all have ended. On the way the API's process is killed with `kill -9` and
started again, and then so is Prefect's server.

Printed are how long a GET takes (p50, p95, p99: with everything up, and over all), what became of every job, and how often
each stage of each job was executed, by the log of the processes that executed it. Exits with 1 when a job was lost, when
one was executed twice, or when with everything up the p95 is above `--target`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from stenoflow.client import AsyncStenoClient
from tests.api.live import LiveApi

ENDED = {"completed", "failed", "canceled"}
STAGES = ("segment", "asr", "align", "embed", "cluster", "merge")
KILL_API_AT, KILL_SERVER_AT = 0.25, 0.5
"""Shares of the jobs that have ended by then."""
_CALM = 5.0
"""Seconds after a restart that count as part of it."""
UNLIMITED = {
    "STENO_API__RATE": "1000000",
    "STENO_API__RATE_SUBMIT": "1000000",
    "STENO_API__PENDING_JOBS": "1000000",
}


@dataclass
class Get:
    """One GET of a job."""

    at: float
    """Seconds since the beginning."""
    seconds: float
    status: int
    """Of HTTP; 0 when there was no answer."""


@dataclass
class Outcome:
    """What became of the jobs."""

    count: int
    clients: int
    submitted_in: float = 0.0
    seconds: float = 0.0
    gets: list[Get] = field(default_factory=list)
    disturbed: list[tuple[float, float]] = field(default_factory=list)
    """From when until when something was being restarted."""
    restarts: dict[str, float] = field(default_factory=dict)
    """What was killed, and how long it was gone."""
    states: dict[str, str] = field(default_factory=dict)
    """Job to the status it was last seen in."""
    made: int = 0
    """Runs that Prefect knows."""
    executions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By run and stage."""

    def calm(self, get: Get) -> bool:
        """Whether everything was up all the while."""
        return not any(start <= get.at + get.seconds and get.at <= end for start, end in self.disturbed)

    def latencies(self, *, calm: bool) -> list[float]:
        return sorted(get.seconds for get in self.gets if get.status == 200 and (not calm or self.calm(get)))


class Bench:
    def __init__(self, live: LiveApi, count: int, clients: int, interval: float) -> None:
        self.live = live
        self.interval = interval
        self.outcome = Outcome(count, clients)
        self._began = time.monotonic()

    def now(self) -> float:
        return time.monotonic() - self._began

    async def run(self, patience: float) -> Outcome:
        """Submit, poll, kill, restart, until all jobs have ended or time is over."""
        urls = await asyncio.to_thread(lambda: [self.live.recording() for _ in range(self.outcome.count)])
        self._began = time.monotonic()
        async with AsyncStenoClient(self.live.url) as client:
            limit = asyncio.Semaphore(self.outcome.clients)

            async def submit(url: str) -> str:
                async with limit:
                    return (await client.submit(url, diarize=True, idempotency_key=uuid.uuid4().hex)).job_id

            jobs = await asyncio.gather(*map(submit, urls))
        self.outcome.submitted_in = self.now()
        self.outcome.states = dict.fromkeys(jobs, "queued")
        deadline = time.monotonic() + patience
        shares = [jobs[number :: self.outcome.clients] for number in range(self.outcome.clients)]
        fire = asyncio.create_task(self._fire(deadline))
        await asyncio.gather(*(self._poll(share, deadline) for share in shares if share))
        await fire
        self.outcome.seconds = self.now()
        self._look_at_runs()
        return self.outcome

    async def _poll(self, jobs: list[str], deadline: float) -> None:
        """One client: a GET after the other, of its jobs in turn, with pauses."""
        left, timeout = list(jobs), httpx.Timeout(60.0, connect=5.0)
        async with httpx.AsyncClient(base_url=self.live.url, trust_env=False, timeout=timeout) as http:
            while left and time.monotonic() < deadline:
                for job in list(left):
                    status = await self._get(http, job)
                    if status in ENDED:
                        left.remove(job)
                    await asyncio.sleep(self.interval)

    async def _get(self, http: httpx.AsyncClient, job: str) -> str:
        at = self.now()
        try:
            answer = await http.get(f"/transcribes/{job}")
        except httpx.HTTPError:
            self.outcome.gets.append(Get(at, self.now() - at, 0))
            return ""
        self.outcome.gets.append(Get(at, self.now() - at, answer.status_code))
        if answer.status_code == 200:
            self.outcome.states[job] = answer.json()["status"]
        elif answer.status_code == 404:
            self.outcome.states[job] = "unknown"
        return self.outcome.states[job]

    async def _fire(self, deadline: float) -> None:
        """Kill the API, then Prefect's server, and start each again."""
        deployed = self.live.deployed
        for share, name, kill, start in (
            (KILL_API_AT, "API", self.live.kill_api, self.live.start_api),
            (KILL_SERVER_AT, "Prefect's server", deployed.kill_server, deployed.restart_server),
        ):
            while self._ended() < share * self.outcome.count:
                if time.monotonic() > deadline:
                    return
                await asyncio.sleep(0.1)
            began = self.now()
            span = len(self.outcome.disturbed)
            self.outcome.disturbed.append((began, math.inf))
            await asyncio.to_thread(kill)
            await asyncio.sleep(1.0)
            await asyncio.to_thread(start)
            self.outcome.restarts[name] = self.now() - began
            self.outcome.disturbed[span] = (began, self.now() + _CALM)
            print(f"  {name} killed and back after {self.now() - began:.1f} s", file=sys.stderr, flush=True)

    def _ended(self) -> int:
        return sum(status in ENDED for status in self.outcome.states.values())

    def _look_at_runs(self) -> None:
        """How often each stage of each run was begun, and how many runs there are."""
        deployed = self.live.deployed
        self.outcome.executions = Counter((line["run"], line["stage"]) for line in deployed.events("begin"))
        seen = 0
        while page := deployed.runs("transcribe/one-recording", offset=seen):
            seen += len(page)
        self.outcome.made = seen


def problems(outcome: Outcome, target: float) -> list[str]:
    """What is not as promised."""
    states = Counter(outcome.states.values())
    expected = {(job, stage) for job in outcome.states for stage in STAGES}
    twice = {key: times for key, times in outcome.executions.items() if times > 1}
    p95 = percentile(outcome.latencies(calm=True), 95)
    checks = {
        f"jobs ended as {dict(states)}, not all completed": states == {"completed": outcome.count},
        f"{outcome.made} runs were made of {outcome.count} submissions": outcome.made == outcome.count,
        f"{len(expected - set(outcome.executions))} stages were never executed": expected <= set(outcome.executions),
        f"{len(twice)} stages were executed more than once": not twice,
        f"answers of 404 or 500: {_bad(outcome)}": not _bad(outcome),
        f"the p95 of GET is {p95 * 1000:.0f} ms, above {target * 1000:.0f} ms": p95 <= target,
    }
    return [what for what, fine in checks.items() if not fine]


def _bad(outcome: Outcome) -> int:
    return sum(get.status not in (0, 200, 503) for get in outcome.gets)


def percentile(ordered: list[float], share: float) -> float:
    """By the nearest rank."""
    return ordered[max(0, math.ceil(share / 100 * len(ordered)) - 1)] if ordered else math.nan


def show(outcome: Outcome) -> None:
    """Print what came of it."""
    print(f"{outcome.count} jobs submitted in {outcome.submitted_in:.1f} s, {outcome.clients} clients polling")
    print(f"all ended after {outcome.seconds:.0f} s: {dict(Counter(outcome.states.values()))}")
    for name, seconds in outcome.restarts.items():
        print(f"{name} killed with -9, answering again after {seconds:.1f} s")
    print(f"\n{'GET of a job, ms':<28}{'answers':>8}{'p50':>8}{'p95':>8}{'p99':>8}{'max':>8}")
    for name, calm in (("everything up", True), ("restarts included", False)):
        found = outcome.latencies(calm=calm)
        numbers = [percentile(found, share) for share in (50, 95, 99, 100)]
        print(f"{name:<28}{len(found):>8}" + "".join(f"{number * 1000:>8.0f}" for number in numbers))
    statuses = Counter(get.status for get in outcome.gets)
    others = {("no answer" if status == 0 else status): times for status, times in statuses.items() if status != 200}
    print(f"other answers: {others or 'none'}")
    begun = Counter(outcome.executions.values())
    print(
        f"stages executed: {sum(outcome.executions.values())}, once each"
        if set(begun) <= {1}
        else f"stages by executions: {dict(begun)}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--interval", type=float, default=0.5, help="seconds a client pauses after each GET")
    parser.add_argument("--target", type=float, default=0.2, help="seconds that the p95 of GET may take")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds after which what has not ended is lost")
    parser.add_argument("--limit", type=int, default=2, help="recordings at work at once")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave no process behind
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-api-", ignore_cleanup_errors=True)))
        env = UNLIMITED | {"STENO_DEPLOY__CONCURRENCY": str(asked.limit)}
        live = stack.enter_context(LiveApi.start(home / "home", env, limit=asked.limit))
        outcome = asyncio.run(Bench(live, asked.count, asked.clients, asked.interval).run(asked.timeout))
    show(outcome)
    found = problems(outcome, asked.target)
    for problem in found:
        print(f"NOT AS PROMISED: {problem}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
