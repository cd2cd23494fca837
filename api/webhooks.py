"""Routes of the webhooks: list and repeat deliveries.

Nothing of it lives in this process: subscriptions and secrets are in the store, deliveries are Prefect's runs of `notify`, and
couriers (`deployments.courier`) make and execute them.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, FastAPI, Query

from api import deliveries
from api.dependencies import CurrentCaller, TheJobs
from api.documents import problems
from api.schemas import WebhookDeliveries, WebhookMessage
from stenoflow.jobs import DeliveryStatus, WebhookDelivery

router = APIRouter(tags=["webhooks"])

Limit = Annotated[int, Query(ge=1, le=100, description="Deliveries on a page.")]
PageCursor = Annotated[str | None, Query(max_length=4000, description="`next_cursor` of the page before.")]


@router.get("/webhooks", responses=problems(422))
async def list_webhooks(
    caller: CurrentCaller,
    jobs: TheJobs,
    status: Annotated[DeliveryStatus | None, Query(description="Only these.")] = None,
    job_id: Annotated[str | None, Query(max_length=64, pattern=r"^[0-9A-Fa-f-]*$", description="Of this job.")] = None,
    limit: Limit = 20,
    cursor: PageCursor = None,
) -> WebhookDeliveries:
    """Deliveries for the caller's ended jobs."""
    job = job_id.lower() if job_id is not None else None
    return await deliveries.listed(jobs.runs, caller, status, job, limit=limit, cursor=cursor)


@router.get("/webhooks/dead", responses=problems(422))
async def list_dead_webhooks(
    caller: CurrentCaller, jobs: TheJobs, limit: Limit = 20, cursor: PageCursor = None
) -> WebhookDeliveries:
    """Failed deliveries: after the last attempt, or because the receiver responded with 410."""
    return await deliveries.listed(jobs.runs, caller, "dead", None, limit=limit, cursor=cursor)


@router.post("/webhooks/{webhook_id}/redeliver", status_code=202, responses=problems(404, 409))
async def redeliver_webhook(webhook_id: str, caller: CurrentCaller, jobs: TheJobs) -> WebhookDelivery:
    """Deliver it once more, at once and under the same id, with all the attempts that a new one has; whatever became of it."""
    return await deliveries.redelivered(jobs.runs, caller, webhook_id)


def describe(app: FastAPI) -> None:
    """Have the application's OpenAPI document say what receivers are sent."""

    async def job_ended(body: WebhookMessage) -> None:
        """A job has ended. Any 2xx accepts it; 410 ends the attempts; whatever else is tried again, hours later still.

        `webhook-id` is the same on every attempt. `webhook-signature` is that of Standard Webhooks.
        """

    app.webhooks.add_api_route("job-ended", job_ended, methods=["POST"], tags=["webhooks"], status_code=204)
