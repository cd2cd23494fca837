"""Jobs with webhooks, in Prefect: which have ended, and the state of their deliveries.

A job's run carries the tags `webhook` and `webhook:<subscription>`. Each end of such a run is delivered by one run of the flow
`notify`, with the message's id as idempotency key, so there is one however often the end is found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from pydantic import Field

from flows.attempts import RESTARTED, RESTARTS_WITHIN, STATE_BY_AUTOMATION
from stenoflow.jobs import WebhookType
from stenoflow.types import Frozen

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State

DEPLOYMENT = "notify/webhook"
WANTED = "webhook"
"""The tag of runs with a webhook."""
SUBSCRIPTION = "webhook:"
OF_JOB = "webhook-of:"
"""On a run of `notify`: its job."""
TO_OWNER = "webhook-to:"
"""On a run of `notify`: the id of the key that submitted the job."""
META = "meta:"
"""On a job: what its owner wants to be given back, as `meta:key=value`."""
DELETED = "stenoflow.deleted"
"""The label of a job that was deleted, with the time. Labels are merged, so that a run that is just ending does not lose it."""

DELIVERED = "Delivered"
UNDELIVERED = "Undelivered"
FORGOTTEN = "Forgotten"
"""States that runs of `notify` end in: Completed, Failed, and Cancelled because the job was deleted."""
ATTEMPT = "Attempt "
"""How the message of a run begins that waits for its next attempt."""
GIVEN_UP = "Given up"
"""How the message of an Undelivered run begins."""
ASKED_AGAIN = "Redelivery was requested."

JobEnd = Literal["completed", "failed", "canceled"]
_ENDS: dict[str, JobEnd] = {"COMPLETED": "completed", "FAILED": "failed", "CRASHED": "failed", "CANCELLED": "canceled"}
_TYPES: dict[JobEnd, WebhookType] = {
    "completed": "transcribe.completed",
    "failed": "transcribe.failed",
    "canceled": "transcribe.canceled",
}
_PAGE = 200


class Notice(Frozen):
    """A job's end; the message stays the same however late it is delivered."""

    job: UUID = Field(description="The flow run of the job.")
    state: UUID = Field(description="The id of its final state; a retried job ends more than once.")
    status: JobEnd = Field(description="How it ended.")
    ended: datetime = Field(description="When it ended.")
    to: str = Field(pattern=r"[0-9a-f]{32}", description="The id of the subscription to notify; the store holds its address.")

    @property
    def message_id(self) -> str:
        """The same on every attempt."""
        return f"msg_{hashlib.sha256(f'{self.job}:{self.state}'.encode()).hexdigest()[:32]}"

    @property
    def type(self) -> WebhookType:
        return _TYPES[self.status]

    def body(self, metadata: dict[str, str]) -> str:
        """What is sent, as JSON: what happened to which job. Never a word of a transcript."""
        said = {
            "type": self.type,
            "timestamp": self.ended.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "data": {
                "job_id": str(self.job),
                "status": self.status,
                "url": f"/transcribes/{self.job}",
                "metadata": metadata,
            },
        }
        return json.dumps(said, ensure_ascii=False, separators=(",", ":"))


def subscription_tags(to: str) -> list[str]:
    return [WANTED, f"{SUBSCRIPTION}{to}"]


def is_deleted(run: FlowRun) -> bool:
    return DELETED in run.labels


def metadata(run: FlowRun) -> dict[str, str]:
    """What the owner attached to the job."""
    pairs = (tag.removeprefix(META).partition("=") for tag in sorted(run.tags) if tag.startswith(META))
    return {key: value for key, _, value in pairs}


def notice_of(run: FlowRun) -> Notice | None:
    """That the run has ended; None if it has not, may be restarted automatically, or has no webhook."""
    state = run.state
    to = next((tag.removeprefix(SUBSCRIPTION) for tag in run.tags if tag.startswith(SUBSCRIPTION)), None)
    if state is None or to is None or is_deleted(run) or (status := _ENDS.get(state.type.value)) is None:
        return None
    if state.is_crashed() and datetime.now(UTC) - state.timestamp < RESTARTS_WITHIN:
        return None
    return Notice(job=run.id, state=state.id, status=status, ended=state.timestamp, to=to)


async def ended_jobs(client: PrefectClient, since: datetime, offset: int) -> list[FlowRun]:
    """A page of the runs with webhooks that ended since then; empty after the last one."""
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.sorting import FlowRunSort

    wanted = {
        "tags": {"all_": [WANTED]},
        "state": {"type": {"any_": list(_ENDS)}},
        "end_time": {"after_": since.isoformat()},
    }
    return await client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate(wanted), sort=FlowRunSort.END_TIME_DESC, limit=_PAGE, offset=offset
    )


async def known_messages(client: PrefectClient, ids: Iterable[str]) -> set[str]:
    """Those of the messages that there is a run of `notify` for."""
    return {str(run.idempotency_key) for run in await deliveries(client, {"idempotency_key": {"any_": list(ids)}})}


async def deliveries(client: PrefectClient, filters: dict[str, Any], limit: int = _PAGE) -> list[FlowRun]:
    """Runs of `notify` by a filter of Prefect's, those that were made or are due last first."""
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter
    from prefect.client.schemas.sorting import FlowRunSort

    return await client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=["notify"])),
        flow_run_filter=FlowRunFilter.model_validate(filters),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=limit,
    )


async def enqueue(client: PrefectClient, deployment: UUID, notice: Notice, *, owner: str, job: str, host: str) -> FlowRun:
    """The run that delivers this notice, created unless it exists. `job` and `host` are for its name."""
    return await client.create_flow_run_from_deployment(
        deployment,
        parameters={"notice": notice.model_dump(mode="json")},
        name=f"{job} {notice.status} → {host}",
        tags=[f"{OF_JOB}{notice.job}", f"{TO_OWNER}{owner}"],
        idempotency_key=notice.message_id,
    )


async def deliver_again(client: PrefectClient, run: FlowRun) -> bool:
    """Have a run of `notify` make all its attempts once more, from now on; False when Prefect does not allow it now."""
    from prefect.client.schemas.responses import SetStateStatus
    from prefect.states import AwaitingRetry

    answer: Any = await client.set_flow_run_state(run.id, AwaitingRetry(message=ASKED_AGAIN))
    return answer.status is SetStateStatus.ACCEPT


def attempts_of(states: Sequence[State]) -> int:
    """Attempts since the first, or since the last manual retry."""
    begun = 0
    for state in sorted(states, key=lambda state: state.timestamp):
        if state.is_running():
            begun += 1
        elif state.name == "AwaitingRetry" and not (state.message or "").startswith((ATTEMPT, RESTARTED, STATE_BY_AUTOMATION)):
            begun = 0
    return begun
