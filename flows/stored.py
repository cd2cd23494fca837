"""A recording of which every stage is in the store already: its files are written at once, without Prefect."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from flows.pipeline import pipeline, result_of
from flows.request import TranscribeRequest
from flows.result import TranscribeResult
from infra.artifacts import ArtifactRef, StageOutcome
from infra.compute import get_store
from infra.jobs import ProgressSink, in_thread
from infra.names import STDIN, scheme_of
from infra.progress import publish
from infra.settings import StenoSettings
from infra.usage import Use, write_use
from infra.voices import set_of
from infra.webhooks import SERVICE
from stenoflow.errors import OutputNotWritable, StorageFull, TransientError
from tasks.calls import StageCall, outcome_in
from tasks.decoding import FetchCall, Recording, known_audio, record_of
from tasks.rendering import ExportCall, Exported, render_and_write
from tasks.reports import Reports, StageReport, event_of, since, succeeded


async def from_store(request: TranscribeRequest, settings: StenoSettings) -> TranscribeResult | None:
    """The result of a run that would compute nothing, with its files written; None where one has to be made.

    Local recordings only: others would be downloaded twice. Whatever is wrong is left to the run, which says so where it is
    looked for.
    """
    if request.redo_from or any(source == STDIN or scheme_of(source) not in (None, "file") for source in request.sources):
        return None
    began = time.perf_counter()
    steps = _Stored(request, settings)
    try:
        written = await pipeline(steps, request)
    except Exception:
        return None
    await asyncio.to_thread(steps.keep_in_use, written.transcript)
    result = result_of(written, steps.log, time.perf_counter() - began)
    for report in result.stages:
        publish(event_of("", report))
    return result


class _NotStored(Exception):
    """A step would have to be computed."""


class _Stored:
    """The steps of one recording, as far as the store has what they leave."""

    def __init__(self, request: TranscribeRequest, settings: StenoSettings) -> None:
        self.log = Reports(backend=request.compute)
        self._settings = settings
        self._store = get_store(settings)
        self._retention = request.retention_days if request.retention_days is not None else settings.retention.days
        self._keys: list[str] = []
        self._artifacts: list[str] = []

    @property
    def owner(self) -> str:
        return SERVICE

    def voices(self, request: TranscribeRequest) -> tuple[str, ...]:
        return (set_of(SERVICE),) if request.voices else ()

    async def fetch(self, call: FetchCall) -> Recording:
        began = time.perf_counter()
        recording = await in_thread(lambda report: self._decoded(call, report), lambda _: None, "fetch")
        self.log.keep(StageReport(stage="fetch", state="cached", seconds=since(began), attempts=1, label=call.label))
        return recording

    async def compute(self, call: StageCall) -> StageOutcome:
        began = time.perf_counter()
        call = await asyncio.to_thread(call.placed, self._settings, self.log.backend)
        content = await asyncio.to_thread(self._store.read_record, call.key)
        if content is None:
            raise _NotStored
        outcome = outcome_in(content, call.key)
        self._keys.append(call.key)
        self._artifacts.append(outcome.artifact.path)
        self.log.keep(succeeded(call.shown_as, outcome, True, call.label, since(began), 0))
        return outcome

    async def export(self, call: ExportCall) -> Exported:
        began = time.perf_counter()
        exported = await in_thread(lambda report: render_and_write(call, report), lambda _: None, "export")
        self.log.keep(StageReport(stage="export", state="computed", seconds=since(began), attempts=1, label=call.stem))
        return exported

    def apart(self, names: Sequence[str]) -> list[_Stored]:
        parts = [copy.copy(self) for _ in names]
        for part, log in zip(parts, self.log.apart(names), strict=True):
            part.log = log
        return parts

    def keep_in_use(self, transcript: ArtifactRef) -> None:
        """Have what was reused kept for as long after this as after a run."""
        use = Use(
            run=str(uuid.uuid4()),
            keys=tuple(self._keys),
            artifacts=tuple(dict.fromkeys([*self._artifacts, transcript.path])),
            beat=time.time(),
            ended=True,
            retention=None if self._retention is None else self._retention * 86_400.0,
        )
        with contextlib.suppress(TransientError, OutputNotWritable, StorageFull):
            write_use(self._store, use)

    def _decoded(self, call: FetchCall, report: ProgressSink) -> Recording:
        from infra.sources import fetch_source

        with tempfile.TemporaryDirectory(prefix="stored-") as folder:
            # Reported block by block, so that Ctrl-C ends the hashing of a long recording.
            fetched = fetch_source(call.source, Path(folder), self._settings, report=lambda done, total: report(0.0))
        record = record_of(fetched.sha256, call)
        audio = known_audio(record, call)
        if audio is None:
            raise _NotStored
        self._keys.append(record)
        recording = call.recording(audio, reused=True, served_name=fetched.served_name)
        self._artifacts += [audio.path, *(channel.path for channel in recording.channels)]
        return recording
