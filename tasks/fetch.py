"""The source, from wherever it lies, as one normalised audio artifact."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.sources import display_name, fetch_source, output_stem
from prefect import Task
from prefect.cache_policies import NO_CACHE

from infra.artifacts import ArtifactRef
from infra.compute import ProgressSink, engine_required, get_store, in_thread
from infra.progress import StageEvent, publish
from infra.settings import StenoSettings, get_settings
from speech.errors import MediaTooLong
from speech.schema import Frozen
from tasks.recording import Recording
from tasks.report import RunLog, current_attempts, run_id, started
from tasks.stage import retry_condition, with_retries

if TYPE_CHECKING:
    from infra.store import Store

DECODER_VERSION = 1
"""Raised when the same bytes decode to other samples."""


class FetchCall(Frozen):
    source: str
    label: str
    """For people: without credentials and query."""
    allow_truncated: bool = False


async def fetch(log: RunLog, source: str, *, allow_truncated: bool) -> Recording:
    """Download, check and decode `source`; bytes that were decoded before are not decoded again.

    Raises the errors of `infra.errors` for sources, and MediaError and its kinds for what they hold.
    """
    call = FetchCall(source=source, label=display_name(source), allow_truncated=allow_truncated)
    recording = Recording.model_validate(await log.perform("fetch", with_retries(fetch_task), call))
    log.duration = recording.duration
    log.note(*recording.warnings)
    return recording


async def _fetch(call: FetchCall) -> dict[str, Any]:
    current_attempts().begin(1)
    started("fetch")
    settings, run = get_settings(), run_id()

    def tell(detail: str, fraction: float) -> None:
        publish(StageEvent(run, "fetch", "progress", min(max(fraction, 0.0), 1.0), detail=detail))

    phase = ["downloading"]
    recording = await in_thread(
        lambda report: _fetch_and_decode(call, settings, get_store(settings), report, phase),
        lambda done: tell(phase[0], done),
        "fetch",
    )
    return recording.model_dump(mode="json")


fetch_task: Task[Any, Any] = Task(
    fn=_fetch,
    name="fetch",
    task_run_name="fetch {call.label}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_condition_fn=retry_condition,
)


def _fetch_and_decode(
    call: FetchCall, settings: StenoSettings, store: Store, report: ProgressSink, phase: list[str]
) -> Recording:
    settings.scratch_path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=settings.scratch_path) as folder:
        fetched = fetch_source(call.source, Path(folder), settings, report=report, stdin=sys.stdin.buffer)
        known = _known(store, _record(fetched.sha256, call), settings.limits.max_duration)
        if known is None:
            phase[0] = "decoding"
            audio = _decode(fetched.path, fetched.name, Path(folder), call=call, settings=settings, store=store, report=report)
            store.write_record(_record(fetched.sha256, call), audio.model_dump_json().encode())
        else:
            audio = known
    return Recording(
        audio=audio,
        name=call.label,
        stem=output_stem(fetched.name),
        duration=audio.meta["duration"],
        warnings=tuple(audio.meta.get("warnings", ())),
        reused=known is not None,
    )


def _decode(
    source: Path, name: str, folder: Path, *, call: FetchCall, settings: StenoSettings, store: Store, report: ProgressSink
) -> ArtifactRef:
    with engine_required():
        from speech.audio import normalise

        target = folder / "normalised.flac"
        info = normalise(
            source,
            target,
            max_duration=settings.limits.max_duration,
            allow_truncated=call.allow_truncated,
            name=name,
            progress=report,
        )
    meta = {"duration": info.duration, "probe": info.probe.model_dump(mode="json"), "warnings": list(info.warnings)}
    return store.put(target, "audio", sha256=info.sha256, meta=meta)


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
