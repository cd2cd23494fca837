"""Telling the owner of a job that it has ended: one run for each end, one execution for each attempt.

Between attempts no process waits: the run puts itself back into the queue, for the time of the next one, and goes on wherever
a worker of its pool is then. How many attempts were made is its history in Prefect.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from prefect import State, flow, get_run_logger
from prefect.states import AwaitingRetry, Cancelled, Completed, Failed

from flows.served import served
from flows.webhooks import ATTEMPT, DELIVERED, FORGOTTEN, GIVEN_UP, UNDELIVERED, Notice, attempts_of, is_deleted, metadata
from infra.post import Answer
from infra.settings import get_settings
from tasks.deliver import deliver
from tasks.records import RecordStorage

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

_JITTER = 0.1
_LONGEST_WISH = 3600.0
"""Longest `Retry-After` of a receiver, in seconds."""


@flow(name="notify", persist_result=False, validate_parameters=False)
@served
async def notify(notice: Notice) -> Any:
    """Notify the owner of a job that it has ended. Retry delivers again, with the same id.

    Args:
        notice: The message and its recipient.
    """
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    assert context is not None and context.flow_run is not None
    client = cast("PrefectClient", context.client)
    attached = await _metadata(client, notice)
    if attached is None:
        return Cancelled(name=FORGOTTEN, message="The job was deleted; the webhook is not delivered.")
    number = max(attempts_of(await client.read_flow_run_states(context.flow_run.id)), 1)
    attempt = await deliver(number, notice.to, notice.message_id, notice.body(attached), return_state=True)
    answer = cast(Answer, await attempt.aresult())
    state = _after(answer, number)
    get_run_logger().info("Attempt %d: %s.", number, answer.said)
    return state


# Nothing is stored there; see `flows.transcribe`.
notify.result_storage = RecordStorage()


async def _metadata(client: PrefectClient, notice: Notice) -> dict[str, str] | None:
    """What the owner attached to the job; None when it was deleted."""
    from prefect.exceptions import ObjectNotFound

    try:
        job = await client.read_flow_run(notice.job)
    except ObjectNotFound:
        return None
    return None if is_deleted(job) else metadata(job)


def _after(answer: Answer, number: int) -> State[Any]:
    """The run's state after its attempt of this number."""
    delays = get_settings().webhooks.delays
    if answer.accepted:
        return Completed(name=DELIVERED, message=f"{ATTEMPT}{number}: {answer.said}.")
    if answer.gone:
        return Failed(name=UNDELIVERED, message=f"{GIVEN_UP}: {answer.said}, which unsubscribes.")
    if number > len(delays):
        tried = f"{number} attempts" if number > 1 else "1 attempt"
        return Failed(name=UNDELIVERED, message=f"{GIVEN_UP} after {tried}; last attempt: {answer.said}.")
    delay = delays[number - 1] * random.uniform(1, 1 + _JITTER)
    if answer.retry_after is not None:
        delay = max(delay, min(answer.retry_after, _LONGEST_WISH))
    due = datetime.now(UTC) + timedelta(seconds=delay)
    return AwaitingRetry(
        message=f"{ATTEMPT}{number}: {answer.said}; next attempt at {due:%Y-%m-%d %H:%M:%S} UTC.", scheduled_time=due
    )
