"""The jobs of callers: submitted, looked at, waited for, retried. What they are is kept by Prefect and by the store."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import ValidationError

from api import guard, limits, metrics, states, tags, webhooks
from api.auth import Caller
from api.errors import Conflict, JobNotFound, Unavailable, Unprocessable
from api.problems import unprocessable
from api.removal import Removal
from api.results import transcript_members
from api.runs import Runs, submitted_at
from api.schemas import Job, JobOptions, JobRequest, JobStatus, JobSummary, RetryRequest
from api.states import ENDED, Seen
from flows.outcome import RunOutcome, read_outcome
from flows.request import FORMATS, TranscribeRequest
from flows.result import TranscribeResult
from infra.handles import concealed
from infra.settings import StenoSettings
from speech.errors import AccessError, InputError

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

PENDING = [*states.WAITING, *states.AT_WORK]
_LOOK = 0.4
"""Seconds between two looks at a job that is waited for."""
_MODEL = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class Uploaded:
    """A recording that the store keeps."""

    source: str
    """Where the worker reads it."""
    sha256: str
    name: str
    """What its owner calls it."""


class Jobs:
    """What the routes ask. Everything raises Unavailable when Prefect or the store does not answer."""

    def __init__(self, runs: Runs, settings: StenoSettings) -> None:
        self.runs = runs
        self.settings = settings
        self.removal = Removal(runs, settings)

    # -- submitting ---------------------------------------------------------------------------------------------------

    async def may_submit(self, caller: Caller) -> None:
        """Raise TooMany when the caller has too many jobs under way, or submits too fast."""
        await limits.may_submit(caller, lambda: self.pending(caller))

    async def pending(self, caller: Caller) -> int:
        """The caller's jobs that wait or are at work."""
        return await self.runs.count({"tags": {"all_": [tags.owner(caller.key_id)]}, "state": {"type": {"any_": PENDING}}})

    async def submit(
        self, body: JobRequest, caller: Caller, *, upload: Uploaded | None = None, idempotency_key: str | None = None
    ) -> FlowRun:
        """The run of a new job, or of the one that was submitted before under the same key.

        Raises Unprocessable for options that cannot be, and for a key that another payload was submitted under.
        """
        if upload is None:
            assert body.audio_url is not None
            await guard.check_audio_url(body.audio_url)
        if body.webhook_url is not None:
            await guard.check_webhook_url(body.webhook_url)
        request = await asyncio.to_thread(self._request, body, upload)
        payload = _payload(body, upload)
        marks = tags.of_job(caller.key_id, body.tags, body.metadata, body.formats, payload, upload.sha256 if upload else None)
        if body.webhook_url is not None:
            marks += await webhooks.tags_for(body.webhook_url, caller)
        run = await self._created(request, marks, payload, _run_key(caller, idempotency_key))
        metrics.SUBMITTED.inc()
        return run

    async def _created(self, request: TranscribeRequest, marks: list[str], payload: str, key: str) -> FlowRun:
        while True:
            run = await self.runs.create(request, key=key, tags=marks)
            if not tags.is_deleted(run):
                break
            key = _hash(key, str(run.id))  # a key whose job was deleted is as good as new
        if payload not in tags.values(run, tags.PAYLOAD):
            raise Unprocessable(
                f"This Idempotency-Key was used for another payload, which became job {run.id}; take a new key.",
                code="idempotency_key_reused",
            )
        return run

    def _request(self, body: JobRequest, upload: Uploaded | None) -> TranscribeRequest:
        """The flow's request. Addresses with secrets in them are concealed: Prefect shows a run's parameters."""
        options = body.model_dump(include=set(JobOptions.model_fields) - {"formats"}, exclude_none=True)
        # No files: what callers ask for is rendered from the transcript in the store.
        options |= {"formats": ()}
        if upload is not None:
            options |= {"source": upload.source, "name": upload.name}
        else:
            assert body.audio_url is not None
            options |= {"source": concealed(body.audio_url, self.settings, shared=True)}
        request = validated(options)
        check_model(request.model, request.language, self.settings)
        return request

    # -- looking ------------------------------------------------------------------------------------------------------

    async def find(self, job_id: str, caller: Caller) -> FlowRun:
        """The run of the caller's job. Raises JobNotFound, also for somebody else's."""
        try:
            run = await self.runs.get(UUID(job_id))
        except ValueError:
            run = None
        if run is None or not tags.belongs_to(run, caller.key_id):
            raise JobNotFound("There is no job of that id.")
        if tags.is_deleted(run):
            raise JobNotFound("This job was deleted.", code="job_deleted")
        return run

    async def seen(self, run: FlowRun, *, stages: bool = True) -> Seen:
        """All that is known of the job now."""
        status = states.status_of(run)
        if status in ENDED:
            progress, outcome = await asyncio.gather(self._progress(run, status), _outcome(run))
            return Seen(run, progress, outcome)
        if status == "queued":
            return Seen(run)
        progress, task_runs = await asyncio.gather(self.runs.progress(run.id), self._task_runs(run, wanted=stages))
        return Seen(run, progress, task_runs=task_runs)

    async def _progress(self, run: FlowRun, status: JobStatus) -> Any:
        return await self.runs.progress(run.id) if status != "completed" else None

    async def _task_runs(self, run: FlowRun, *, wanted: bool) -> Any:
        return await self.runs.task_runs(run.id) if wanted else ()

    async def as_json(self, run: FlowRun) -> str:
        """The job as `api.schemas.Job`, with its transcript when it is completed."""
        seen = await self.seen(run)
        job = job_of(seen)
        members = None
        if job.status == "completed" and (result := result_of(seen)) is not None:
            members = await transcript_members(result)
        unknown = {
            name for name in ("segments", "word_segments", "language", "error", "error_code") if getattr(job, name) is None
        }
        text = await asyncio.to_thread(job.model_dump_json, exclude=unknown | ({"language"} if members else set()))
        return f"{text[:-1]},{members}}}" if members else text

    async def result(self, run: FlowRun) -> TranscribeResult:
        """What the job left. Raises Conflict while there is nothing, and JobNotFound's kin as `find`."""
        seen = await self.seen(run, stages=False)
        if (result := result_of(seen)) is not None:
            return result
        status = states.status_of(run, seen.progress)
        if status == "completed":
            raise Unavailable("What the job left cannot be found in the store of this service.", code="result_missing")
        raise Conflict(f"The job is {status}; it has no transcript{'' if status in ENDED else ' yet'}.", code="no_transcript")

    async def wait(self, run: FlowRun, seconds: float) -> FlowRun:
        """The run once it has ended, or after so many seconds."""
        end = time.monotonic() + min(seconds, self.settings.api.max_wait)
        while states.status_of(run) not in ENDED and (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(_LOOK, left))
            run = await self.runs.get(run.id) or run
        return run

    async def summaries(self, runs: Iterable[FlowRun]) -> list[JobSummary]:
        """Jobs for a list."""
        return list(await asyncio.gather(*(self._summary(run) for run in runs)))

    async def _summary(self, run: FlowRun) -> JobSummary:
        under_way = states.status_of(run) in ("downloading", "processing")
        seen = Seen(run, await self.runs.progress(run.id) if under_way else None)
        status = states.status_of(run, seen.progress)
        return JobSummary(
            job_id=str(run.id),
            status=status,
            message=states.message_of(seen, status) if status != "failed" else "Failed.",
            created_at=submitted_at(run),
            updated_at=states.updated_at(seen),
            name=run.name,
            metadata=tags.metadata(run),
            tags=tags.values(run, tags.TAG),
        )

    # -- retrying -----------------------------------------------------------------------------------------------------

    async def retry(self, run: FlowRun, body: RetryRequest) -> FlowRun:
        """The same run once more; with other options or from a finished stage on, a new one.

        Raises what `flows.retry.planned` raises, and Unprocessable.
        """
        from api.runs import prefect_answers
        from flows.retry import new_run, planned, set_going

        changes = body.model_dump(exclude_unset=True, exclude={"from_"})
        if "model" in changes or "language" in changes:
            await asyncio.to_thread(check_model, changes.get("model") or "auto", changes.get("language"), self.settings)
        with prefect_answers():
            try:
                plan = await planned(run, changes, body.from_, force=run.state is not None and run.state.is_crashed())
            except ValidationError as error:
                raise unprocessable(error) from None
            if plan.changed:
                return await new_run(self.runs.client, plan, here=False)
            await set_going(self.runs.client, run, force=False)
        self.runs.changed(run.id)
        return await self.runs.get(run.id) or run

    # -- removing -----------------------------------------------------------------------------------------------------

    async def delete(self, run: FlowRun) -> bool:
        """Leave a tombstone in the job's place, cancel it, and have what it left removed; whether it was under way."""
        under_way = await self.removal.bury(run)
        self.removal.wake()
        return under_way


