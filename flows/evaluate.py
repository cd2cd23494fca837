"""A reference set, transcribed by one or more systems and scored: how an operator decides on a model."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import cast

from prefect import flow
from prefect.states import Failed

from flows.artifacts import flow_run_here
from flows.cancellation import cancelled_from_outside
from flows.evaluation import history
from flows.evaluation.files import publish, write_files
from flows.evaluation.request import EvaluateRequest, series_of
from flows.evaluation.result import Evaluation, EvaluationIncomplete
from flows.evaluation.rows import evaluate_all
from flows.evaluation.summary import against, overall, within
from flows.options import MANIFEST_OPTIONS, RENDERED
from flows.served import requested, served
from infra.handles import revealed
from infra.names import display_name
from infra.settings import get_settings
from speech.scoring.types import SCORING_VERSION
from tasks.models import resolve_models
from tasks.references import read_references
from tasks.report import run_id

ROW_OPTIONS = tuple(name for name in MANIFEST_OPTIONS if name not in ("model", *RENDERED))
"""What a manifest's rows may say: not the model, which is what is compared, nor how files look."""


def _run_name() -> str:
    return f"evaluate {series_of(requested('name'), requested('references'))}"


@flow(name="evaluate", flow_run_name=_run_name, persist_result=False, validate_parameters=False)
@served
async def evaluate(request: EvaluateRequest) -> Evaluation:
    """Transcribe recordings whose truth is known, and score what comes out: words, speakers, word times, speed.

    Raises the errors of listing and reading the references, of a system's models, and EvaluationIncomplete when some
    recordings could not be transcribed or scored; the others are scored all the same.

    Args:
        request: The recordings, what is compared, and with which earlier evaluation.
    """
    async with cancelled_from_outside():
        evaluation = await _run(request)
    if evaluation.failed:
        message = (
            f"{len(evaluation.failed)} of {len(evaluation.rows)} transcripts could not be created or scored. The report has "
            "the others; run again (or press Retry) to retry the failed ones."
        )
        return cast(Evaluation, Failed(name="Partial", message=message, data=EvaluationIncomplete(message, evaluation)))
    return evaluation


async def _run(request: EvaluateRequest) -> Evaluation:
    id_ = _id()
    earlier = await history.find(request.compare_with, request.series, other_than=id_) if request.compare_with else None
    before = await history.latest(request.series, other_than=id_)
    for system in request.systems.values():
        await resolve_models(system)
    references = await asyncio.to_thread(revealed, request.references, get_settings())
    found = await read_references(references, recursive=request.recursive, options=ROW_OPTIONS)
    rows, warnings = await evaluate_all(request, found)
    evaluation = Evaluation(
        name=request.series,
        id=id_,
        at=datetime.now(UTC),
        run=run_id(),
        references=_shown(request.references),
        scoring=request.scoring,
        version=SCORING_VERSION,
        systems={label: options.model_dump(mode="json", exclude_unset=True) for label, options in request.systems.items()},
        rows=tuple(rows),
        overall=tuple(overall(label, [row for row in rows if row.system == label]) for label in request.systems),
        warnings=tuple(warnings),
        previous=before.id if before else None,
    )
    # Thousands of draws per measure: not in the event loop.
    comparisons = await asyncio.to_thread(within, evaluation)
    if earlier is not None:
        comparisons = [*comparisons, *await asyncio.to_thread(against, evaluation, earlier)]
    evaluation = await write_files(evaluation.model_copy(update={"comparisons": tuple(comparisons)}), request.output_dir)
    await history.keep(evaluation)
    await publish(evaluation)
    return evaluation


def _id() -> str:
    """Of this evaluation: the same when its run is retried."""
    run = flow_run_here()
    created = (run.created if run is not None else None) or datetime.now(UTC)
    return f"{created:%Y%m%d-%H%M%S}-{run_id()[:8]}"


def _shown(references: str) -> str:
    """For people and records: a path as it is, an address without credentials and query."""
    if "://" not in references:
        return references
    scheme, _, rest = references.partition("://")
    return f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}" if rest else display_name(references)
