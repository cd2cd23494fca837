"""`/metrics` for Prometheus. Labels are route templates, methods and states: nothing that callers can make more of.

The numbers are of all owners. So where callers need a key, Prometheus needs one made with `steno keys make --metrics`
(`authorization: {credentials_file: …}`); where they need none, only this machine reaches the service (`api.auth.check_bind`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from api import auth
from api.auth import Caller
from api.documents import problems
from api.errors import Forbidden
from flows import webhooks

REGISTRY = CollectorRegistry()
"""Of the process; each API process counts what it did itself."""
REQUESTS = Counter("steno_api_requests", "Requests answered.", ("route", "method", "status"), registry=REGISTRY)
SECONDS = Histogram(
    "steno_api_request_seconds",
    "Seconds from a request to the end of its response, including `?wait=` and event streams.",
    ("route", "method"),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
    registry=REGISTRY,
)
SUBMITTED = Counter(
    "steno_api_jobs_submitted", "Accepted submissions, including those repeated with an Idempotency-Key.", registry=REGISTRY
)
JOBS = Gauge("steno_api_jobs", "Pending and running runs of the deployment, by Prefect state.", ("state",), registry=REGISTRY)
DELIVERIES = Gauge("steno_api_webhook_deliveries", "Webhook deliveries in Prefect, by state.", ("state",), registry=REGISTRY)
UP = Gauge("steno_api_prefect_up", "Whether Prefect responded to the request for the metrics above.", registry=REGISTRY)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_STATES = ("SCHEDULED", "PENDING", "RUNNING", "CANCELLING")
_ENDS = ("COMPLETED", "FAILED")
_FRESH = 5.0
"""Seconds that numbers of Prefect's are good for, however often they are asked for."""
_PATIENCE = 5.0

_log = logging.getLogger(__name__)
router = APIRouter(tags=["service"])


def known_method(method: str) -> str:
    """The method as a label: callers may invent others."""
    return method if method in _METHODS else "OTHER"


@router.get(
    "/metrics",
    response_class=Response,
    response_model=None,
    responses={
        200: {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **problems(403),
    },
)
async def get_metrics(request: Request, caller: Annotated[Caller, Depends(auth.caller)]) -> Response:
    """What the process did, and what waits, for Prometheus: of all owners, and so for keys that were made for it."""
    if not caller.metrics:
        raise Forbidden(
            "This key may not read metrics, which cover all owners; `steno keys make NAME --metrics` creates one that may."
        )
    await _counts_of(request).refresh()
    return Response(generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})


class _Counted:
    """Numbers that Prefect knows, asked for at most every few seconds."""

    def __init__(self, count: Callable[[dict[str, Any]], Awaitable[int]], deployment: str) -> None:
        self._count = count
        self._deployment = deployment
        self._at = float("-inf")
        self._asking = asyncio.Lock()

    async def refresh(self) -> None:
        async with self._asking:
            if time.monotonic() - self._at < _FRESH:
                return
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._read()
                UP.set(1)
            except Exception as error:
                _log.warning("could not read metrics from Prefect (%s)", type(error).__name__)
                UP.set(0)
            self._at = time.monotonic()

    async def _read(self) -> None:
        flow, _, name = self._deployment.partition("/")
        jobs = {"flows": {"name": {"any_": [flow]}}, "deployments": {"name": {"any_": [name]}}}
        flow, _, name = webhooks.DEPLOYMENT.partition("/")
        told = {"flows": {"name": {"any_": [flow]}}, "deployments": {"name": {"any_": [name]}}}
        for gauge, where, states in ((JOBS, jobs, _STATES), (DELIVERIES, told, (*_STATES, *_ENDS))):
            numbers = await asyncio.gather(
                *(self._count(where | {"flow_runs": {"state": {"type": {"any_": [state]}}}}) for state in states)
            )
            for state, number in zip(states, numbers, strict=True):
                gauge.labels(state.lower()).set(number)


def _counts_of(request: Request) -> _Counted:
    state = request.app.state
    if not hasattr(state, "counted"):
        client = state.jobs.runs.client

        async def count(filters: dict[str, Any]) -> int:
            response = await client.request("POST", "/flow_runs/count", json=filters)
            response.raise_for_status()
            return int(response.json())

        state.counted = _Counted(count, state.settings.api.deployment)
    counted: _Counted = state.counted
    return counted
