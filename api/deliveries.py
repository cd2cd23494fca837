"""Telling a caller that a job has ended: whom, and what became of it (runs of `notify`, as callers see them)."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any
from uuid import UUID

from api.auth import Caller
from api.cursor import Cursor
from api.errors import Conflict, JobNotFound
from api.runs import Runs, submitted_at
from api.schemas import WebhookDeliveries
from flows.webhooks import ATTEMPT, GIVEN_UP, OF_JOB, TO_OWNER, Notice, subscription_tags
from infra.compute import get_store
from infra.webhooks import subscribe
from stenoflow.jobs import DeliveryStatus, WebhookDelivery

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

_ID = re.compile(r"msg_[0-9a-f]{32}")
_STATES: dict[DeliveryStatus, tuple[str, ...]] = {
    "pending": ("SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CRASHED"),
    "delivered": ("COMPLETED",),
    "dead": ("FAILED",),
    "canceled": ("CANCELLED", "CANCELLING"),
}
"""A crashed one is restarted by an automation."""
_SAID: dict[DeliveryStatus, str] = {
    "pending": "To be delivered.",
    "delivered": "Delivered.",
    "dead": "The webhook could not be delivered.",
    "canceled": "An operator canceled the delivery.",
}
"""Where the run's own message is Prefect's, which may quote anything."""


async def tags_for(url: str, caller: Caller) -> list[str]:
    """The tags of a job's webhook subscription. Raises the store's errors."""
    store = await asyncio.to_thread(get_store)
    return subscription_tags(await asyncio.to_thread(subscribe, store, caller.owned_by, url))


async def listed(
    runs: Runs, caller: Caller, status: DeliveryStatus | None, job_id: str | None, *, limit: int, cursor: str | None
) -> WebhookDeliveries:
    """A page of the caller's, the latest first. Raises Unprocessable for a cursor that is none."""
    place = Cursor.parse(cursor) if cursor is not None else None
    tags = [f"{TO_OWNER}{caller.owned_by}", *([f"{OF_JOB}{job_id}"] if job_id is not None else [])]
    wanted: dict[str, Any] = {"tags": {"all_": tags}}
    if status is not None:
        wanted["state"] = {"type": {"any_": list(_STATES[status])}}
    if place is not None:
        wanted["expected_start_time"] = {"before_": place.before.isoformat()}
    given = place.given if place is not None else frozenset[UUID]()
    found = await runs.deliveries(wanted, limit + len(given) + 1)
    fresh = [run for run in found if run.id not in given]
    page = fresh[:limit]
    if len(fresh) > limit:
        before = submitted_at(page[-1])
        last = {run.id for run in page if submitted_at(run) == before}
        place = Cursor(before, frozenset(last | (given if place is not None and place.before == before else set())))
        return WebhookDeliveries(webhooks=[delivery_of(run) for run in page], next_cursor=str(place))
    return WebhookDeliveries(webhooks=[delivery_of(run) for run in page], next_cursor=None)


async def latest(runs: Runs, job: UUID) -> WebhookDelivery | None:
    """That of the job's last end; None when there is none yet."""
    found = await runs.deliveries({"tags": {"all_": [f"{OF_JOB}{job}"]}}, 50)
    return delivery_of(max(found, key=lambda run: _notice(run).ended)) if found else None


async def redelivered(runs: Runs, caller: Caller, message_id: str) -> WebhookDelivery:
    """The caller's delivery, on its way again. Raises JobNotFound, and Conflict while an attempt is under way."""
    wanted = {"tags": {"all_": [f"{TO_OWNER}{caller.owned_by}"]}, "idempotency_key": {"any_": [message_id]}}
    found = await runs.deliveries(wanted, 1) if _ID.fullmatch(message_id) else []
    if not found:
        raise JobNotFound("There is no webhook with that id.", code="webhook_not_found")
    state = found[0].state
    under_way = state is not None and (state.is_running() or state.is_pending())
    again = None if under_way else await runs.deliver_again(found[0])
    if again is None:
        raise Conflict("A delivery attempt is in progress; try again in a moment.", code="webhook_under_way")
    return delivery_of(again)


def delivery_of(run: FlowRun) -> WebhookDelivery:
    """The run of `notify`, for the owner of the job."""
    notice, state = _notice(run), run.state
    kind = state.type.value if state is not None else "SCHEDULED"
    status: DeliveryStatus = next((status for status, kinds in _STATES.items() if kind in kinds), "pending")
    said = state.message if state is not None else None
    made = run.created or submitted_at(run)
    return WebhookDelivery(
        id=notice.message_id,
        job_id=str(notice.job),
        type=notice.type,
        status=status,
        attempts=run.run_count,
        message=said if said and said.startswith((ATTEMPT, GIVEN_UP)) else _SAID[status],
        created_at=made,
        updated_at=state.timestamp if state is not None else made,
        next_attempt_at=(run.next_scheduled_start_time or run.expected_start_time) if status == "pending" else None,
    )


def _notice(run: FlowRun) -> Notice:
    return Notice.model_validate(run.parameters["notice"])
