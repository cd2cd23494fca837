"""One recording as a flow run: the steps of `flows.pipeline`, each a task, with what a run leaves in Prefect and in the store."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Failed

from flows.outcome import keep_outcome, outcome_of
from flows.pipeline import pipeline, result_of
from flows.report import publish_report
from flows.request import TranscribeRequest, without_folders
from flows.result import DiarizationFailed, TranscribeResult
from flows.running import running
from flows.served import requested, served
from flows.usage import recomputing_what_is_lost
from flows.voices import owner_in, voice_sets
from infra import headstart
from infra.artifacts import StageOutcome
from infra.names import display_name
from tasks.calls import StageCall
from tasks.decoding import FetchCall, Recording
from tasks.export import export
from tasks.fetch import fetch
from tasks.records import RecordStorage
from tasks.rendering import ExportCall, Exported
from tasks.report import RunLog, run_id
from tasks.stage import run_stage


def _run_name() -> str:
    return display_name(without_folders(requested("name")) or requested("source"))


@flow(name="transcribe", flow_run_name=_run_name, persist_result=False, validate_parameters=False)
@served
async def transcribe(request: TranscribeRequest) -> TranscribeResult:
    """Turn one recording into a speaker-attributed, word-timed transcript.

    Raises the errors of `stenoflow.errors`, and DiarizationFailed when the transcript could be written
    without speakers only.

    Args:
        request: The recording, the options, and where the files go.
    """
    async with running(request) as log:
        result = await recomputing_what_is_lost(request.sources, lambda: _run(log, request))
    if result.degraded and request.on_diarization_failure == "fail":
        return cast(TranscribeResult, _partial(result))
    return result


# Nothing is stored there. Left out, Prefect asks its server twice per run which storage is its default, with new clients.
transcribe.result_storage = RecordStorage()


@dataclass(frozen=True)
class _Tasks:
    """Each step as a Prefect task, with its cache, retries and time limit."""

    log: RunLog

    @property
    def owner(self) -> str:
        return owner_in(flow_run.tags)

    def voices(self, request: TranscribeRequest) -> tuple[str, ...]:
        return voice_sets(request, flow_run.tags)

    async def fetch(self, call: FetchCall) -> Recording:
        return await fetch(self.log, call)

    async def compute(self, call: StageCall) -> StageOutcome:
        return await run_stage(self.log, call)

    async def export(self, call: ExportCall) -> Exported:
        return await export(self.log, call)

    def apart(self, names: Sequence[str]) -> list[_Tasks]:
        return [_Tasks(log) for log in self.log.apart(names)]


async def _run(log: RunLog, request: TranscribeRequest) -> TranscribeResult:
    began = time.perf_counter()
    written = await pipeline(_Tasks(log), request)
    result = result_of(written, log, time.perf_counter() - began + headstart.seconds_before(began))
    await keep_outcome(outcome_of(run_id(), result))
    await publish_report(result)
    return result


def _partial(result: TranscribeResult) -> Any:
    """A failed state that says what was saved. Callers of the flow get DiarizationFailed, which has the result."""
    message = (
        f"Written without speakers, because diarization failed: {result.error} "
        "Run again (or press Retry) to repeat only diarization, merge and export."
    )
    return Failed(name="Partial", message=message, data=DiarizationFailed(message, result))
