"""What each stage of a run did, as it happens (events) and afterwards (reports)."""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from prefect import Task, get_run_logger
from prefect.context import FlowRunContext, TaskRunContext
from prefect.utilities.annotations import quote

from flows.prefect_compat.engine import no_chance_edges
from infra.artifacts import StageOutcome
from infra.jobs import ProgressSink
from infra.prices import Rented, own_cost, rented_cost, shared_seconds
from infra.progress import StageEvent, publish
from infra.settings import StenoSettings, get_settings
from speech.stages import AROUND, STEPS
from stenoflow.errors import StageCancelled, StageFailed, StenoError, TransientError
from stenoflow.types import Frozen
from tasks.graph import after, edges
from tasks.retrying import counted

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


def redone_from(stage: str | None) -> frozenset[str]:
    """The stages to compute again when the user asks for that from `stage` on."""
    return frozenset(after(stage)) if stage else frozenset()


def run_id() -> str:
    """The flow run's id; empty outside one."""
    if (task := TaskRunContext.get()) is not None and task.task_run.flow_run_id:
        return str(task.task_run.flow_run_id)
    flow = FlowRunContext.get()
    return str(flow.flow_run.id) if flow is not None and flow.flow_run is not None else ""


@contextlib.contextmanager
def defects_contained(stage: str) -> Iterator[None]:
    """Turn an error that is not one of ours into StageFailed, or TransientError where a connection broke.

    Its own text may quote anything, the transcript and signed addresses included, and Prefect writes an error's text and
    traceback to its database. So the log gets where it happened, and no more than its kind.
    """
    try:
        yield
    except (StenoError, TimeoutError):
        raise
    except ConnectionError as error:
        raise TransientError(f"A connection broke during the {stage} stage ({type(error).__name__}).") from None
    except Exception as error:
        places = traceback.extract_tb(error.__traceback__)
        where = "\n".join(f"  {place.filename}:{place.lineno} in {place.name}" for place in places)
        get_run_logger().error("%s failed with an unexpected %s at\n%s", stage, type(error).__name__, where)
        raise StageFailed(
            f"The {stage} stage failed with an unexpected {type(error).__name__}; please report it with the log of this run."
        ) from None


def progress_of(stage: str, detail: str = "") -> ProgressSink:
    """A sink that publishes the fraction done; it may be called from any thread."""
    run = run_id()
    return lambda fraction: publish(StageEvent(run, stage, "progress", fraction, detail=detail))


def started(stage: str, detail: str = "") -> None:
    """Say that the stage is being executed, rather than reused."""
    get_run_logger().info("%s started%s", stage, f": {detail}" if detail else "")
    publish(StageEvent(run_id(), stage, "started", detail=detail))


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
            self.spans[stage] = (began, time.perf_counter())
            return
        seconds = outcome.seconds if outcome.worker_seconds is None else outcome.worker_seconds
        self.rented[stage] = rented_cost(seconds, Rented(outcome.gpu, outcome.cores, outcome.memory, outcome.price_factor))

    def failed(self, stage: str, began: float, backend: str) -> None:
        """A stage that began at `began` has failed on that backend; its rental until then is unknown."""
        if stage in AROUND or backend == "local":
            self.spans[stage] = (began, time.perf_counter())
        else:
            self.rented[stage] = None

    def by_stage(self, settings: StenoSettings) -> dict[str, float | None]:
        """Dollars by stage; stages that computed nothing are not in it."""
        own: dict[str, float | None] = {
            stage: own_cost(seconds, settings) for stage, seconds in shared_seconds(self.spans).items()
        }
        return own | self.rented