def job_of(seen: Seen) -> Job:
    """The job, without its transcript."""
    run, result = seen.run, result_of(seen)
    status = states.status_of(run, seen.progress)
    error = states.error_of(seen, status)
    stages = states.stages_of(seen, status)
    costs = [stage.cost for stage in stages if stage.state not in ("pending", "running")]
    return Job(
        job_id=str(run.id),
        status=status,
        progress=states.percent_of(seen, status),
        message=states.message_of(seen, status),
        created_at=submitted_at(run),
        updated_at=states.updated_at(seen),
        language=result.language if result and status == "completed" else None,
        error=error[1] if error else None,
        error_code=error[0] if error else None,
        degraded=result.degraded if result else False,
        warnings=list(seen.outcome.warnings) if seen.outcome else [],
        stages=stages,
        duration=result.duration if result else None,
        cost=result.cost if result else _total(costs, ended=status in ENDED),
        metadata=tags.metadata(run),
        tags=tags.values(run, tags.TAG),
        links=_links(run, tags.values(run, tags.FORMAT)) if result else {},
    )


def result_of(seen: Seen) -> TranscribeResult | None:
    """What the job left; also of one that failed because it lacks its speakers."""
    return seen.outcome.result if seen.outcome is not None else None


def _total(costs: list[float | None], *, ended: bool) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known) if ended and costs and len(known) == len(costs) else None


