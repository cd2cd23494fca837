"""Fewer of our events in Prefect's database: three of four tell nobody anything that is not in a table of its own.

Prefect records task runs and evaluates automations from its message bus, not from what is stored. What is left out of the store
is what it shows elsewhere: the states of task runs, artifacts, and heartbeats, of which an hour has a hundred.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from flows.artifacts import PREFIX
from flows.upkeep.asking import OURS

_SHOWN_ELSEWHERE = ("prefect.task-run.", "prefect.artifact.", "prefect.artifact-collection.", "prefect.flow-run.heartbeat")
_REMEMBERED = 10_000
_erased: OrderedDict[str, None] = OrderedDict()
"""Runs erased by this server, the latest ones, by the name that events have for them."""


def forget(runs: Iterable[UUID]) -> None:
    """Store no event of these runs that is still on its way: Prefect gathers them for some seconds before it writes."""
    _erased.update((f"prefect.flow-run.{run}", None) for run in runs)
    while len(_erased) > _REMEMBERED:
        _erased.popitem(last=False)


def keep_fewer() -> None:
    """Have the server of this process store no more than that. Before its services start."""
    from prefect.server.events.services import event_persister as persister

    event_persister: Any = persister
    write: Any = event_persister.write_events

    async def write_wanted(session: Any, events: Sequence[Any]) -> None:
        await write(session=session, events=[event for event in events if wanted(event)])

    event_persister.write_events = write_wanted


def wanted(event: Any) -> bool:
    """Whether it is stored: all of other people's flows, and of ours what is nowhere else and was not erased."""
    if any(resource.id in _erased for resource in event.involved_resources):
        return False
    if not event.event.startswith(_SHOWN_ELSEWHERE):
        return True
    if any(resource.role == "flow" and resource.get("prefect.resource.name") in OURS for resource in event.related):
        return False
    return not str(event.resource.get("prefect.resource.name")).startswith(f"{PREFIX}-")
