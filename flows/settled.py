"""Waiting until Prefect has written down how every task run ended.

Task runs report their states as events, which the server records with a delay. A temporary server that is stopped as
soon as the flow returns loses the last of them: the runs that `prefect server start` later shows would be running still.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from infra.progress import StageEvent

_ENDED = ("completed", "cached", "failed")
_PAUSE = 0.1
_PATIENCE = 10.0
_MOST_RUNS = 64
"""Runs that are asked about. Of a long batch, the earlier ones were recorded while the others were at work."""


class Ledger:
    """Counts the task runs that ended in this process: `with listening(ledger): …`, then `await ledger.settled()`."""

    def __init__(self) -> None:
        self._ended: Counter[str] = Counter()

    def __call__(self, event: StageEvent) -> None:
        if event.state in _ENDED and event.run:
            self._ended[event.run] += 1
            if len(self._ended) > _MOST_RUNS:
                self._ended.pop(next(iter(self._ended)))

    async def settled(self, patience: float = _PATIENCE) -> bool:
        """Return once the API shows all of them ended; False when it does not within `patience` seconds."""
        from prefect.client.orchestration import get_client

        try:
            async with asyncio.timeout(patience), get_client() as client:
                for run, ended in self._ended.items():
                    while await _recorded(client, run) < ended:  # noqa: ASYNC110  the API can only be asked
                        await asyncio.sleep(_PAUSE)
        except TimeoutError:
            return False
        return True


async def _recorded(client: object, run: str) -> int:
    """How many task runs of the flow run are in a terminal state."""
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    assert isinstance(client, PrefectClient)
    task_runs = await client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])))
    return sum(task_run.state is not None and task_run.state.is_final() for task_run in task_runs)