def _links(run: FlowRun, asked: list[str]) -> dict[str, str]:
    return {name: f"/transcribes/{run.id}.{name}" for name in asked or FORMATS}


async def _outcome(run: FlowRun) -> RunOutcome | None:
    """How the execution ended that the run's state is about; an earlier one's outcome may still lie there."""
    outcome, state = await read_outcome(str(run.id)), run.state
    if outcome is None or state is None:
        return None
    if state.is_completed():
        return outcome if outcome.result is not None else None
    if state.name == "Partial":
        return outcome if outcome.state == "partial" else None
    return outcome if outcome.state == ("canceled" if state.is_cancelled() else "failed") else None


def validated(options: dict[str, Any]) -> TranscribeRequest:
    """The request. Raises Unprocessable."""
    try:
        return TranscribeRequest.model_validate(options)
    except ValidationError as error:
        raise unprocessable(error) from None


def check_model(model: str, language: str | None, settings: StenoSettings) -> None:
    """Refuse what is no model's name before a worker finds out, and folders, which are the operator's.

    Raises Unprocessable. A name on the model hub is left to the worker.
    """
    from speech.models import resolve_asr

    if model == "auto":
        return
    if not _MODEL.fullmatch(model):
        raise Unprocessable("model: give a size (`base`, `large-v3`) or the id of a model on the hub.", code="unknown_model")
    if "/" in model:
        return
    # Whether the weights can be had is the worker's business.
    with contextlib.suppress(AccessError):
        try:
            resolve_asr(model, language, models_dir=settings.models_path, offline=settings.offline)
        except InputError as error:
            raise Unprocessable(error.message, code=error.code) from None


def _payload(body: JobRequest, upload: Uploaded | None) -> str:
    """What was asked for, as a hash."""
    content = body.model_dump(mode="json") | ({"sha256": upload.sha256, "name": upload.name} if upload else {})
    return _hash(json.dumps(content, sort_keys=True))[:32]


def _run_key(caller: Caller, idempotency_key: str | None) -> str:
    """Prefect's idempotency key: a request that is repeated because its answer was lost makes no second run."""
    return f"api-{_hash(caller.key_id, idempotency_key)}" if idempotency_key is not None else f"api-{uuid.uuid4()}"


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
