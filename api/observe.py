"""What can be seen of the service: request ids, structured logs, metrics, readiness. Never a secret or a word of a transcript."""

from __future__ import annotations

from fastapi import FastAPI


def instrument(app: FastAPI) -> None:
    """Give every request an id, a line in the log and its place in the metrics; add `/metrics` and `/health/ready`."""
