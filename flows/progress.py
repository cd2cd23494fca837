"""How far a run is, as a Prefect artifact that moves while its stages are at work."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from flows.artifacts import RunArtifacts, flow_run_here, read_artifacts
from infra.progress import StageEvent, listening
from infra.settings import get_settings
from speech.stages import STAGES, STEPS, step_of
from stenoflow.errors import StageCancelled
from stenoflow.types import Frozen

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

NAME = "progress"

SHARES = {"fetch": 2.0} | {step_of(stage): spec.share for stage, spec in STAGES.items()} | {"export": 0.5}
"""A step's part of the whole. Fetching is given more than it takes with files (0.4–0.8), for downloads."""

_FIRST = 1.0
"""Seconds before the artifact is made: what is over by then, mostly out of the cache, costs one call instead of two."""
_PATIENCE = 5.0
"""Seconds that Prefect's API is waited for when the run is over."""


class Progress(Frozen):
    """How far a run was when it last said so."""

    percent: float
    description: str
    """The stages at work (`asr 43 %, embed 80 %`), or how it ended."""
    updated: datetime | None = None


class RunProgress:
    """Listens to the events of one run, from any thread."""

    def __init__(self, run: str) -> None:
        self.run = run
        self._done = dict.fromkeys(STEPS, 0.0)
        self._at_work: dict[str, str] = {}
        """Stage to what is shown of it."""
        self._failed: list[str] = []
        self._percent = 0.0
        self._guard = threading.Lock()

    def __call__(self, event: StageEvent) -> None:
        if event.run != self.run or event.stage not in SHARES:
            return
        with self._guard:
            self._take(event)
            total = sum(SHARES[stage] for stage in self._done)
            done = sum(SHARES[stage] * fraction for stage, fraction in self._done.items())
            # A stage that is tried again begins anew; what people are shown does not go back.
            self._percent = max(self._percent, 100 * done / total if total else 0.0)

    def _take(self, event: StageEvent) -> None:
        if event.state in ("started", "progress"):
            self._done[event.stage] = event.fraction
            self._at_work[event.stage] = f"{event.stage} {event.fraction:.0%}".replace("%", " %")
            return
        self._at_work.pop(event.stage, None)
        if event.state == "skipped":
            self._done.pop(event.stage, None)
        else:
            self._done[event.stage] = 1.0
        if event.state == "failed":
            self._failed.append(event.stage)

    def now(self) -> Progress:
        with self._guard:
            at_work = ", ".join(self._at_work[stage] for stage in STEPS if stage in self._at_work)
            return Progress(percent=round(min(self._percent, 99.9), 1), description=at_work or "preparing")

    def ended(self, error: BaseException | None) -> Progress:
        """The last word: 100 % when there is a transcript, the place where it stopped when there is none."""
        failed = " and ".join(self._failed)
        if error is None:
            return Progress(percent=100.0, description=f"done, although {failed} failed" if failed else "done")
        if isinstance(error, Exception) and not isinstance(error, StageCancelled):
            return self.now().model_copy(update={"description": f"stopped: {failed or 'it'} failed"})
        return self.now().model_copy(update={"description": "cancelled"})


@contextlib.asynccontextmanager
async def progress_shown() -> AsyncIterator[None]:
    """Keep the run's progress artifact up to date inside this block. It never delays or fails the run."""
    run = flow_run_here()
    if run is None:
        yield
        return
    progress, artifacts, over = RunProgress(str(run.id)), RunArtifacts.of(run), asyncio.Event()
    error: BaseException | None = None
    with listening(progress):
        shown = asyncio.create_task(_show(progress, artifacts, over))
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            over.set()
            await _last_word(shown, artifacts, progress.ended(error))


async def read_progress(client: PrefectClient, run_id: UUID) -> Progress | None:
    """How far the run is, by its artifact; None before it has said anything."""
    found = await read_artifacts(client, run_id, NAME)
    if not found or not isinstance(found[0].data, int | float):
        return None
    return Progress(percent=float(found[0].data), description=found[0].description or "", updated=found[0].updated)


async def _show(progress: RunProgress, artifacts: RunArtifacts, over: asyncio.Event) -> None:
    """Write what has changed, at most every few seconds, until the run is over."""
    shown: Progress | None = None
    pause = _FIRST
    while not await _within(over, pause):
        pause, now = get_settings().report.progress_seconds, progress.now()
        if now != shown:
            with contextlib.suppress(Exception):
                await _write(artifacts, now)
                shown = now


async def _last_word(shown: asyncio.Task[None], artifacts: RunArtifacts, progress: Progress) -> None:
    try:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_PATIENCE):
                await shown
                await _write(artifacts, progress)
    finally:
        shown.cancel()


async def _within(event: asyncio.Event, seconds: float) -> bool:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


async def _write(artifacts: RunArtifacts, progress: Progress) -> None:
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        await artifacts.write(client, NAME, "progress", progress.percent, progress.description)
