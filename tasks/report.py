"""What each stage of a run did, as it happens (events) and afterwards (reports)."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self
from uuid import UUID

from prefect import Task, get_run_logger
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext, TaskRunContext
from prefect.utilities.annotations import quote

from flows.prefect_compat.engine import no_chance_edges
from infra.artifacts import StageOutcome
from infra.jobs import ProgressSink
from infra.progress import StageEvent, publish
from infra.settings import get_settings
from stenoflow.errors import StageFailed, StenoError, TransientError
from tasks.graph import after, edges
from tasks.reports import Reports, StageReport, event_of, failed, since, succeeded
from tasks.retrying import counted


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


def _alone(event: StageEvent) -> StageEvent:
    return event


_together: ContextVar[Callable[[StageEvent], StageEvent]] = ContextVar("steno_together", default=_alone)
"""What makes the event of a stage that is done for each of several channels or tracks, out of one of them's."""


def progress_of(stage: str, detail: str = "") -> ProgressSink:
    """A sink that publishes the fraction done; it may be called from any thread."""
    run, together = run_id(), _together.get()
    return lambda fraction: publish(together(StageEvent(run, stage, "progress", fraction, detail=detail)))


def started(stage: str, detail: str = "") -> None:
    """Say that the stage is being executed, rather than reused."""
    get_run_logger().info("%s started%s", stage, f": {detail}" if detail else "")
    publish(_together.get()(StageEvent(run_id(), stage, "started", detail=detail)))


class _Fractions:
    """How far the stages are that are done for each of several channels or tracks."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._done: dict[str, list[float]] = {}
        self._guard = threading.Lock()

    def of(self, index: int, event: StageEvent) -> StageEvent:
        """An event of one of them as one of all."""
        with self._guard:
            state = "progress" if event.stage in self._done else event.state
            done = self._done.setdefault(event.stage, [0.0] * self._count)
            done[index] = event.fraction
            return replace(event, state=state, fraction=sum(done) / self._count)


@dataclass
class RunLog(Reports):
    """Runs the tasks of one flow run and keeps what each did."""

    task_runs: dict[str, UUID] = field(default_factory=dict)
    """By stage."""
    parts: tuple[RunLog, ...] = ()
    """Of the channels or tracks that the stages were given to by themselves."""
    as_whole: Callable[[StageEvent], StageEvent] | None = None
    """What makes an event of all of them out of one of this channel or track."""

    def apart(self, names: Sequence[str]) -> tuple[Self, ...]:
        fractions = _Fractions(len(names))
        parts = tuple(
            replace(log, task_runs=dict(self.task_runs), as_whole=partial(fractions.of, index))
            for index, log in enumerate(super().apart(names))
        )
        self.parts = parts
        return parts

    def _before(self, stage: str) -> list[State[bool]]:
        """The task runs that the stage's waits for, of all channels or tracks where it puts them together."""
        found = [edge for log in self.parts or (self,) for edge in edges(stage, log.task_runs | self.task_runs)]
        return list({edge.state_details.task_run_id: edge for edge in found}.values())

    async def perform(self, stage: str, task: Task[Any, Any], call: Any) -> Any:
        """Run the task and return its value, or raise its error; either way its report is kept."""
        began = time.perf_counter()
        no_chance_edges()
        _together.set(self.as_whole or _alone)
        with counted() as attempts:
            try:
                state = await task(quote(call), wait_for=self._before(stage), return_state=True)
                if state.state_details.task_run_id:
                    self.task_runs[stage] = state.state_details.task_run_id
                if state.is_cancelled():
                    raise asyncio.CancelledError
                value = await state.aresult()
            except BaseException as error:
                self.costs.failed(stage, began, self.backend or get_settings().compute.backend)
                self.keep(failed(stage, error, getattr(call, "label", ""), since(began), attempts.count))
                raise
        cached = state.name == "Cached" or bool(isinstance(value, dict) and value.get("reused"))
        outcome = _outcome(value)
        if not cached:
            self.costs.computed(stage, began, outcome)
        self.keep(succeeded(stage, outcome, cached, getattr(call, "label", ""), since(began), attempts.count))
        return value

    def keep(self, report: StageReport) -> None:
        event = event_of(run_id(), report)
        publish(self.as_whole(replace(event, state="progress")) if self.as_whole is not None else event)
        super().keep(report)
        _write_log(report, self.duration, self.task_runs.get(report.stage))

    def keep_together(self, report: StageReport) -> None:
        super().keep(report)
        publish(event_of(run_id(), report))


def _outcome(value: Any) -> StageOutcome | None:
    """What a computed stage left; None for `fetch` and `export`, which leave something else."""
    return StageOutcome.model_validate(value) if isinstance(value, dict) and "artifact" in value else None


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
