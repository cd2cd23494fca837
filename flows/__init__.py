"""The Prefect flows and the command line that runs them."""

from infra.telemetry import hush

hush()
