"""The process that computes a batch's recordings: how it is ended, what its death says, and how often a suspect is executed.

Runs are stood in for by a script that speaks the process's protocol; that the real one does is in `test_batch`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import uuid
from dataclasses import dataclass, field

import pytest
from prefect.client.schemas.objects import FlowRun

from flows.batching import drive, here
from flows.batching.ended import Ended
from flows.batching.here import Executor, ProcessDied
from flows.batching.plan import Planned
from flows.batching.request import BatchRequest
from infra.listing import Item
from infra.settings import StenoSettings, get_settings
from stenoflow import isolated

PROCESS = """
import json, os, signal, sys
at_work = []
def ended(run, state):
    print(json.dumps({"ended": run, "state": state, "rss": 7}), flush=True)
for line in sys.stdin:
    order = json.loads(line)
    if order.get("cancel"):
        if "stubborn" not in sys.argv:
            while at_work:
                ended(at_work.pop(), "Cancelled")
    elif order.get("end"):
        if "stubborn" in sys.argv:
            signal.pause()
        for run in at_work:
            ended(run, "Completed")
        break
    else:
        at_work.append(order["run"]["id"])
        if order["run"]["name"] == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        if order["run"]["name"] == "quick":
            ended(at_work.pop(), "Failed")
"""


def run(name: str) -> FlowRun:
    return FlowRun(flow_id=uuid.uuid4(), name=name)


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch, steno: StenoSettings) -> Executor:
    started: list[str] = []

    def command(module: str) -> list[str]:
        started.append(module)
        return [sys.executable, "-c", PROCESS, *kind]

    kind: list[str] = []
    monkeypatch.setattr(isolated, "command", command)
    found = Executor()
    found.started, found.kind = started, kind  # type: ignore[attr-defined]
    return found


async def at_work(executor: Executor, *names: str) -> list[asyncio.Task[str]]:
    """Runs that were handed over, and have not ended."""
    tasks = [asyncio.create_task(executor.execute(run(name))) for name in names]
    async with asyncio.timeout(30):
        while len(executor._waiting) < len(names):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert await executor.execute(run("quick")) == "Failed", "and the process has read them"
    return tasks


async def test_one_process_serves_until_it_is_stopped_and_another_after_that(executor: Executor) -> None:
    await executor.stop()
    assert await executor.execute(run("quick")) == "Failed"
    assert await executor.execute(run("quick")) == "Failed"
    assert executor.resident == 7
    assert executor.started == ["flows.batching.executor"]  # type: ignore[attr-defined]
    await executor.stop()
    await executor.stop()
    assert executor._process is None and executor.deaths == 0
    assert await executor.execute(run("quick")) == "Failed"
    assert len(executor.started) == 2  # type: ignore[attr-defined]
    await executor.stop()


async def test_stopping_waits_for_what_is_at_work_and_does_not_cancel_it(executor: Executor) -> None:
    tasks = await at_work(executor, "one", "two")
    process = executor._process
    await executor.stop()
    assert [await task for task in tasks] == ["Completed", "Completed"]
    assert process is not None and process.returncode == 0


async def test_a_cancel_ends_what_is_at_work_at_once(executor: Executor) -> None:
    tasks = await at_work(executor, "one", "two")
    await executor.stop(cancel=True)
    assert [await task for task in tasks] == ["Cancelled", "Cancelled"]


async def test_a_process_that_does_not_end_is_killed(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    executor.kind.append("stubborn")  # type: ignore[attr-defined]
    monkeypatch.setattr(here, "_STOP_PATIENCE", 0.2)
    (task,) = await at_work(executor, "one")
    process = executor._process
    async with asyncio.timeout(30):
        await executor.stop(cancel=True)
    assert process is not None and process.returncode == -9
    with pytest.raises(ProcessDied):
        await task


async def test_a_death_is_told_to_all_that_were_at_work_and_the_next_run_gets_another_process(executor: Executor) -> None:
    tasks = await at_work(executor, "one")
    died = [*tasks, asyncio.create_task(executor.execute(run("deadly")))]
    deaths = await asyncio.gather(*died, return_exceptions=True)
    assert [type(death) for death in deaths] == [ProcessDied, ProcessDied]
    assert all(death.beside_others for death in deaths if isinstance(death, ProcessDied))
    with pytest.raises(ProcessDied) as alone:
        await executor.execute(run("deadly"))
    assert not alone.value.beside_others
    assert await executor.execute(run("quick")) == "Failed"
    assert executor.deaths == 2 and len(executor.started) == 3  # type: ignore[attr-defined]
    await executor.stop()


async def test_a_process_is_replaced_when_it_has_done_its_share(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STENO_BATCH__RECYCLE", "2")
    get_settings.cache_clear()
    for _ in range(5):
        assert await executor.execute(run("quick")) == "Failed"
    assert len(executor.started) == 3 and executor.deaths == 0  # type: ignore[attr-defined]
    await executor.stop()


async def test_a_run_that_is_asked_for_twice_is_executed_once(executor: Executor) -> None:
    once = run("one")
    first = asyncio.create_task(executor.execute(once))
    second = asyncio.create_task(executor.execute(once))
    await asyncio.sleep(0)
    assert await executor.execute(run("quick")) == "Failed"
    assert executor._given == 2
    await executor.stop(cancel=True)
    assert [await first, await second] == ["Cancelled", "Cancelled"]


# -- suspects -----------------------------------------------------------------------------------------------------------


@dataclass
class Suspect:
    """A recording that was at work when its process died, and how its executions end, one after the other; the last repeats."""

    ends: list[Exception | str]
    tries: list[tuple[bool, bool]] = field(default_factory=list)
    """Of each execution: whether it was by hand, and beside others."""
    rows: list[Ended] = field(default_factory=list)

    async def transcribe(self, plan: Planned, *, beside_others: bool = False) -> Ended:
        self.tries.append((plan.by_hand, beside_others))
        end = self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]
        if isinstance(end, Exception):
            raise end
        return plan.row.model_copy(update={"state": end})

    async def settle(self, plan: Planned, row: Ended) -> None:
        self.rows.append(row)


async def tried_alone(monkeypatch: pytest.MonkeyPatch, *ends: Exception | str, by_hand: bool = False) -> Suspect:
    request = BatchRequest(source="in", output_dir="out")
    monkeypatch.setattr(drive, "get_run_logger", logging.getLogger)
    suspect, driven = Suspect(list(ends)), drive.Drive(request, None, None, "c", retry=False)  # type: ignore[arg-type]
    monkeypatch.setattr(driven, "_transcribe", suspect.transcribe)
    monkeypatch.setattr(driven, "_settle", suspect.settle)
    row = Ended(name="talk.wav", state="done")
    plan = Planned("key", Item(source="talk.wav", name="talk.wav", origin="talk.wav"), request.options, row, settled=False)
    driven._suspects.append((plan._replace(by_hand=by_hand), True))
    await driven._clear_suspects()
    return suspect


DEATH = ProcessDied(beside_others=False)


@pytest.mark.parametrize("restarts", [1, 3])
async def test_a_recording_that_always_kills_its_process_is_executed_so_often_and_has_its_row(
    restarts: int, monkeypatch: pytest.MonkeyPatch, steno: StenoSettings
) -> None:
    monkeypatch.setenv("STENO_RECOVERY__RESTARTS", str(restarts))
    get_settings.cache_clear()
    suspect = await tried_alone(monkeypatch, DEATH)
    assert suspect.tries == [(False, True), *[(False, False)] * (restarts + 1)], "only the first death may have been another's"
    [row] = suspect.rows
    assert (row.state, row.code, row.exit_code) == ("failed", "crashed", 8)


async def test_an_innocent_recording_is_executed_once_more_and_no_more(
    monkeypatch: pytest.MonkeyPatch, steno: StenoSettings
) -> None:
    suspect = await tried_alone(monkeypatch, "done", by_hand=True)
    assert suspect.tries == [(False, True)] and [row.state for row in suspect.rows] == ["done"]
    again = await tried_alone(monkeypatch, DEATH, DEATH, "quarantined")
    assert len(again.tries) == 3 and [row.state for row in again.rows] == ["quarantined"]


async def test_an_error_of_the_server_ends_a_suspect_with_a_row(monkeypatch: pytest.MonkeyPatch, steno: StenoSettings) -> None:
    suspect = await tried_alone(monkeypatch, ConnectionError("away"))
    assert len(suspect.tries) == 1
    assert [row.state for row in suspect.rows] == ["failed"]
