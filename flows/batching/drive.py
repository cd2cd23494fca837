"""A batch at work: so many recordings at a time, each a run of its own, none of which can end the others."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from prefect import get_run_logger
from prefect.client.schemas.objects import FlowRun

from flows.batching.children import Children, child_key
from flows.batching.ended import Ended, ended_as, keep_ended, read_ended
from flows.batching.here import Executor, ProcessDied
from flows.batching.plan import Planned, child_request, planned
from flows.batching.request import BatchRequest
from flows.batching.table import Table
from flows.batching.workers import Pool
from flows.outcome import error_of, read_outcome
from infra.progress import Subscribers
from infra.settings import get_settings
from stenoflow.errors import Retry, SourceNotFound, StenoError

T = TypeVar("T")

_LOG_EVERY = 50


@dataclass(frozen=True)
class BatchEvent:
    """What happened to a batch (`started`), or to one of its recordings."""

    kind: Literal["started", "began", "ended"]
    name: str
    run: str = ""
    row: Ended | None = None
    """How it ended."""


_batches: Subscribers[BatchEvent] = Subscribers()
notify = _batches.publish
watching = _batches.listening
"""Notify a listener of every recording that begins or ends inside the block."""


class Place(Protocol):
    """Where runs are computed."""

    async def execute(self, run: FlowRun, *, by_hand: bool = False) -> str: ...

    async def stop(self, *, cancel: bool = False) -> None: ...


class Drive:
    """Takes what is listed, keeps `concurrency` recordings at work, and writes down how each ended.

    When the process that computes dies, every recording that was at work is suspect. They are computed again one at a
    time, alone, so that only the one that is to blame is found at work when it dies again.
    """

    def __init__(self, request: BatchRequest, table: Table, children: Children, campaign: str, *, retry: bool) -> None:
        self._request = request
        self._table = table
        self._children = children
        self._campaign = campaign
        self._retry = retry
        self._place: Place = Executor() if request.run_on == "here" else Pool(children.client)
        self._tasks: set[asyncio.Task[None]] = set()
        self._defect: BaseException | None = None
        """What ended a recording's task without a row: a fault of the batch itself."""
        self._suspects: deque[tuple[Planned, bool]] = deque()
        """Each with whether it was at work beside others."""
        self._open: dict[str, list[Planned]] = {}
        """By identity: recordings that have no row yet, each with the entries that turned out to be the same recording."""
        self._closed: dict[str, str] = {}
        """By identity: the keys of recordings that have theirs."""
        self._log = get_run_logger()

    async def run(self) -> None:
        """Until every entry of the list has its row. Raises what listing raises; recordings' failures are rows."""
        try:
            await self._take_all()
            while self._tasks or self._suspects:
                await self._one_ended()
                await self._clear_suspects()
            await self._one_ended()
        except BaseException:
            await asyncio.shield(self._cancel())
            raise
        await self._place.stop()
        await self._children.close_left()

    async def _cancel(self) -> None:
        """End what is under way; on workers, also what waits for one."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._place.stop(cancel=True)
        if self._request.run_on == "workers":
            await self._children.cancel_left()

    async def _take_all(self) -> None:
        taken = 0
        request = self._request
        async for plan in planned(request, get_settings(), self._campaign, retry=self._retry):
            if request.limit is not None and taken >= request.limit and not _skipped(plan):
                self._table.more = True
                return
            if plan.settled:
                taken += bool(plan.row.run and plan.row.campaign == self._campaign)  # before it was restarted
                self._enter(plan.row)
                if plan.key:
                    self._closed[plan.identity] = plan.key
                continue
            if await self._listed_before(plan):
                continue
            taken += 1
            while len(self._tasks) >= request.concurrency:
                await self._one_ended()
            await self._clear_suspects()
            self._open[plan.identity] = []
            await self._begin(plan)

    async def _listed_before(self, plan: Planned) -> bool:
        """Whether an earlier entry names the same recording; this one has its row then, or gets it when that one ends."""
        if plan.identity in self._open:
            self._open[plan.identity].append(plan)
            return True
        key = self._closed.get(plan.identity)
        row = await asyncio.to_thread(read_ended, key) if key else None
        if row is None:
            return False
        if row.campaign != self._campaign:
            row = row.model_copy(update={"state": "skipped"})
        self._enter(_row_of_twin(plan, row))
        return True

    async def _begin(self, plan: Planned) -> None:
        try:
            # One after the other, so that names of outputs do not depend on which recording is quicker.
            request = await asyncio.to_thread(child_request, plan, self._request, get_settings())
        except Exception as error:
            await self._settle(plan, _unexpected(plan, error))
            return
        plan = plan._replace(request=request)
        if self._request.run_on == "here" and self._children.was_at_work(child_key(plan)):
            self._suspects.append((plan, self._children.several_left))
            return
        task = asyncio.create_task(self._one(plan))
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            self._defect = self._defect or task.exception()

    async def _one_ended(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        if self._defect is not None:
            raise self._defect

    async def _one(self, plan: Planned) -> None:
        try:
            row = await self._transcribe(plan)
        except ProcessDied as death:
            self._suspects.append((plan, death.beside_others))
            return
        except Exception as error:
            row = _unexpected(plan, error)
        await self._settle(plan, row)

    async def _clear_suspects(self) -> None:
        while self._suspects and self._tasks:
            await self._one_ended()
        while self._suspects:
            plan, beside_others = self._suspects.popleft()
            self._log.warning("%s was running when its process died; it is retried alone.", plan.item.name)
            await self._alone(plan, beside_others)

    async def _alone(self, plan: Planned, beside_others: bool) -> None:
        plan = plan._replace(by_hand=False)  # it has had its new chance: from here on deaths count
        row = plan.row.model_copy(
            update={"state": "failed", "code": "crashed", "detail": "its process died again and again", "exit_code": 8}
        )
        for _ in range(get_settings().recovery.restarts + 2):  # one of them ends it as quarantined
            try:
                row = await self._transcribe(plan, beside_others=beside_others)
            except ProcessDied:
                beside_others = False
                continue
            except Exception as error:
                row = _unexpected(plan, error)
            break
        await self._settle(plan, row)

    async def _transcribe(self, plan: Planned, *, beside_others: bool = False) -> Ended:
        """Make the recording's run, have it executed, and read what it left. Raises ProcessDied."""
        scheduled = self._request.run_on == "workers"
        assert plan.request is not None
        # Not left half-way: a run that the server has made and nobody knows of could not be cancelled.
        run = await _to_its_end(self._children.create(plan, plan.request, scheduled=scheduled))
        if not scheduled:
            run = await self._children.reopen(run, beside_others=beside_others)
        notify(BatchEvent("began", plan.item.name, str(run.id)))
        state = await self._place.execute(run, by_hand=plan.by_hand)
        outcome = None if state.startswith(("Crashed", "Deleted")) else await read_outcome(str(run.id))
        row = plan.row.model_copy(update={"run": str(run.id), "campaign": self._campaign})
        row = ended_as(outcome, row, degrade=plan.options.on_diarization_failure == "degrade")
        if row.code == SourceNotFound.code and plan.item.version and plan.item.line is None:
            gone = {"state": "skipped", "detail": "deleted after it was listed", "code": "", "exit_code": 0}
            return row.model_copy(update=gone)
        return row

    async def _settle(self, plan: Planned, row: Ended) -> None:
        """Write down how a recording ended: for later batches, and in the table, for each entry that names it."""
        row = row.readable()
        try:
            if row.state != "skipped":
                await asyncio.to_thread(keep_ended, plan.key, row)
        except Exception as error:
            why = error.message if isinstance(error, StenoError) else type(error).__name__
            self._log.warning("Could not store the outcome of %s, so a later batch processes it again: %s", row.name, why)
        if row.state != "done":
            self._log.warning("%s %s: %s", row.name, row.state, row.detail)
        self._enter(row)
        self._closed[plan.identity] = plan.key
        for twin in self._open.pop(plan.identity, ()):
            self._enter(_row_of_twin(twin, row))

    def _enter(self, row: Ended) -> None:
        row = row.readable()
        self._table.add(row)
        if row.state == "left":
            return
        notify(BatchEvent("ended", row.name, row.run, row))
        if self._table.settled % _LOG_EVERY == 0:
            self._log.info("%s", ", ".join(f"{count} {state}" for state, count in self._table.counts.items()))


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which goes on to its end before a cancel takes effect."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def _skipped(plan: Planned) -> bool:
    return plan.settled and plan.row.state in ("skipped", "left")


def _row_of_twin(plan: Planned, row: Ended) -> Ended:
    """The row of an entry that names a recording which another entry named before. Its seconds and cost count once."""
    again = f"listed twice: same recording as {row.name}"
    detail = f"{again}; {row.detail}" if row.detail else again
    return row.model_copy(
        update={"name": plan.row.name, "line": plan.row.line, "detail": detail, "duration": None, "seconds": None, "cost": 0.0}
    )


def _unexpected(plan: Planned, error: Exception) -> Ended:
    """A run that could not be made or asked: the store or Prefect was away for longer than their clients wait."""
    told = error_of(error)
    later = told.retry if isinstance(error, StenoError) else Retry.LATER
    return plan.row.model_copy(
        update={"state": "failed", "code": told.code, "detail": told.message, "exit_code": told.exit_code, "retry": later}
    )
