"""What is asked of our own Prefect server beyond Prefect's API. A server that somebody else started does not know of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import Field

from speech.schema import Frozen

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

ERASE, PRUNE = "/stenoflow/erase", "/stenoflow/prune"
OURS = ("transcribe", "batch", "evaluate", "gc", "notify")
"""Our flows, by their names."""
_PRUNING = 1800.0
"""Seconds that pruning may take: years of runs, the first time."""


class Erasure(Frozen):
    """Ended runs to erase: all they left but their rows."""

    runs: tuple[UUID, ...] = Field(max_length=200)


class Ages(Frozen):
    """Days after which is deleted what ended runs of ours left; never where it is None."""

    run_days: float | None = Field(None, ge=0)
    event_days: float | None = Field(None, ge=0)
    log_days: float | None = Field(None, ge=0)
    runs: tuple[UUID, ...] = ()
    """Runs to delete whatever their age, if they have ended."""
    dry_run: bool = False


class Pruned(Frozen):
    """What was deleted, or would be."""

    runs: tuple[str, ...] = ()
    """Their ids."""
    events: int = 0
    logs: int = 0


async def erase(client: PrefectClient, runs: Iterable[UUID]) -> bool:
    """Have everything deleted that these ended runs left in Prefect's database, but their own rows; False where the server
    is not ours. Raises httpx's errors."""
    body = Erasure(runs=tuple(runs)).model_dump(mode="json")
    return await _ask(client, ERASE, body) is not None


async def prune(client: PrefectClient, ages: Ages) -> Pruned | None:
    """Have old runs of ours deleted with all that they left; None where the server is not ours. Raises httpx's errors."""
    answer = await _ask(client, PRUNE, ages.model_dump(mode="json"), timeout=_PRUNING)
    return None if answer is None else Pruned.model_validate(answer)


async def _ask(client: PrefectClient, path: str, body: dict[str, Any], **options: Any) -> Any:
    import httpx

    try:
        response = await client.request("POST", path, json=body, **options)  # type: ignore[arg-type]
    except httpx.HTTPStatusError as error:
        if error.response.status_code in (404, 405):
            return None
        raise
    response.raise_for_status()
    return response.json()
