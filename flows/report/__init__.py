"""A run's artifacts in Prefect: a report, which shows who speaks when, and a table of its stages.

A retry writes them anew in the same places. Nothing here fails or long delays a run, and only the report's beginning of
the transcript, which has to be asked for (STENO_REPORT__PREVIEW_WORDS), holds anything that was said.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any, NamedTuple

from flows.artifacts import RunArtifacts, flow_run_here
from flows.report import text
from flows.report.contents import NOTHING, read_contents
from flows.report.words import plain
from flows.request import TranscribeRequest
from flows.result import StageReport, TranscribeResult
from infra.prices import total_cost
from infra.settings import get_settings
from tasks.report import RunLog
from tasks.reports import code_of, describe

_PATIENCE = 15.0
"""Seconds that Prefect's API and the store are waited for."""


_TAGS = ("model:", "language:", "error:", "without-speakers")
"""Beginnings of the tags that a report sets, in place of those of an earlier execution."""


class _Piece(NamedTuple):
    """One artifact."""

    name: str
    kind: str
    data: Any
    description: str


async def publish_report(result: TranscribeResult) -> None:
    """Attach to the flow run what came of it. A server or a store that refuses does not fail the run."""
    async with _not_failing("The report"):
        contents = NOTHING
        with contextlib.suppress(Exception):  # the numbers are worth a report without them
            contents = await asyncio.to_thread(read_contents, result.transcript)
        about = f"{plain(result.source_name)}: {text.headline(result)}"
        pieces = [
            _Piece("report", "markdown", text.finished(result, contents, get_settings()), about),
            _Piece("stages", "table", text.stage_rows(result.stages, result.duration), about),
        ]
        await _publish(
            pieces, [*_model(result.stages), f"language:{result.language}", *(["without-speakers"] if result.degraded else [])]
        )


async def publish_failure(log: RunLog, request: TranscribeRequest, error: BaseException) -> None:
    """Attach to the flow run what failed, whether trying again helps, and what to do."""
    async with _not_failing("the report of the failure"):
        stages = log.in_order()
        failure = text.failure_in(stages) or text.Failure("", code_of(error), describe(error))
        cost = total_cost(stage.cost for stage in stages)
        report = text.failed(request.shown_as, failure, stages, log.duration, log.warnings, cost)
        about = f"{plain(request.shown_as)}: {f'{failure.stage} failed' if failure.stage else failure.code}"
        pieces = [_Piece("report", "markdown", report, about)]
        if stages:
            pieces.append(_Piece("stages", "table", text.stage_rows(stages, log.duration), about))
        await _publish(pieces, [*_model(stages), f"error:{failure.code}"])


def _model(stages: Iterable[StageReport]) -> list[str]:
    """The tag of the Whisper model."""
    return [f"model:{stage.label}" for stage in stages if stage.stage == "asr" and stage.label]


async def _publish(pieces: list[_Piece], tags: Iterable[str]) -> None:
    """Write the artifacts, and the tags that runs are found by; task runs have none, since each would cost a call."""
    from prefect.client.orchestration import get_client

    run = flow_run_here()
    if run is None:
        return
    artifacts = RunArtifacts.of(run)
    others = [tag for tag in run.tags if not tag.startswith(_TAGS)]
    async with get_client() as client:
        await artifacts.find(client)
        await asyncio.gather(
            client.update_flow_run(run.id, tags=[*others, *tags]),
            *(
                artifacts.write(client, piece.name, piece.kind, _data(piece), piece.description, titled=True)
                for piece in pieces
            ),
        )


def _data(piece: _Piece) -> Any:
    """As Prefect's views expect it: a table as JSON text."""
    import json

    return json.dumps(piece.data) if piece.kind == "table" else piece.data


@contextlib.asynccontextmanager
async def _not_failing(what: str) -> AsyncIterator[None]:
    from prefect import get_run_logger

    try:
        async with asyncio.timeout(_PATIENCE):
            yield
    except Exception as error:
        get_run_logger().warning("Could not store %s: %s", what, type(error).__name__)
