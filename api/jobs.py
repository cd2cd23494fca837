"""The jobs of callers: submitted, looked at, waited for, retried. What they are is kept by Prefect and by the store."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import ValidationError

from api import deliveries, guard, holds, metrics, states, tags
from api.allowed import check_models
from api.auth import Caller
from api.chunks import Chunks
from api.errors import Conflict, Gone, JobNotFound, Unavailable, Unprocessable
from api.limits import Limits
from api.problems import unprocessable
from api.removal import Removal
from api.results import transcript_members
from api.reused import as_seen_by_owner
from api.runs import Runs, submitted_at
from api.schemas import JobRequest, RetryRequest
from api.states import ENDED, Seen
from api.stored import Stored
from api.submissions import Uploaded, hashed, payload_of, request_of, run_key, source_tag
from api.views import about, job_of, result_of
from api.voices import UNKNOWN, Known
from flows.outcome import RunOutcome, read_outcome
from flows.request import TranscribeRequest
from flows.result import TranscribeResult
from flows.webhooks import WANTED
from infra.compute import get_store
from infra.drafts import Draft, draft_of
from infra.edits import hand_on
from infra.glossaries import find
from infra.handles import revealed
from infra.names import scheme_of
from infra.settings import StenoSettings
from infra.voices import names_of
from stenoflow.errors import SourceNotFound, TransientError
from stenoflow.jobs import JobStatus, JobSummary

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

PENDING = [*states.WAITING, *states.AT_WORK]
_LOOK = 0.2
"""Seconds between two looks at a job that is waited for."""
_MOST_OUTCOMES = 1000


class Jobs:
    """What the routes ask. Everything raises Unavailable when Prefect or the store does not answer."""

    def __init__(self, runs: Runs, settings: StenoSettings) -> None:
        self.runs = runs
        self.settings = settings
        self.removal = Removal(runs, settings)
        self.stored = Stored(runs, settings.api)
        self.limits = Limits()
        self.chunks = Chunks(settings)
        self._outcomes: dict[UUID, RunOutcome] = {}
        """By the id of the run's last state."""

    # -- submitting ---------------------------------------------------------------------------------------------------

    async def may_submit(self, caller: Caller) -> None:
        """Raise TooMany when the caller has too many jobs under way, or submits too fast."""
        await self.limits.may_submit(caller, lambda: self.pending(caller))

    async def pending(self, caller: Caller) -> int:
        """The caller's jobs that wait or are at work."""
        return await self.runs.count({"tags": {"all_": [tags.owner(caller.owned_by)]}, "state": {"type": {"any_": PENDING}}})

    async def submit(
        self,
        body: JobRequest,
        caller: Caller,
        *,
        upload: Uploaded | None = None,
        idempotency_key: str | None = None,
        known: Known = UNKNOWN,
    ) -> FlowRun:
        """The run of a new job, or of the one that was submitted before under the same key.

        Raises Unprocessable for options that cannot be, and for a key that another payload was submitted under.
        """
        kept = source_tag(body, upload)
        async with holds.holding([kept] if kept else [], also=upload.held if upload else None):
            run = await self._submit(body, caller, upload, kept, run_key(caller, idempotency_key), known)
        metrics.SUBMITTED.inc()
        return run

    async def _submit(
        self, body: JobRequest, caller: Caller, upload: Uploaded | None, kept: str | None, key: str, known: Known
    ) -> FlowRun:
        if upload is None:
            assert body.audio_url is not None
            await guard.check_audio_url(body.audio_url)
        if body.webhook_url is not None:
            await guard.check_webhook_url(body.webhook_url)
        request = await asyncio.to_thread(request_of, body, upload, self.settings)
        longest = [limit for limit in (request.max_duration, caller.limits.max_duration) if limit is not None]
        if longest:
            request = request.model_copy(update={"max_duration": min(longest)})
        if request.glossary is not None:
            await asyncio.to_thread(find, await asyncio.to_thread(get_store), caller.owned_by, request.glossary)
        payload = payload_of(body, upload, known)
        voices = await known.enrolled(caller, self.settings)
        marks = tags.of_job(caller.owned_by, body.tags, body.metadata, body.formats, payload, upload, kept, voices)
        if body.webhook_url is not None:
            marks += await deliveries.tags_for(body.webhook_url, caller)
        return await self._created(request, marks, payload, key)

    async def pending_with(self, body: JobRequest, caller: Caller, upload: Uploaded, known: Known = UNKNOWN) -> FlowRun | None:
        """The caller's job of the same recording and options that is still under way, if there is one."""
        marks = [tags.owner(caller.owned_by), f"{tags.PAYLOAD}{payload_of(body, upload, known)}"]
        runs = await self.runs.page({"tags": {"all_": marks}, "state": {"type": {"any_": PENDING}}}, 1)
        if runs:
            await holds.release([upload.held])
        return runs[0] if runs else None

    async def _created(self, request: TranscribeRequest, marks: list[str], payload: str, key: str) -> FlowRun:
        while True:
            run = await self.runs.create(request, key=key, tags=marks)
            if not tags.is_deleted(run):
                break
            key = hashed(key, str(run.id))  # a key whose job was deleted is as good as new
        if payload not in tags.values(run, tags.PAYLOAD):
            raise Unprocessable(
                f"This Idempotency-Key was already used with another payload (job {run.id}); use a new key.",
                code="idempotency_key_reused",
            )
        return run

    # -- looking ------------------------------------------------------------------------------------------------------

    async def find(self, job_id: str, caller: Caller) -> FlowRun:
        """The run of the caller's job. Raises JobNotFound, also for another owner's job."""
        try:
            run = await self.runs.get(UUID(job_id))
        except ValueError:
            run = None
        if run is None or not tags.belongs_to(run, caller.owned_by):
            raise JobNotFound("There is no job with that id.")
        if tags.is_deleted(run):
            raise JobNotFound("This job was deleted.", code="job_deleted")
        return run

    async def seen(self, run: FlowRun, *, stages: bool = True) -> Seen:
        """All that is known of the job now."""
        status = states.status_of(run)
        if status in ENDED:
            progress, outcome = await asyncio.gather(self._progress(run, status), self._outcome(run))
            return Seen(run, progress, outcome)
        if status == "queued":
            return Seen(run)
        progress, task_runs = await asyncio.gather(self.runs.progress(run.id), self._task_runs(run, wanted=stages))
        return Seen(run, progress, task_runs=task_runs)

    async def draft(self, run: FlowRun) -> Draft:
        """The text that is found so far; empty before the first, where the backend keeps none, and after the end."""
        try:
            return await asyncio.to_thread(draft_of, get_store(), str(run.id))
        except TransientError:
            return Draft()

    async def _outcome(self, run: FlowRun) -> RunOutcome | None:
        """How the run ended; read once for every time it did."""
        key = run.state.id if run.state is not None else run.id
        if (known := self._outcomes.get(key)) is None:
            known = about(run, await read_outcome(str(run.id)))
            if known is not None:
                known = await as_seen_by_owner(known, run, self.runs, self.settings)
                if len(self._outcomes) >= _MOST_OUTCOMES:
                    self._outcomes.pop(next(iter(self._outcomes)))
                self._outcomes[key] = known
        return known

    async def _progress(self, run: FlowRun, status: JobStatus) -> Any:
        return await self.runs.progress(run.id) if status != "completed" else None

    async def _task_runs(self, run: FlowRun, *, wanted: bool) -> Any:
        return await self.runs.task_runs(run.id) if wanted else ()

    async def as_json(self, run: FlowRun) -> str:
        """The job as `api.schemas.Job`, with its transcript when it is completed."""
        seen = await self.seen(run)
        job = job_of(seen)
        members = None
        if job.status in ENDED and WANTED in run.tags:
            job = job.model_copy(update={"webhook": await deliveries.latest(self.runs, run.id)})
        if job.status == "completed" and (result := result_of(seen)) is not None:
            try:
                members = await transcript_members(result)
            except Gone as error:
                job = job.model_copy(update={"warnings": [*job.warnings, error.detail], "links": {}})
        unknown = {
            name
            for name in ("segments", "word_segments", "language", "error", "error_code", "webhook")
            if getattr(job, name) is None
        }
        text = job.model_dump_json(exclude=unknown | ({"language"} if members else set()))
        return f"{text[:-1]},{members}}}" if members else text

    async def result(self, run: FlowRun) -> TranscribeResult:
        """What the job left. Raises Conflict while there is nothing, and JobNotFound's kin as `find`."""
        seen = await self.seen(run, stages=False)
        if (result := result_of(seen)) is not None:
            names = await asyncio.to_thread(names_of, get_store(), str(run.id))
            return result if names is None else result.model_copy(update={"speaker_matches": names})
        status = states.status_of(run, seen.progress)
        if status == "completed":
            raise Unavailable("The result of the job is missing from the store of this service.", code="result_missing")
        raise Conflict(f"The job is {status} and has no transcript{'' if status in ENDED else ' yet'}.", code="no_transcript")

    async def wait(self, run: FlowRun, seconds: float) -> FlowRun:
        """The run once it has ended, or after so many seconds, within what the settings allow. Raises TooMany."""
        if not seconds or states.status_of(run) in ENDED:
            return run
        with self.limits.wait(tags.owner_of(run)):
            return await self.watch(run, min(seconds, self.settings.api.max_wait))

    async def watch(self, run: FlowRun, seconds: float, *, left: Callable[[], Awaitable[bool]] | None = None) -> FlowRun:
        """The run once it has ended, or after so many seconds, or once whoever waits has `left`."""
        end = time.monotonic() + seconds
        while states.status_of(run) not in ENDED and (rest := end - time.monotonic()) > 0:
            if left is not None and await left():
                break
            await asyncio.sleep(min(_LOOK, rest))
            with contextlib.suppress(Unavailable):  # Prefect may be away for a moment
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
            tags=sorted(tags.values(run, tags.TAG)),
        )

    # -- retrying -----------------------------------------------------------------------------------------------------

    async def retry(self, run: FlowRun, body: RetryRequest, *, idempotency_key: str | None = None) -> FlowRun:
        """The same run once more; with other options or from a finished stage on, a new one, and one only under a key.

        Raises Conflict when it has not ended, or is complete and nothing is to be different, and Unprocessable.
        """
        from api.runs import prefect_answers
        from flows.retry import NothingToRetry, RunUnderWay, new_run, planned, set_going

        changes = body.model_dump(exclude_unset=True, exclude={"from_"})
        await self._check_retry(run, changes)
        async with prefect_answers():
            try:
                plan = await planned(run, changes, body.from_, force=run.state is not None and run.state.is_crashed())
            except ValidationError as error:
                raise unprocessable(error) from None
            except NothingToRetry as error:
                raise Conflict(
                    "The job is complete: change an option (such as `max_speakers`), or name a stage in `from` to recompute it.",
                    code=error.code,
                ) from None
            except RunUnderWay as error:
                raise Conflict("The job has not ended; wait for it or delete it.", code=error.code) from None
            if plan.changed:
                once = hashed(str(run.id), idempotency_key, body.model_dump_json()) if idempotency_key is not None else None
                async with holds.holding(run.tags):
                    self.runs.changed(run.id)
                    if tags.is_deleted(await self.runs.get(run.id) or run):
                        raise JobNotFound("This job was deleted.", code="job_deleted")
                    new = await new_run(self.runs.client, plan, here=False, key=once and f"retry-{once}")
                    await asyncio.to_thread(hand_on, get_store(), str(run.id), str(new.id))
                    return new
            await set_going(self.runs.client, run, force=False)
        self.runs.changed(run.id)
        return await self.runs.get(run.id) or run

    async def _check_retry(self, run: FlowRun, changes: dict[str, Any]) -> None:
        """Raise Unprocessable for what is not allowed any more, too: a job may be older than the settings."""
        asked = {**(run.parameters.get("request") or {}), **changes}
        model, aligner, diarizer = (asked.get(name) or "auto" for name in ("model", "align_model", "diarization_model"))
        await asyncio.to_thread(check_models, model, aligner, diarizer, asked.get("language"), self.settings)
        if not tags.values(run, tags.UPLOAD):
            with contextlib.suppress(SourceNotFound):
                source = await asyncio.to_thread(revealed, str(asked.get("source")), self.settings)
                if scheme_of(source) == "s3":
                    await guard.check_audio_url(source)

    # -- removing -----------------------------------------------------------------------------------------------------

    async def delete(self, run: FlowRun) -> bool:
        """Leave a tombstone in the job's place, cancel it, and have what it left removed; whether it was under way."""
        under_way = await self.removal.mark_deleted(run)
        self.removal.wake()
        return under_way
