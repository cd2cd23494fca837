"""Which stage follows which: the edges of the run graph in Prefect's views.

Between our tasks travel references that are made anew from each result, so Prefect cannot see what came from where; what
it does see is chance (it remembers results by the address of their parts, and every stage is handed the very same name
and duration that `fetch` returned). So the calls are quoted, and each task run gets its predecessors explicitly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

from prefect.client.schemas.objects import State, StateDetails, StateType

from speech.stages import STAGES, STEPS, step_of

_WRITES = {"audio": "fetch"} | {spec.output: step_of(stage) for stage, spec in STAGES.items()}
INPUTS: dict[str, set[str]] = {step: set() for step in STEPS}
"""Step to the steps whose artifacts it reads."""
for _stage, _spec in STAGES.items():
    INPUTS[step_of(_stage)] |= {_WRITES[kind] for kind in _spec.inputs}
INPUTS["export"] = {_WRITES["transcript"]}


def upstream(stage: str, ran: Iterable[str]) -> tuple[str, ...]:
    """The stages that `stage` follows directly, among those that `ran`; one that was skipped stands for its own inputs."""
    ran = set(ran)
    nearest = _nearest(stage, ran)
    earlier = {one for other in nearest for one in _before(other)}
    return tuple(one for one in STEPS if one in nearest - earlier)


def after(stage: str) -> tuple[str, ...]:
    """The stage and all that is made from what it leaves."""
    return tuple(one for one in STEPS if one == stage or stage in _before(one))


def edges(stage: str, task_runs: Mapping[str, UUID]) -> list[State[bool]]:
    """The task runs that a stage's task waits for.

    A state of each is made up: with the true one, Prefect would read the result again from the store, and would refuse
    to merge after a failed diarization. The task runs have ended anyway.
    """
    return [
        State(type=StateType.COMPLETED, data=True, state_details=StateDetails(task_run_id=task_runs[one]))
        for one in upstream(stage, task_runs)
    ]


def _nearest(stage: str, ran: set[str]) -> set[str]:
    return {one for source in INPUTS[stage] for one in ({source} if source in ran else _nearest(source, ran))}


def _before(stage: str) -> set[str]:
    return {one for source in INPUTS[stage] for one in (source, *_before(source))}
