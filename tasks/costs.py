"""What the stages of one run cost, as they are computed."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from infra.artifacts import StageOutcome
from infra.prices import Rented, own_cost, rented_cost, shared_seconds
from infra.settings import StenoSettings

_LOCAL = "local"
_ALWAYS_HERE = ("fetch", "export")


@dataclass
class Costs:
    """Stages that ran on this machine share its price while they were at work; others pay for what they rented."""

    spans: dict[str, tuple[float, float]] = field(default_factory=dict)
    """From when to when each stage was at work on this machine."""
    rented: dict[str, float | None] = field(default_factory=dict)
    """Dollars by stage."""

    def computed(self, stage: str, began: float, outcome: StageOutcome | None) -> None:
        """A stage that began at `began` (`time.perf_counter`) has ended; without an outcome it is no computed stage."""
        if outcome is None or outcome.backend == _LOCAL:
            self.spans[stage] = (began, time.perf_counter())
            return
        seconds = outcome.seconds if outcome.worker_seconds is None else outcome.worker_seconds
        self.rented[stage] = rented_cost(seconds, Rented(outcome.gpu, outcome.cores, outcome.memory, outcome.price_factor))

    def failed(self, stage: str, began: float, backend: str) -> None:
        """A stage that began at `began` has failed on that backend; what it rented until then, nobody told us."""
        if stage in _ALWAYS_HERE or backend == _LOCAL:
            self.spans[stage] = (began, time.perf_counter())
        else:
            self.rented[stage] = None

    def by_stage(self, settings: StenoSettings) -> dict[str, float | None]:
        """Dollars by stage; stages that computed nothing are not in it."""
        own: dict[str, float | None] = {
            stage: own_cost(seconds, settings) for stage, seconds in shared_seconds(self.spans).items()
        }
        return own | self.rented
