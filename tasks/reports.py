"""What each stage of a run did. Needs no Prefect."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from infra.artifacts import StageOutcome
from infra.prices import Rented, own_cost, rented_cost, shared_seconds
from infra.progress import StageEvent
from infra.settings import StenoSettings, get_settings
from speech.stages import AROUND, STEPS
from stenoflow.errors import StageCancelled, StenoError
from stenoflow.types import Frozen

StageState = Literal["computed", "cached", "skipped", "failed"]


class StageReport(Frozen):
    """What one stage of one run did."""

    stage: str
    """One of `speech.stages.STEPS`."""
    state: StageState
    seconds: float = 0.0
    """Wall seconds in this run, pauses before retries included."""
    compute_seconds: float | None = None
    """The stage's own work, models loaded included; of the run that computed it when the result was reused."""
    attempts: int = 0
    """Executions in this run; 0 when the result was reused or the stage skipped."""
    backend: str = ""
    device: str = ""
    batch_size: int | None = None
    key: str = ""
    computed_by: str = ""
    """The flow run that computed it; another one when the result was reused."""
    label: str = ""
    """Distinguishes the stage's task run from its siblings: the model, or the request."""
    gpu: str = ""
    """The type of the rented GPU."""
    shards: int = 1
    cost: float | None = None
    """Dollars in this run: 0 for what was reused; None where no price is known. See `infra.prices`."""
    code: str = ""
    """Of the error that the stage failed with."""
    detail: str = ""
    """Why the stage was skipped or failed; never transcript text."""


@dataclass
class Costs:
    """What the stages of one run cost, as they are computed.

    Stages that ran on this machine share its price while they were at work; others pay for what they rented.
    """

    spans: dict[str, tuple[float, float]] = field(default_factory=dict)
    """From when to when each stage was at work on this machine."""
    rented: dict[str, float | None] = field(default_factory=dict)
    """Dollars by stage."""

    def computed(self, stage: str, began: float, outcome: StageOutcome | None) -> None:
        """A stage that began at `began` (`time.perf_counter`) has ended; without an outcome it is no computed stage."""
        if outcome is None or outcome.backend == "local":
            self._at_work(stage, began)
            return
        seconds = outcome.seconds if outcome.worker_seconds is None else outcome.worker_seconds
        cost = rented_cost(seconds, Rented(outcome.gpu, outcome.cores, outcome.memory, outcome.price_factor))
        before = self.rented.get(stage, 0.0)
        self.rented[stage] = None if cost is None or before is None else before + cost

    def failed(self, stage: str, began: float, backend: str) -> None:
        """A stage that began at `began` has failed on that backend; its rental until then is unknown."""
        if stage in AROUND or backend == "local":
            self._at_work(stage, began)
        else:
            self.rented[stage] = None

    def _at_work(self, stage: str, began: float) -> None:
        """Until now, and since it first began: channels are each given to a stage by themselves."""
        self.spans[stage] = (min(began, self.spans.get(stage, (began, 0.0))[0]), time.perf_counter())

    def by_stage(self, settings: StenoSettings) -> dict[str, float | None]:
        """Dollars by stage; stages that computed nothing are not in it."""
        own: dict[str, float | None] = {
            stage: own_cost(seconds, settings) for stage, seconds in shared_seconds(self.spans).items()
        }
        return own | self.rented


