"""The run's report as a Prefect artifact: which stage took how long, and what was reused."""

from __future__ import annotations

from flows.request import TranscribeRequest
from flows.result import StageReport, TranscribeResult
from tasks.report import RunLog


async def publish_report(result: TranscribeResult) -> None:
    """Attach the stage table to the flow run. A server that refuses it does not fail the run."""
    from prefect import get_run_logger
    from prefect.artifacts import acreate_markdown_artifact

    try:
        await acreate_markdown_artifact(markdown=stage_table(result), key="transcription", description=result.source_name)
    except Exception as error:
        get_run_logger().warning("The report could not be stored: %s", type(error).__name__)


async def publish_failure(log: RunLog, request: TranscribeRequest, error: BaseException) -> None:
    """Attach to the flow run what failed, whether trying again helps, and what to do."""


def stage_table(result: TranscribeResult) -> str:
    """Markdown: the outcome in a line, the stages in a table, the warnings in a list. Never transcript text."""
    speakers = "speakers unknown" if result.degraded else f"{result.speakers} speakers"
    lines = [
        f"**{result.source_name}**: {result.duration:.1f} s, {result.language}, {result.words} words, {speakers}, "
        f"in {result.total_seconds:.1f} s",
        "",
        "| stage | outcome | seconds | computed in | attempts | where |",
        "|---|---|---:|---:|---:|---|",
        *(_row(stage) for stage in result.stages),
    ]
    if result.warnings:
        lines += ["", *(f"- {warning}" for warning in result.warnings)]
    return "\n".join(lines)


def _row(stage: StageReport) -> str:
    outcome = {"cached": "reused"}.get(stage.state, stage.state)
    computed = f"{stage.compute_seconds:.1f}" if stage.compute_seconds is not None else ""
    where = " ".join(filter(None, (stage.backend, stage.device))) or stage.detail.replace("|", "/")
    return f"| {stage.stage} | {outcome} | {stage.seconds:.1f} | {computed} | {stage.attempts or ''} | {where} |"