@dataclass
class RunLog:
    """Runs the tasks of one flow run and keeps what each did."""

    duration: float | None = None
    """Of the recording, in seconds, once it is known."""
    reports: dict[str, StageReport] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    task_runs: dict[str, UUID] = field(default_factory=dict)
    """By stage."""
    redo: frozenset[str] = frozenset()
    """Stages to compute although they are cached, unless this very run has done so before it was interrupted."""
    backend: str | None = None
    """Where the run's stages are computed; by default as the settings say."""
    _costs: Costs = field(default_factory=Costs)

    def skip(self, stage: str, why: str) -> None:
        self._keep(StageReport(stage=stage, state="skipped", detail=why))

    async def perform(self, stage: str, task: Task[Any, Any], call: Any) -> Any:
        """Run the task and return its value, or raise its error; either way its report is kept."""
        began = time.perf_counter()
        no_chance_edges()
        with counted() as attempts:
            try:
                state = await task(quote(call), wait_for=edges(stage, self.task_runs), return_state=True)
                if state.state_details.task_run_id:
                    self.task_runs[stage] = state.state_details.task_run_id
                if state.is_cancelled():
                    raise asyncio.CancelledError
                value = await state.aresult()
            except BaseException as error:
                self._costs.failed(stage, began, self.backend or get_settings().compute.backend)
                self._keep(_failed(stage, error, getattr(call, "label", ""), _since(began), attempts.count))
                raise
        cached = state.name == "Cached" or bool(isinstance(value, dict) and value.get("reused"))
        outcome = _outcome(value)
        if not cached:
            self._costs.computed(stage, began, outcome)
        self._keep(_succeeded(stage, outcome, cached, getattr(call, "label", ""), _since(began), attempts.count))
        return value

    def note(self, *warnings: str) -> None:
        """Keep warnings, each once."""
        self.warnings += [warning for warning in dict.fromkeys(warnings) if warning not in self.warnings]

    def in_order(self) -> tuple[StageReport, ...]:
        """The reports so far, priced."""
        costs = self._costs.by_stage(get_settings())
        reports = (self.reports[stage] for stage in STEPS if stage in self.reports)
        return tuple(report.model_copy(update={"cost": costs.get(report.stage, 0.0)}) for report in reports)

    def _keep(self, report: StageReport) -> None:
        self.reports[report.stage] = report
        state: Any = "completed" if report.state == "computed" else report.state
        detail = report.detail or " ".join(filter(None, (report.backend, report.device)))
        publish(StageEvent(run_id(), report.stage, state, float(report.state != "failed"), report.seconds, detail))
        _write_log(report, self.duration, self.task_runs.get(report.stage))


def _outcome(value: Any) -> StageOutcome | None:
    """What a computed stage left; None for `fetch` and `export`, which leave something else."""
    return StageOutcome.model_validate(value) if isinstance(value, dict) and "artifact" in value else None


def _succeeded(
    stage: str, outcome: StageOutcome | None, cached: bool, label: str, seconds: float, attempts: int
) -> StageReport:
    state: StageState = "cached" if cached else "computed"
    facts: dict[str, Any] = {}
    if outcome is not None:
        facts = outcome.model_dump(include={"backend", "device", "batch_size", "key", "gpu", "shards"})
        facts |= {"compute_seconds": outcome.seconds, "computed_by": outcome.run}
    return StageReport(stage=stage, state=state, seconds=seconds, attempts=attempts, label=label, **facts)


def _failed(stage: str, error: BaseException, label: str, seconds: float, attempts: int) -> StageReport:
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


def _write_log(report: StageReport, duration: float | None, task_run: UUID | None) -> None:
    """One line, shown with the stage's task run and with the flow run."""
    extra: dict[str, Any] = {"task_run_id": str(task_run)} if task_run else {}
    logger = get_run_logger(None, **extra)
    if report.state == "skipped":
        logger.info("%s skipped: %s", report.stage, report.detail)
    elif report.state == "failed":
        attempts = f"{report.attempts} attempt{'s' if report.attempts > 1 else ''}"
        logger.warning("%s failed after %.1f s and %s: %s", report.stage, report.seconds, attempts, report.detail)
    else:
        pace = f"{duration / report.seconds:.1f}x real time" if duration and report.seconds > 0 else ""
        batch = f"batch {report.batch_size}" if report.batch_size and report.state == "computed" else ""
        shards = f"{report.shards} shards" if report.shards > 1 else ""
        where = " ".join(filter(None, (report.backend, report.gpu or report.device))) if report.key else ""
        key = f"key {report.key[:12]}" if report.key else ""
        facts = ", ".join(filter(None, (report.label, pace, where, batch, shards, key)))
        logger.info("%s %s in %.1f s: %s", report.stage, report.state, report.seconds, facts)


def describe(error: BaseException) -> str:
    """An error in one sentence for people."""
    if isinstance(error, StageCancelled):
        return "cancelled"
    return error.message if isinstance(error, StenoError) else f"unexpected {type(error).__name__}"


def code_of(error: BaseException) -> str:
    """The error's kind for programs, as outcomes and reports carry it."""
    return error.code if isinstance(error, StenoError) else "unexpected"


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 3)