@dataclass
class Reports:
    """What the stages of one run did so far."""

    duration: float | None = None
    """Of the recording, in seconds, once it is known."""
    reports: dict[str, StageReport] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    redo: frozenset[str] = frozenset()
    """Stages to compute although they are cached, unless this very run has done so before it was interrupted."""
    backend: str | None = None
    """Where the run's stages are computed; by default as the settings say."""
    costs: Costs = field(default_factory=Costs)
    part: str = ""
    """The channel or track that the stages are about, where several are given to them by themselves: `channel 1`."""
    whole: Parts | None = None
    """Of all these channels or tracks."""

    def apart(self, names: Sequence[str]) -> tuple[Self, ...]:
        """The reports of each of several channels or tracks. A stage is reported here once it has ended for all of them."""
        parts = Parts(self, len(names))
        return tuple(replace(self, reports={}, part=name, whole=parts) for name in names)

    def keep(self, report: StageReport) -> None:
        self.reports[report.stage] = report
        if self.whole is not None:
            self.whole.add(report)

    def keep_together(self, report: StageReport) -> None:
        """A stage has ended for each of several channels or tracks."""
        self.keep(report)

    def skip(self, stage: str, why: str) -> None:
        self.keep(StageReport(stage=stage, state="skipped", detail=why))

    def note(self, *warnings: str) -> None:
        """Keep warnings, each once."""
        self.warnings += [warning for warning in dict.fromkeys(warnings) if warning not in self.warnings]

    def in_order(self) -> tuple[StageReport, ...]:
        """The reports so far, priced."""
        costs = self.costs.by_stage(get_settings())
        reports = (self.reports[stage] for stage in STEPS if stage in self.reports)
        return tuple(report.model_copy(update={"cost": costs.get(report.stage, 0.0)}) for report in reports)


class Parts:
    """What the stages did so far for each of several channels or tracks of one run."""

    def __init__(self, run: Reports, count: int) -> None:
        self.run, self.count = run, count
        self._reports: dict[str, list[StageReport]] = {}

    def add(self, report: StageReport) -> None:
        ended = self._reports.setdefault(report.stage, [])
        ended.append(report)
        if len(ended) == self.count:
            self.run.keep_together(_together(self._reports.pop(report.stage)))


def _together(reports: Sequence[StageReport]) -> StageReport:
    """The reports of one stage for several channels or tracks as that of the stage."""
    ranks: tuple[StageState, ...] = ("skipped", "cached", "computed", "failed")
    leading = max(reports, key=lambda report: ranks.index(report.state))
    own = [report.compute_seconds for report in reports if report.compute_seconds is not None]
    return leading.model_copy(
        update={
            "seconds": round(sum(report.seconds for report in reports), 3),
            "compute_seconds": round(sum(own), 3) if own else None,
            "attempts": sum(report.attempts for report in reports),
            "label": leading.label.partition(PART)[0],
        }
    )


PART = " · "
"""Stands in a label before the channel or track."""


def succeeded(stage: str, outcome: StageOutcome | None, cached: bool, label: str, seconds: float, attempts: int) -> StageReport:
    """The report of a stage; `outcome` is a computed stage's."""
    state: StageState = "cached" if cached else "computed"
    facts: dict[str, Any] = {}
    if outcome is not None:
        facts = outcome.model_dump(include={"backend", "device", "batch_size", "key", "gpu", "shards"})
        facts |= {"compute_seconds": outcome.seconds, "computed_by": outcome.run}
    return StageReport(stage=stage, state=state, seconds=seconds, attempts=attempts, label=label, **facts)


def failed(stage: str, error: BaseException, label: str, seconds: float, attempts: int) -> StageReport:
    cancelled = not isinstance(error, Exception)
    return StageReport(
        stage=stage,
        state="failed",
        seconds=seconds,
        attempts=attempts,
        label=label,
        code=StageCancelled.code if cancelled else code_of(error),
        detail="cancelled" if cancelled else describe(error),
    )


def describe(error: BaseException) -> str:
    """An error in one sentence for people."""
    if isinstance(error, StageCancelled):
        return "cancelled"
    return error.message if isinstance(error, StenoError) else f"unexpected {type(error).__name__}"


def code_of(error: BaseException) -> str:
    """The error's kind for programs, as outcomes and reports carry it."""
    return error.code if isinstance(error, StenoError) else "unexpected"


def since(began: float) -> float:
    """Seconds since then (`time.perf_counter`), as reports carry them."""
    return round(time.perf_counter() - began, 3)


def event_of(run: str, report: StageReport) -> StageEvent:
    """What is published of a stage that has ended."""
    state: Any = "completed" if report.state == "computed" else report.state
    detail = report.detail or " ".join(filter(None, (report.backend, report.device)))
    return StageEvent(run, report.stage, state, float(report.state != "failed"), report.seconds, detail)
