"""The source, from wherever it lies, as one normalised audio artifact."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import Task
from prefect.cache_policies import NO_CACHE

from infra.artifacts import ArtifactRef
from infra.compute import ProgressSink, engine_required, get_store, in_thread
from infra.errors import StorageFull
from infra.handles import revealed
from infra.names import output_stem
from infra.progress import StageEvent, publish
from infra.settings import get_settings
from infra.usage import in_use, noted
from speech.errors import MediaTooLong
from speech.schema import Frozen
from tasks.locking import claimed
from tasks.recording import Recording
from tasks.report import RunLog, current_attempts, defects_contained, run_id, started
from tasks.stage import retry_condition, with_retries
from tasks.stopping import ends_cancelled

if TYPE_CHECKING:
    from infra.sources import Fetched

DECODER_VERSION = 1
"""Raised when the same bytes decode to other samples."""


class FetchCall(Frozen):
    source: str
    label: str
    """For people: without credentials and query."""
    allow_truncated: bool = False
    again: bool = False
    """Decode although these bytes were decoded before."""
    max_duration: float | None = None
    """Seconds that this run's recording may last; the settings' cap when it is lower, or there is no other."""

    @property
    def longest(self) -> float:
        cap = get_settings().limits.max_duration
        return cap if self.max_duration is None else min(cap, self.max_duration)


async def fetch(log: RunLog, source: str, *, name: str, allow_truncated: bool, max_duration: float | None = None) -> Recording:
    """Download, check and decode `source`; bytes that were decoded before are not decoded again.

    `name` is what the recording is called, for people and in the names of its files.

    Raises the errors of `infra.errors` for sources, and MediaError and its kinds for what they hold.
    """
    call = FetchCall(
        source=source, label=name, allow_truncated=allow_truncated, again="fetch" in log.redo, max_duration=max_duration
    )
    recording = Recording.model_validate(await log.perform("fetch", with_retries(fetch_task), call))
    log.duration = recording.duration
    log.note(*recording.warnings)
    return recording


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
    return Recording(
        audio=audio,
        name=call.label,
        stem=output_stem(call.label),
        duration=audio.meta["duration"],
        warnings=tuple(audio.meta.get("warnings", ())),
        reused=reused,
    )


def _receive(call: FetchCall, folder: Path, phase: _Phase, report: ProgressSink) -> Fetched:
    from infra.sources import fetch_source

    def received(done: int, total: int | None) -> None:
        phase.detail = f"received {done / 1e6:.1f} MB"
        report(done / total if total else 0.0)

    settings = get_settings()
    return fetch_source(revealed(call.source, settings), folder, settings, report=received, stdin=sys.stdin.buffer)


async def _decode_once(call: FetchCall, fetched: Fetched, folder: Path, phase: _Phase) -> tuple[ArtifactRef, bool]:
    """The normalised audio, and whether these bytes were decoded before, or by another run meanwhile."""
    record, known = _record(fetched.sha256, call), None
    await in_use(record)

    async def there() -> bool:
        nonlocal known
        known = None if call.again else await asyncio.to_thread(_known, record, call)
        return known is not None

    if await there() or (claim := await claimed(record, there, "fetch")) is None:
        assert known is not None
        noted(known.path)
        return known, True
    try:
        phase.detail = "decoding"
        audio = await in_thread(lambda report: _decode(record, fetched, folder, call, report), phase.publish, "fetch")
    finally:
        claim.release()
    noted(audio.path)
    return audio, False


def _decode(record: str, fetched: Fetched, folder: Path, call: FetchCall, report: ProgressSink) -> ArtifactRef:
    with engine_required(), limit_named(call):
        from speech.audio import normalise

        target = folder / "normalised.flac"
        info = normalise(
            fetched.path,
            target,
            max_duration=call.longest,
            allow_truncated=call.allow_truncated,
            name=call.label,
            progress=report,
        )
    meta = {"duration": info.duration, "probe": info.probe.model_dump(mode="json"), "warnings": list(info.warnings)}
    store = get_store()
    audio = store.put(target, "audio", sha256=info.sha256, meta=meta)
    store.write_record(record, audio.model_dump_json().encode())
    return audio


@contextlib.contextmanager
def limit_named(call: FetchCall) -> Iterator[None]:
    """Say which limit a recording is too long for; the engine knows of no settings."""
    try:
        yield
    except MediaTooLong as error:
        raise MediaTooLong(f"{error.message.removesuffix('.')}, or raise {_limit(call)}.") from None


def _limit(call: FetchCall) -> str:
    """What a recording's length is limited by."""
    return "STENO_LIMITS__MAX_DURATION" if call.longest != call.max_duration else "the limit that this run was given"


@contextlib.contextmanager
def no_space_translated() -> Iterator[None]:
    """A full disk, met while decoding, as our own error."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                "No space left for the recording; free some, or point STENO_SCRATCH and STENO_STORE elsewhere."
            ) from error
        raise


def _record(sha256: str, call: FetchCall) -> str:
    return f"decoded-{sha256}-v{DECODER_VERSION}{'-truncated' if call.allow_truncated else ''}"


def _known(record: str, call: FetchCall) -> ArtifactRef | None:
    """The audio that these bytes gave before, if it is still there and may be used under today's cap."""
    store = get_store()
    content = store.read_record(record)
    try:
        ref = ArtifactRef.model_validate_json(content) if content else None
    except ValueError:
        return None  # damaged; it is written anew
    if ref is None or not store.holds(ref):
        return None
    if ref.meta["duration"] > call.longest:
        raise MediaTooLong(
            f"The recording lasts {ref.meta['duration']:.0f} s, above the cap of {call.longest:.0f} s ({_limit(call)})."
        )
    return ref
