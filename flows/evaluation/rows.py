"""Every recording through every system: transcribed by a run of its own, then held to its truth."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib

from prefect.states import Cancelled
from pydantic import ValidationError

from flows.evaluation.request import EvaluateRequest, slug
from flows.evaluation.result import Row
from flows.execution import create_run, execute_here
from flows.options import TranscribeOptions
from flows.outcome import RunError, RunOutcome, error_of, read_outcome
from flows.request import TranscribeRequest
from flows.result import TranscribeResult
from infra import outputs
from infra.compute import get_store
from infra.handles import concealed
from infra.progress import StageEvent, publish
from infra.settings import get_settings
from speech.languages import only_language
from stenoflow.errors import StenoError
from tasks.references import Case, ReferenceSet
from tasks.report import run_id
from tasks.score import ScoreCall, score_transcript

_UNSAID = RunError(code="unexpected", message="the run ended without a reason; see its log in Prefect")


async def evaluate_all(request: EvaluateRequest, found: ReferenceSet) -> tuple[list[Row], list[str]]:
    """A row per system and recording, system by system, and what is to be noted."""
    turns = asyncio.Semaphore(request.concurrency)
    work = [(label, options, case) for label, options in request.systems.items() for case in found.cases]
    done = 0

    async def one(label: str, options: TranscribeOptions, case: Case) -> tuple[Row, bool]:
        nonlocal done
        async with turns:
            publish(StageEvent(run_id(), "evaluate", "started", done / len(work), detail=f"{case.recording} · {label}"))
            row, same = await _row(request, label, options, case)
            done += 1
            publish(StageEvent(run_id(), "evaluate", "progress", done / len(work), detail=f"{case.recording} · {label}"))
            return row, same

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(*each)) for each in work]
    results = [task.result() for task in tasks]
    return [row for row, _ in results], _warnings(found, results)


def _warnings(found: ReferenceSet, results: list[tuple[Row, bool]]) -> list[str]:
    same = dict.fromkeys(row.recording for row, same in results if same)
    devices = dict.fromkeys(device for row, _ in results for device in row.devices)
    notes = []
    if found.without_truth:
        notes.append(f"Excluded, because they have no reference: {', '.join(found.without_truth)}.")
    if found.left_out:
        notes.append(f"Excluded, because they are still being written: {', '.join(found.left_out)}.")
    if same:
        notes.append(
            f"The reference is identical to the transcript, to the word and millisecond: {', '.join(same)}. "
            "Is it a machine transcript next to the recording?"
        )
    if len(devices) > 1:
        notes.append(f"Stages were computed on {', '.join(devices)}: their speeds are not comparable.")
    return notes


# -- one recording, one system --------------------------------------------------------------------------------------------


async def _row(request: EvaluateRequest, label: str, options: TranscribeOptions, case: Case) -> tuple[Row, bool]:
    """What the system makes of the recording, and whether that is the truth to the digit. Never raises but to be cancelled."""
    row = Row(recording=case.recording, system=label, reference=case.sha256)
    if case.problem is not None or case.reference is None:
        problem = case.problem
        error = RunError(code=problem.code, message=problem.message, exit_code=problem.exit_code) if problem else _UNSAID
        return _failed(row, error), False
    try:
        asked = _transcribe_request(request, label, options, case)
        outcome = await _transcribed(asked, case, label, request.series)
    except (StenoError, ValueError) as error:
        return _failed(row, _refused(error)), False
    row = row.model_copy(update={"run": outcome.run})
    if outcome.error is not None:
        row = _failed(row, outcome.error)
    if outcome.result is None:
        return row if row.error else _failed(row, _UNSAID), False
    try:
        found = await score_transcript(_score_call(request, case, asked, outcome.result, label))
    except StenoError as error:
        return _failed(row, error_of(error)), False
    facts = ("scores", "model", "duration", "compute_seconds", "devices", "cost")
    return row.model_copy(update={name: getattr(found, name) for name in facts}), found.same


def _transcribe_request(request: EvaluateRequest, label: str, options: TranscribeOptions, case: Case) -> TranscribeRequest:
    """Raises pydantic's ValidationError when the manifest's options for the recording are wrong."""
    folder = outputs.joined(request.output_dir, slug(label) or hashlib.sha256(label.encode()).hexdigest()[:12])
    return TranscribeRequest.model_validate(
        {
            **options.model_dump(exclude_unset=True),
            **case.options,
            "source": concealed(case.source, get_settings(), shared=True),
            "name": case.recording[-200:],
            "output_dir": folder,
        }
    )


async def _transcribed(asked: TranscribeRequest, case: Case, label: str, series: str) -> RunOutcome:
    """How the recording's own run ended, executed here; taken as it is when this very evaluation was interrupted after it."""
    from prefect.client.orchestration import get_client

    key = hashlib.sha256(f"{run_id()}\0{label}\0{case.recording}".encode()).hexdigest()
    async with get_client() as client:
        run = await create_run(
            client, asked, idempotency_key=f"evaluate-{key}", tags=[f"evaluation:{series}"], name=f"{case.recording} · {label}"
        )
    if run.state is not None and run.state.is_completed():
        outcome = await read_outcome(str(run.id))
        if outcome is not None and outcome.result is not None and await _is_there(outcome.result):
            return outcome
    try:
        await execute_here(run)
    except asyncio.CancelledError:
        async with get_client() as client:
            with contextlib.suppress(Exception):
                await client.set_flow_run_state(run.id, Cancelled(message="The evaluation was cancelled."), force=True)
        raise
    return await read_outcome(str(run.id)) or RunOutcome(run=str(run.id), state="failed", error=_UNSAID)


async def _is_there(result: TranscribeResult) -> bool:
    return await asyncio.to_thread(get_store().exists, result.transcript.path)


def _score_call(
    request: EvaluateRequest, case: Case, asked: TranscribeRequest, result: TranscribeResult, label: str
) -> ScoreCall:
    assert case.reference is not None
    return ScoreCall(
        transcript=result.transcript,
        reference=case.reference,
        options=request.scoring,
        diarized=asked.diarize and not result.degraded,
        language="en" if asked.task == "translate" else only_language(asked.language),
        stages=result.stages,
        label=f"{case.recording} {label}",
    )


def _failed(row: Row, error: RunError) -> Row:
    return row.model_copy(update={"error": error.message, "code": error.code, "exit_code": error.exit_code})


def _refused(error: StenoError | ValueError) -> RunError:
    if isinstance(error, StenoError):
        return error_of(error)
    assert isinstance(error, ValidationError)
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    option = f"{fault['loc'][0]}: " if fault["loc"] else ""
    return RunError(code="invalid_option", message=f"{option}{fault['msg'].removeprefix('Value error, ')}", exit_code=2)
