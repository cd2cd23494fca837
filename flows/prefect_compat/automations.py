"""Automations of Prefect's server, on a machine that slept and after a restart: time in which nothing could happen is not silence.

An automation that expects a sign of life within 90 s compares it with the clock on the wall. A laptop that slept for two
minutes wakes up late for all of them: the first look, and even the first sign of life that arrives, has running runs crashed
and started a second time beside themselves. The server notices that it was not executed for a while (asleep, or stopped), and
moves the end of every open period on by that much before anything is judged. Prefect has no such setting, so the two entrances of
`prefect.server.events.triggers` are replaced (https://github.com/PrefectHQ/prefect/issues/16459 is of the same kind).

A run's change of state is an event that follows the change before it. Automations set such an event aside until they have seen
the one it follows, for up to 15 minutes, and what they have seen is in memory: after a restart of the server they wait for events
that the server before has handled. A run that crashes then would be restarted a quarter of an hour later. So events from before
this server's start are not waited for (`CausalOrdering`, whose module PREFECT_SERVER_EVENTS_CAUSAL_ORDERING names).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.server.events.ordering import memory
from prefect.server.events.schemas.events import ReceivedEvent

TICK = 1.0
"""Seconds between two looks at the clock."""
ASLEEP = 10.0
"""Seconds between two looks above which the machine was asleep, or so busy that others could not be heard either."""


class Watch:
    """Looks at the clock all the time, and gives the lost time back before late runs are checked."""

    def __init__(
        self, give_back: Callable[[datetime, timedelta], Awaitable[None]], clock: Callable[[], float] = time.time
    ) -> None:
        self._give_back = give_back
        self._clock = clock
        self._last = clock()
        self._guard = asyncio.Lock()

    async def tick(self) -> None:
        """Look at the clock; returns when time that was lost has been given back."""
        async with self._guard:
            last, now = self._last, self._clock()
            self._last = now
            if now - last > ASLEEP:
                await self._give_back(datetime.fromtimestamp(last, UTC), timedelta(seconds=now - last))

    async def run(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            with contextlib.suppress(Exception):  # the database is busy; what is judged meanwhile is judged as Prefect does
                await self.tick()


def forgive_sleep() -> None:
    """Have the server of this process do so. Before it starts."""
    from prefect.server.events import triggers

    watches: dict[asyncio.AbstractEventLoop, Watch] = {}
    running: set[asyncio.Task[None]] = set()

    async def looked() -> None:
        loop = asyncio.get_running_loop()
        if loop not in watches:
            watches[loop] = Watch(give_back)
            running.add(loop.create_task(watches[loop].run()))
        await watches[loop].tick()

    def after_looking(judge: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def judged(*arguments: Any, **named: Any) -> Any:
            with contextlib.suppress(Exception):
                await looked()
            return await judge(*arguments, **named)

        return judged

    replaced: Any = triggers
    for name in ("reactive_evaluation", "evaluate_proactive_triggers"):
        setattr(replaced, name, after_looking(getattr(triggers, name)))


async def give_back(last: datetime, lost: timedelta) -> None:
    """Move on the end of the automations' periods that were open at `last`, when nothing was lost yet."""
    import sqlalchemy
    from prefect.server.database import provide_database_interface
    from prefect.server.events.models.automations import automations_session

    bucket = provide_database_interface().AutomationBucket
    session: Any
    async with automations_session(begin_transaction=True) as session:
        for period in await session.scalars(sqlalchemy.select(bucket).where(bucket.end >= last)):
            period.end = period.end + lost


STARTED = time.time()


class CausalOrdering(memory.CausalOrdering):
    """Prefect's own, which waits for no event from before this server's start."""

    async def wait_for_leader(self, event: ReceivedEvent) -> None:
        if event.follows is None or _made_at(event.follows) >= STARTED:
            await super().wait_for_leader(event)


def _made_at(id_: UUID) -> float:
    """When an id was made, in seconds since 1970: ids of version 7, as those of states are, begin with it. Others: now."""
    return (id_.int >> 80) / 1000 if id_.version == 7 else time.time()
