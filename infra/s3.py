"""How S3 is reached, and how long its faults are put up with."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

from infra.remote_errors import RemoteFault, remote_fault

if TYPE_CHECKING:
    from infra.settings import S3Settings

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_LEAST_ATTEMPTS = 3
"""Also when the first ones alone outlast the patience, as time-outs do."""


def s3_options(s3: S3Settings) -> dict[str, Any]:
    """s3fs's storage options for these settings; what is empty is left to the AWS default chain."""
    options: dict[str, Any] = {"skip_instance_cache": True}
    if s3.key and s3.secret:
        options |= {"key": s3.key.get_secret_value(), "secret": s3.secret.get_secret_value()}
    if s3.token:
        options["token"] = s3.token.get_secret_value()
    client = {name: value for name, value in (("endpoint_url", s3.endpoint_url), ("region_name", s3.region)) if value}
    if client:
        options["client_kwargs"] = client
    # s3fs retries as well: botocore's defaults times its own would make a dead endpoint fail after many minutes.
    config: dict[str, Any] = {
        "connect_timeout": min(10.0, s3.timeout),
        "read_timeout": s3.timeout,
        "retries": {"mode": "standard", "max_attempts": 2},
    }
    if s3.addressing_style != "auto":
        config["s3"] = {"addressing_style": s3.addressing_style}
    options["config_kwargs"] = config
    return options


class Patience:
    """How long one operation goes on after faults that may pass: back-off with jitter, bounded in time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.progressed()

    def progressed(self) -> None:
        """Start anew: something arrived."""
        self._end, self._failures = time.monotonic() + self._seconds, 0

    async def after(self, error: Exception) -> None:
        """Wait before the next attempt, or raise `error` when another one is of no use or the time is up."""
        self._failures += 1
        over = self._failures >= _LEAST_ATTEMPTS and time.monotonic() > self._end
        if over or remote_fault(error) is not RemoteFault.TRANSIENT:
            raise error
        # Many runs are throttled at once: without jitter they would also come back at once.
        await asyncio.sleep(min(_FIRST_PAUSE * 2 ** (self._failures - 1), _LONGEST_PAUSE) * random.uniform(0.5, 1.0))
