"""The source, from wherever it lies, as one normalised audio artifact."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import Task
from prefect.cache_policies import NO_CACHE

from infra import headstart
from infra.artifacts import ArtifactRef
from infra.compute import get_store
from infra.handles import revealed
from infra.jobs import ProgressSink, in_thread
from infra.progress import StageEvent, publish
from infra.settings import get_settings
from infra.usage import in_use, noted
from tasks.decoding import FetchCall, Recording, decode, known_audio, no_space_translated, record_of
from tasks.locking import claimed
from tasks.report import RunLog, defects_contained, run_id, started
from tasks.retrying import current_attempts, retry_condition, with_retries
from tasks.stopping import ends_cancelled

if TYPE_CHECKING:
    from infra.sources import Fetched


async def fetch(log: RunLog, call: FetchCall) -> Recording:
    """Download, check and decode the source; bytes that were decoded before are not decoded again.

    Raises the errors of `stenoflow.errors` for sources, and MediaError and its kinds for what they hold.
    """
    return Recording.model_validate(await log.perform("fetch", with_retries(fetch_task), call))


@ends_cancelled
async def _fetch(call: FetchCall) -> dict[str, Any]:
    current_attempts().begin(1)
    started("fetch")
    phase = _Phase(run_id())
    with defects_contained("fetch"):
        recording = await _fetch_and_decode(call, phase)
    return recording.model_dump(mode="json")


class _Phase:
    """What the fetch is doing, beside the fraction of it that is done."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.detail = ""

    def publish(self, fraction: float) -> None:
        publish(StageEvent(self.run, "fetch", "progress", fraction, detail=self.detail))


fetch_task: Task[Any, Any] = Task(
    fn=_fetch,
    name="fetch",
    task_run_name="fetch {call.label}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_condition_fn=retry_condition,
)


async def _fetch_and_decode(call: FetchCall, phase: _Phase) -> Recording:
    store = await asyncio.to_thread(get_store)
    with no_space_translated():
        store.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=store.scratch) as folder:
            fetched = await in_thread(lambda report: _receive(call, Path(folder), phase, report), phase.publish, "fetch")
            audio, reused = await _decode_once(call, fetched, Path(folder), phase)
    recording = call.recording(audio, reused=reused, served_name=fetched.served_name)
    noted(*(channel.path for channel in recording.channels))
    return recording


def _receive(call: FetchCall, folder: Path, phase: _Phase, report: ProgressSink) -> Fetched:
    from infra.sources import fetch_source

    def received(done: int, total: int | None) -> None:
        phase.detail = f"received {done / 1e6:.1f} MB"
        report(done / total if total else 0.0)

    settings = get_settings()
    return fetch_source(revealed(call.source, settings), folder, settings, report=received, stdin=sys.stdin.buffer)


async def _decode_once(call: FetchCall, fetched: Fetched, folder: Path, phase: _Phase) -> tuple[ArtifactRef, bool]:
    """The normalised audio, and whether these bytes were decoded before, or by another run meanwhile."""
    record, known = record_of(fetched.sha256, call), None
    await in_use(record)

    async def there() -> bool:
        nonlocal known
        known = None if call.again or headstart.waits(record) else await asyncio.to_thread(known_audio, record, call)
        return known is not None

    if await there() or (claim := await claimed(record, there, "fetch")) is None:
        assert known is not None
        noted(known.path)
        return known, True
    try:
        phase.detail = "decoding"
        audio = await in_thread(lambda report: _audio(record, fetched, folder, call, report), phase.publish, "fetch")
    finally:
        claim.release()
    noted(audio.path)
    return audio, False


def _audio(record: str, fetched: Fetched, folder: Path, call: FetchCall, report: ProgressSink) -> ArtifactRef:
    begun = None if call.again else headstart.begun(record)
    audio: ArtifactRef | None = begun.result(report) if begun is not None else None
    return audio or decode(fetched, folder, call, report)
