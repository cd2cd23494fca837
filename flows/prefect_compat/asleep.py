"""Prefect's server on a machine that slept: time in which nothing could happen is not silence.

An automation that expects a sign of life within 90 s compares it with the clock on the wall. A laptop that slept for two
minutes wakes up late for all of them: the first look, and even the first sign of life that arrives, has running runs crashed
and started a second time beside themselves. The server notices that it was not executed for a while (asleep, or stopped), and
moves the end of every open period on by that much before anything is judged.

Prefect has no such setting (`prefect/server/events/triggers.py`, where its two entrances are replaced).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

TICK = 1.0
"""Seconds between two looks at the clock."""
ASLEEP = 10.0
"""Seconds between two looks above which the machine was asleep, or so busy that others could not be heard either."""


class Watch:
    """Looks at the clock all the time, and gives the lost time back before it is asked whether somebody is late."""

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
