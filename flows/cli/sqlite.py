"""Prefect's server on SQLite, without losing events: transactions that will write say so when they begin.

Prefect begins them deferred: one that reads first and then writes while another has written in between fails at once with
"database is locked", whatever the time-out (SQLite can only refuse it). Prefect's consumers of events then try again three
times without a pause, and drop the event: an automation misses that a run crashed, a task run stays as it was. Begun
immediate, they wait for each other instead, up to SQLite's busy time-out of a minute.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any


def write_in_turn() -> None:
    """Have the server of this process do so, when its database is SQLite. Before the server's app is made."""
    from prefect.server.database.configurations import AioSqliteConfiguration
    from prefect.server.database.dependencies import MODELS_DEPENDENCIES
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL

    url = PREFECT_API_DATABASE_CONNECTION_URL.value()
    if not str(url).startswith("sqlite"):
        return

    class InTurn(AioSqliteConfiguration):
        @contextlib.asynccontextmanager
        async def begin_transaction(self, session: Any, with_for_update: bool = False) -> AsyncIterator[Any]:
            async with super().begin_transaction(session, with_for_update=True) as transaction:
                yield transaction

    MODELS_DEPENDENCIES["database_config"] = InTurn(connection_url=str(url))
