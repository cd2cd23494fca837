"""The order of events in Prefect's automations, for a server that may have been restarted.

A run's change of state is an event that follows the change before it. Prefect's automations set such an event aside until
they have seen the one it follows, for up to 15 minutes, and what they have seen is in memory: after a restart of the server
they wait for events that the server before has handled. A run that crashes then would be restarted a quarter of an hour later.

Named by PREFECT_SERVER_EVENTS_CAUSAL_ORDERING.
"""

from __future__ import annotations

import time
from uuid import UUID

from prefect.server.events.ordering import memory
from prefect.server.events.schemas.events import ReceivedEvent

STARTED = time.time()


class CausalOrdering(memory.CausalOrdering):
    """Prefect's own, which waits for no event from before this server's start."""

    async def wait_for_leader(self, event: ReceivedEvent) -> None:
        if event.follows is None or _made_at(event.follows) >= STARTED:
            await super().wait_for_leader(event)


def _made_at(id_: UUID) -> float:
    """When an id was made, in seconds since 1970: ids of version 7, as those of states are, begin with it. Others: now."""
    return (id_.int >> 80) / 1000 if id_.version == 7 else time.time()
