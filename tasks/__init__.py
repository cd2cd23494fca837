"""One Prefect task per node of the transcription graph."""

from infra.telemetry import hush

hush()
