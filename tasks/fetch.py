"""The source, from wherever it lies, as one normalised audio artifact."""

from __future__ import annotations

import contextlib
import errno
import json
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
from speech.errors import MediaTooLong
from speech.schema import Frozen
from tasks.recording import Recording
from tasks.report import RunLog, current_attempts, defects_contained, run_id, started
from tasks.stage import retry_condition, with_retries
from tasks.stopping import ends_cancelled

if TYPE_CHECKING:
    from infra.sources import Fetched
    from infra.store import Store

DECODER_VERSION = 1
"""Raised when the same bytes decode to other samples."""


class FetchCall(Frozen):
    source: str
    label: str
    """For people: without credentials and query."""
    allow_truncated: bool = False
    again: bool = False
    """Decode although these bytes were decoded before."""


async def fetch(log: RunLog, source: str, *, name: str, allow_truncated: bool) -> Recording:
    """Download, check and decode `source`; bytes that were decoded before are not decoded again.

    `name` is what the recording is called, for people and in the names of its files.

    Raises the errors of `infra.errors` for sources, and MediaError and its kinds for what they hold.
    """
    call = FetchCall(source=source, label=name, allow_truncated=allow_truncated, again="fetch" in log.redo)
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
        recording = await in_thread(lambda report: _fetch_and_decode(call, phase, report), phase.publish, "fetch")
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


def _fetch_and_decode(call: FetchCall, phase: _Phase, report: ProgressSink) -> Recording:
    from infra.sources import fetch_source

    def received(done: int, total: int | None) -> None:
        phase.detail = f"received {done / 1e6:.1f} MB"
        report(done / total if total else 0.0)

    settings = get_settings()
    store = get_store(settings)
    store.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=store.scratch) as folder, no_space_translated():
        fetched = fetch_source(revealed(call.source, settings), Path(folder), settings, report=received, stdin=sys.stdin.buffer)
        record = _record(fetched.sha256, call)
        audio = None if call.again else _known(store, record, settings.limits.max_duration)
        reused = audio is not None
        if audio is None:
            phase.detail = "decoding"
            audio = _decode(fetched, Path(folder), call, report)
            store.write_record(record, audio.model_dump_json().encode())
    return Recording(
        audio=audio,
        name=call.label,
        stem=output_stem(call.label),
        duration=audio.meta["duration"],
        warnings=tuple(audio.meta.get("warnings", ())),
        reused=reused,
    )


def _decode(fetched: Fetched, folder: Path, call: FetchCall, report: ProgressSink) -> ArtifactRef:
    with engine_required():
        from speech.audio import normalise

        target = folder / "normalised.flac"
        info = normalise(
            fetched.path,
            target,
            max_duration=get_settings().limits.max_duration,
            allow_truncated=call.allow_truncated,
            name=fetched.name,
            progress=report,
        )
    meta = {"duration": info.duration, "probe": info.probe.model_dump(mode="json"), "warnings": list(info.warnings)}
    return get_store().put(target, "audio", sha256=info.sha256, meta=meta)


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


def _known(store: Store, record: str, max_duration: float) -> ArtifactRef | None:
    """The audio that these bytes gave before, if it is still there and may be used under today's cap."""
    content = store.read_record(record)
    if content is None:
        return None
    ref = ArtifactRef.model_validate(json.loads(content))
    if not store.exists(ref.path):
        store.delete_record(record)
        return None
    if ref.meta["duration"] > max_duration:
        raise MediaTooLong(
            f"The recording lasts {ref.meta['duration']:.0f} s, above the cap of {max_duration:.0f} s (STENO_LIMITS__MAX_DURATION)."
        )
    return ref
