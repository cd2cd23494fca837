"""How long one attempt at a stage may wait, stand still, and take: a hang is noticed, and a queue is not taken for one.

Work begins with the first progress that is reported. Until then the stage waits: for a slot on this machine, in Modal's queue,
for a container and its models. What waits is not at fault, and trying again would put it at the end of the queue.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from infra.jobs import ProgressSink
from infra.settings import TimeoutSettings
from stenoflow.errors import StageNotBegun, StageTimeout

CHUNK = 30.0
"""Seconds of audio in one chunk of a batch, at most."""
USUAL_BATCH = 2
"""Chunks between two reports where no batch size is asked for: on a CPU, where time matters here."""


def time_limit(duration: float, settings: TimeoutSettings) -> float:
    """Seconds that one attempt may work on a recording of `duration` seconds."""
    return max(settings.floor, settings.factor * duration)


def still_limit(batch_size: int | None, settings: TimeoutSettings) -> float:
    """Seconds without progress after which a stage hangs: progress comes by the batch, and a large one takes its time."""
    return settings.still + settings.factor * CHUNK * (batch_size or USUAL_BATCH)


class TimeLimits:
    """The limits on one attempt, and the progress they are measured by."""

    def __init__(self, stage: str, duration: float, batch_size: int | None, settings: TimeoutSettings) -> None:
        self._stage = stage
        self._settings = settings
        self._longest = time_limit(duration, settings)
        self._by_factor = self._longest > settings.floor
        self._still = min(still_limit(batch_size, settings), self._longest)
        self._loop = asyncio.get_running_loop()
        self._scope: asyncio.Timeout | None = None
        self._begun: float | None = None
        self._fraction = -1.0

    @contextlib.asynccontextmanager
    async def enforced(self) -> AsyncIterator[None]:
        """Give the block its time. Raises StageNotBegun when it did not begin, StageTimeout when it hangs or takes too long."""
        scope = asyncio.timeout(self._settings.wait)
        try:
            async with scope:
                self._scope = scope
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            raise self._error() from None
        finally:
            self._scope = None

    def watching(self, progress: ProgressSink) -> ProgressSink:
        """A sink that forwards the fraction and registers progress. From any thread."""

        def sink(fraction: float) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                self._loop.call_soon_threadsafe(self._moved, fraction)
            progress(fraction)

        return sink

    def _moved(self, fraction: float) -> None:
        if self._scope is None or fraction == self._fraction or self._scope.expired():
            return
        self._fraction = fraction
        now = self._loop.time()
        self._begun = self._begun or now
        self._scope.reschedule(min(now + self._still, self._begun + self._longest))

    def _error(self) -> StageTimeout | StageNotBegun:
        if self._begun is None:
            return StageNotBegun(
                f"The {self._stage} stage waited {self._settings.wait:.0f} s for a slot and did not start",
                cure="allow more concurrency (on Modal STENO_MODAL__MAX_CONTAINERS and STENO_MODAL__CALLS), or a longer wait "
                "(STENO_TIMEOUT__WAIT)",
            )
        done = f"at {100 * self._fraction:.0f} %"
        if self._loop.time() - self._begun < self._longest:
            return StageTimeout(
                f"The {self._stage} stage made no progress for {self._still:.0f} s ({done}) and is considered hung",
                cure="if the machine is merely slow, use a smaller batch or raise STENO_TIMEOUT__STILL",
            )
        setting = "STENO_TIMEOUT__FACTOR" if self._by_factor else "STENO_TIMEOUT__FLOOR"
        return StageTimeout(
            f"The {self._stage} stage did not finish within {self._longest:.0f} s ({done})",
            cure=f"raise {setting}, or use a smaller model",
        )
