"""The OpenAI-compatible door: `/v1/audio/transcriptions`, `/v1/audio/translations`, `/v1/models`."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/v1")
