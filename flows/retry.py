"""Retrying a run: which run is meant, whether it may be retried, and what is different this time."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flows.execution import create_run
from flows.outcome import read_outcome
from flows.request import TranscribeRequest
from stenoflow.errors import InputError, SourceError, StenoError

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import OrchestrationResult

BY_HAND_AGAIN = "Retried with `steno retry`."
RETRY_OF = "retry-of:"
"""The tag that leads from a run with changed options to the one it was made from."""
_LOOKED_THROUGH = 2000
"""Of the latest runs, for the beginning of an id."""
_PAGE = 200
_SHORTEST_PREFIX = 4


class RunNotFound(InputError):
    """No run of that id or name."""

    code = "run_not_found"


class RunAmbiguous(InputError):
    """Several runs of that name, or whose id begins so."""

    code = "run_ambiguous"
    exit_code = 2


class RunUnderWay(StenoError):
    """The run has not ended."""

    code = "run_under_way"


class NothingToRetry(InputError):
    """The run is complete, and nothing was asked to be different."""

    code = "nothing_to_retry"


@dataclass(frozen=True)
class Retry:
    """What a retry is: the run itself once more, or a new one with another request."""

    run: FlowRun
    request: TranscribeRequest
    changed: bool

    def request_as(self, kept: Callable[[TranscribeRequest], TranscribeRequest]) -> Retry:
        """The same with the request as `kept` makes it."""
        return replace(self, request=kept(self.request))


async def find_run(client: PrefectClient, name: str, *, failed: bool = True) -> FlowRun:
    """The run of `transcribe` with this id, whose id begins so, or that is called so.

    Of several that are called so it is the latest that did not complete, where `failed` is set and its recording was not
    completed since, otherwise the latest. Raises RunNotFound, and RunAmbiguous for the beginning of several ids.
    """
    found = await _by_id(client, name)
    if not found and (called := await _runs(client, {"name": {"any_": [name]}}, limit=_PAGE)):
        found = [_meant(called, failed=failed)]
    if not found and len(name) >= _SHORTEST_PREFIX and all(letter in "0123456789abcdef-" for letter in name.lower()):
        for offset in range(0, _LOOKED_THROUGH, _PAGE):
            page = await _runs(client, {}, limit=_PAGE, offset=offset)
            found += [run for run in page if str(run.id).startswith(name.lower())]
            if len(page) < _PAGE:
                break
    if not found:
        raise RunNotFound(f"There is no run {name!r}; give the run's id, the beginning of its id, or its name.")
    if len(found) > 1:
        some = "; ".join(f"{str(run.id)[:8]} {run.name} ({run.state_name}, {run.created:%Y-%m-%d %H:%M})" for run in found[:8])
        more = f" and {len(found) - 8} more" if len(found) > 8 else ""
        raise RunAmbiguous(f"{len(found)} runs have ids that begin with {name!r}: {some}{more}. Give more of the id.")
    return found[0]


def _meant(runs: list[FlowRun], *, failed: bool) -> FlowRun:
    """Of the runs of one name, latest first, the one that a retry is about."""
    completed: set[str] = set()
    for run in runs if failed else ():
        source = str(run.parameters.get("request", {}).get("source", ""))
        if run.state is not None and run.state.is_completed():
            completed.add(source)
        elif run.state is not None and run.state.is_final() and source not in completed:
            return run
    return runs[0]


async def _by_id(client: PrefectClient, name: str) -> list[FlowRun]:
    from prefect.exceptions import ObjectNotFound

    try:
        run = await client.read_flow_run(UUID(name))
    except (ValueError, ObjectNotFound):
        return []
    flow = await client.read_flow(run.flow_id)
    if flow.name != "transcribe":
        raise RunNotFound(f"{name} is a run of the flow {flow.name!r}, not of one recording; run that flow again instead.")
    return [run]


async def _runs(client: PrefectClient, filters: dict[str, Any], *, limit: int, offset: int = 0) -> list[FlowRun]:
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter
    from prefect.client.schemas.sorting import FlowRunSort

    return await client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=["transcribe"])),
        flow_run_filter=FlowRunFilter.model_validate(filters),
        sort=FlowRunSort.START_TIME_DESC,
        limit=limit,
        offset=offset,
    )


async def planned(run: FlowRun, changes: Mapping[str, Any], redo_from: str | None, *, force: bool) -> Retry:
    """What retrying `run` with these options changed means.

    Raises RunUnderWay (unless `force`: its process is known to be gone), NothingToRetry, SourceError where the recording
    came from standard input, and pydantic's ValidationError for options that do not go together.
    """
    state = run.state
    if not force and (state is None or not state.is_final()):
        raise RunUnderWay(
            f"The run {_shown(run)} is {(run.state_name or 'not started').lower()}; wait for it or cancel it first. "
            "If its process no longer exists, add --force."
        )
    before = TranscribeRequest.model_validate(run.parameters["request"])
    if "-" in before.sources:
        raise SourceError(
            "The recording came from standard input, which cannot be read again; pipe it into `steno transcribe -` "
            "again. Finished stages are reused."
        )
    differing = {name: value for name, value in changes.items() if getattr(before, name) != value}
    unfinished = state is None or not state.is_completed() or await _without_speakers(run)
    if redo_from and unfinished and not await _finished(run, redo_from):
        redo_from = None  # it will be computed anyway
    if not differing and not redo_from:
        if not unfinished:
            raise NothingToRetry(
                f"The run {_shown(run)} is complete. Give other options (such as --max-speakers 3), or a stage to recompute with --from."
            )
        return Retry(run, before, changed=False)
    return Retry(run, _changed(before, differing, redo_from), changed=True)


async def new_run(client: PrefectClient, retry: Retry, *, here: bool, key: str | None = None) -> FlowRun:
    """The run with the changed request: for a worker of the same deployment, or, `here`, for nobody but this process.

    For a worker: the one made before under the same `key`, if any.
    """
    tags = {*retry.run.tags, f"{RETRY_OF}{retry.run.id}"}
    deployment = retry.run.deployment_id
    if here or deployment is None:
        return await create_run(
            client, retry.request, idempotency_key=f"retry-{uuid.uuid4()}", deployment_id=deployment, tags=tags
        )
    parameters = {"request": retry.request.model_dump(mode="json", exclude_unset=True, exclude_none=True)}
    return await client.create_flow_run_from_deployment(deployment, parameters=parameters, tags=tags, idempotency_key=key)


async def set_going(client: PrefectClient, run: FlowRun, *, force: bool) -> None:
    """Have a worker take the run again, as the Retry button does. Raises RunUnderWay when Prefect refuses."""
    from prefect.client.schemas.responses import SetStateStatus
    from prefect.states import AwaitingRetry

    answer: OrchestrationResult[Any] = await client.set_flow_run_state(
        run.id, AwaitingRetry(message=BY_HAND_AGAIN), force=force
    )
    if answer.status is not SetStateStatus.ACCEPT:
        reason = getattr(answer.details, "reason", None) or "no reason given"
        raise RunUnderWay(f"Prefect rejects a retry of the run {_shown(run)}: {reason}")


def _changed(before: TranscribeRequest, changes: dict[str, Any], redo_from: str | None) -> TranscribeRequest:
    """The request with the changes. A number of speakers replaces a range of them, and the other way round."""
    kept = before.model_dump(mode="json", exclude_unset=True) | {"redo_from": redo_from}
    if "num_speakers" in changes:
        kept |= {"min_speakers": None, "max_speakers": None}
    if "min_speakers" in changes or "max_speakers" in changes:
        kept["num_speakers"] = None
    return TranscribeRequest.model_validate(kept | changes)


async def _without_speakers(run: FlowRun) -> bool:
    outcome = await read_outcome(str(run.id))
    return outcome is not None and outcome.state == "partial"


async def _finished(run: FlowRun, stage: str) -> bool:
    """Whether the run's last execution left the stage's result; one that left no outcome may have."""
    outcome = await read_outcome(str(run.id))
    if outcome is None:
        return True
    return any(report.stage == stage and report.state in ("computed", "cached") for report in outcome.stages)


def _shown(run: FlowRun) -> str:
    return f"{run.name} ({str(run.id)[:8]})"
