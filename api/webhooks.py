"""Telling callers that a job has ended: dead letters and redelivery. The delivering itself is `flows.webhooks`."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter()
