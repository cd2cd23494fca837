"""Routes of our own on Prefect's API app, behind the same authentication; private to our clients, and in no schema."""

from __future__ import annotations

from typing import Any

from flows.upkeep import pruning
from flows.upkeep.asking import ERASE, PRUNE, Ages, Erasure, Pruned
from flows.upkeep.events import forget, keep_fewer
from flows.upkeep.rows import erase


def add_to(app: Any) -> None:
    """Add them to what `prefect.server.api.server.create_app` made (its `api_app` is what is served under `/api`), and have its
    server store fewer events."""
    keep_fewer()
    app.api_app.add_api_route(ERASE, _erase, methods=["POST"], include_in_schema=False)
    app.api_app.add_api_route(PRUNE, _prune, methods=["POST"], include_in_schema=False)


async def _erase(erasure: Erasure) -> dict[str, int]:
    forget(erasure.runs)
    async with pruning.transaction() as session:
        count = await erase(session, erasure.runs)
    await pruning.forget_log()
    return {"rows": count}


async def _prune(ages: Ages) -> Pruned:
    return await pruning.prune(ages)
