"""A transcript held to the truth, and what its stages took when they were computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.utilities.annotations import quote

from infra.artifacts import ArtifactRef, StageOutcome
from infra.compute import get_store
from infra.jobs import ProgressSink, engine_required, in_thread
from infra.prices import Rented, own_cost, rented_cost, total_cost
from infra.settings import StenoSettings, get_settings
from speech.scoring import Scores, ScoringOptions, score
from speech.scoring.references import Reference
from speech.stored import read_json
from stenoflow.types import Frozen, Transcript
from tasks.calls import outcome_in
from tasks.report import defects_contained
from tasks.reports import StageReport
from tasks.retrying import current_attempts, retry_condition, with_retries


@dataclass(frozen=True)
class ScoreCall:
    transcript: ArtifactRef
    reference: Reference
    options: ScoringOptions
    diarized: bool
    """Speakers were requested and are available."""
    language: str | None
    stages: tuple[StageReport, ...]
    """Of the run that made the transcript."""
    label: str
    """Distinguishes this task run from its siblings in Prefect's views."""


class Scored(Frozen):
    """What a transcript is worth and what it took."""

    scores: Scores
    model: str
    duration: float
    compute_seconds: float | None
    """Work of all stages without loading models, whenever they were computed; None when that is no longer known."""
    devices: tuple[str, ...]
    cost: float | None
    """Dollars of that work; None where no price is known."""
    same: bool
    """Text and times are those of the truth, to the digit: it is probably this transcript."""


async def score_transcript(call: ScoreCall) -> Scored:
    """Score it, as a task of its own. Raises EngineMissing, ArtifactMissing and the store's errors."""
    value = await with_retries(score_task)(quote(call))
    return Scored.model_validate(value)


async def _score(call: ScoreCall) -> dict[str, Any]:
    current_attempts().begin(1)
    with defects_contained("score"):
        found = await in_thread(lambda report: _read_and_score(call, report), lambda _: None, "score")
    return found.model_dump(mode="json")


score_task: Task[Any, Any] = Task(
    fn=_score,
    name="score",
    task_run_name="score {call.label}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_condition_fn=retry_condition,
)


def _read_and_score(call: ScoreCall, report: ProgressSink) -> Scored:
    settings = get_settings()
    with get_store(settings).local(call.transcript) as path:
        transcript = read_json(Transcript, path)
    report(0.2)
    with engine_required():
        scores = score(call.reference, transcript, call.options, diarized=call.diarized, language=call.language)
    outcomes = _outcomes(call.stages)
    return Scored(
        scores=scores,
        model=str(transcript.options.get("model") or ""),
        duration=transcript.duration,
        compute_seconds=None if outcomes is None else round(sum(_work(outcome) for outcome in outcomes), 3),
        devices=tuple(dict.fromkeys(_device(outcome) for outcome in outcomes or ())),
        cost=None if outcomes is None else total_cost(_cost(outcome, settings) for outcome in outcomes),
        same=_is_the_same(scores),
    )


def _outcomes(stages: Sequence[StageReport]) -> list[StageOutcome] | None:
    """What each computed stage left, from the records under their keys; None when one is gone or damaged."""
    records = {stage.key: get_store().read_record(stage.key) for stage in stages if stage.key}
    try:
        found = [outcome_in(record, key) for key, record in records.items() if record is not None]
    except ValueError:
        return None
    return found if found and len(found) == len(records) else None


def _work(outcome: StageOutcome) -> float:
    """Seconds at work, as if the models had been loaded before."""
    return max(outcome.seconds - outcome.load_seconds, 0.0)


def _device(outcome: StageOutcome) -> str:
    """`local cpu`, `modal L4`."""
    return f"{outcome.backend} {outcome.gpu or outcome.device}"


def _cost(outcome: StageOutcome, settings: StenoSettings) -> float | None:
    """None too for this machine when its price is not set."""
    if outcome.backend == "local":
        return own_cost(_work(outcome), settings) if settings.prices.machine_hour else None
    seconds = outcome.seconds if outcome.worker_seconds is None else outcome.worker_seconds
    return rented_cost(seconds, Rented(outcome.gpu, outcome.cores, outcome.memory, outcome.price_factor))


def _is_the_same(scores: Scores) -> bool:
    words, times = scores.words, scores.times
    return bool(words and times and not words.errors and times.matched and times.start_mae == 0.0 == times.end_mae)
