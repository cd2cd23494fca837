"""Collecting garbage as a flow, so that it can be scheduled: old runs, and artifacts past their retention, age or size."""

from __future__ import annotations

from prefect import flow, get_run_logger

from flows.doors import OPERATORS, Option, option
from flows.served import served
from flows.upkeep import collected_everywhere
from infra.collect import DAY, Limits
from infra.collected import Collected, lines
from infra.settings import get_settings
from stenoflow.types import Frozen


class GcRequest(Frozen):
    """What may be removed, beside what is past the retention of its runs."""

    older_than_days: float | None = option(
        None,
        "Delete runs that ended more than this many days ago, and artifacts that no run has used since.",
        Option("List", "Unused for (days)", OPERATORS, usual=True),
        ge=0,
    )
    max_gb: float | None = option(
        None,
        "Delete the least recently used artifacts until the store is no larger than this, in GB of 10^9 bytes.",
        Option("List", "Largest store (GB)", OPERATORS, usual=True),
        ge=0,
    )
    dry_run: bool = option(
        False, "Show what would be deleted, without deleting it.", Option("List", "Dry run", OPERATORS, usual=True)
    )

    @property
    def limits(self) -> Limits:
        return Limits(
            older_than=None if self.older_than_days is None else self.older_than_days * DAY,
            max_bytes=None if self.max_gb is None else int(self.max_gb * 1e9),
            dry_run=self.dry_run,
        )


@flow(name="gc", persist_result=False, validate_parameters=False)
@served
async def gc(request: GcRequest = GcRequest()) -> Collected:  # noqa: B008  frozen
    """Remove old runs from Prefect's database, and artifacts from the store, never one that a run uses or was promised.

    Safe beside runs and beside another of its kind. Raises the errors of `infra.store`.

    Args:
        request: What may go.
    """
    from prefect.artifacts import acreate_markdown_artifact
    from prefect.client.orchestration import get_client

    logger = get_run_logger()
    settings = get_settings()
    async with get_client() as client:
        collected = await collected_everywhere(client, settings, request.limits, logger.info)
    for line in lines(collected):
        logger.info(line)
    table = "\n".join(f"- {line}" for line in lines(collected))
    await acreate_markdown_artifact(markdown=table, key="gc", description="Artifacts removed from the store")
    return collected
