"""A run that keeps killing its process is quarantined after a few times, so that it cannot stop everything else.

What died is counted in the run's own history in Prefect: an execution enters Running before any stage is at work, and one
whose process was killed leaves nothing after it, or Crashed if that was noticed. So nothing needs to be written down, and
it counts the same for a worker's process, a server that was away when it happened, and a batch that takes its runs up again.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, cast

from infra.settings import get_settings
from stenoflow.errors import Quarantined

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State

RESTARTED = "Restarted after its process died."
"""The message of the state that sets a run going again by itself; any other retry is a person's, who gives it new chances."""
BY_HAND = "Retried by hand."
"""The message of the state of a run that a person has executed again outside of a worker."""
BESIDE_OTHERS = "Its process died while it computed others as well; it is tried again alone."
"""The message of the state after a death that may have been another run's fault, which is therefore not counted."""
BATCH_DIED = "The process of its batch died."
"""The message of the state of a run whose own process outlived its batch's and stopped for that reason alone."""
RESTARTS_WITHIN = timedelta(seconds=90)
"""A run whose process died is put back into the queue by an automation; only when that does not happen has it come to its end."""
STATE_BY_AUTOMATION = "State changed by Automation"
"""How Prefect begins the message of a state that an automation sets without one of its own."""
_BY_ITSELF = (RESTARTED, STATE_BY_AUTOMATION)


async def refuse_after_crashes() -> None:
    """Raise Quarantined when the process of this flow run died too often before this execution.

    First executions need no request: Prefect passes the number of executions to every flow run.
    """
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    run, allowed = context.flow_run, get_settings().recovery.restarts
    if run.run_count <= allowed:
        return
    client = cast("PrefectClient", context.client)
    died = deaths(await client.read_flow_run_states(run.id))
    if died >= allowed:
        raise Quarantined(
            f"Quarantined: the process of this run died {died} times{await _at_work(client, run)}, and would do so again. "
            "Find out what kills it (usually memory), then retry the run; finished stages are reused."
        )


def deaths(states: Sequence[State]) -> int:
    """How many executions never came to an end since the run last ended, was last retried by a person, or was not to blame.

    Neither the one under way, which is the last to have entered Running, nor one that stopped because its batch was gone counts.
    """
    begun = 0
    for state in sorted(states, key=lambda state: state.timestamp):
        if state.is_running():
            begun += 1
        elif (state.is_final() and not state.is_crashed()) or retried_by_a_person(state) or state.message == BESIDE_OTHERS:
            begun = 0
        elif state.message == BATCH_DIED:
            begun = max(begun - 1, 0)
    return max(begun - 1, 0)


def retried_by_a_person(state: State) -> bool:
    """Whether it is the state of a manual retry, in the UI, the API or with `steno retry`."""
    message = state.message or ""
    return message == BY_HAND or (state.name == "AwaitingRetry" and not message.startswith(_BY_ITSELF))


async def _at_work(client: PrefectClient, run: FlowRun) -> str:
    """`, most often during asr`: the stage whose tasks were begun and never ended, where Prefect knows."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    unfinished: Counter[str] = Counter()
    with contextlib.suppress(Exception):  # the reason can be given without it
        task_runs = await client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
        unfinished.update(
            task_run.name.split()[0]
            for task_run in task_runs
            if task_run.state is not None and task_run.state.type.value in ("RUNNING", "CRASHED")
        )
    return f", most often during {unfinished.most_common(1)[0][0]}" if unfinished else ""
