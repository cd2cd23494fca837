"""The database of Prefect's server. On SQLite without losing events: transactions that will write say so, and take turns.

Prefect begins them deferred: one that reads first and then writes while another has written in between fails at once with
"database is locked", whatever the time-out (SQLite can only refuse it). Prefect's consumers of events then try again three
times without a pause, and drop the event: an automation misses that a run crashed, a task run stays as it was. Begun
immediate, they wait for each other instead (https://github.com/PrefectHQ/prefect/issues/18934).

They wait in here, first come, first served. Waiting for SQLite is polling, in no order, with one of the pool's few connections
in hand: after a restart, when everybody has something to write, some waited longer than SQLite's busy time-out of a minute,
and whoever only wanted to read waited for a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

PATIENCE = 60.0
"""Seconds to wait for one's turn; after that SQLite decides. No transaction is meant to last nearly as long."""

_turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakKeyDictionary()
_has_turn: ContextVar[bool] = ContextVar("has_turn", default=False)


@contextlib.asynccontextmanager
async def turn() -> AsyncIterator[None]:
    """One block at a time of those in this event loop; a block inside one's own does not wait."""
    if _has_turn.get():
        yield
        return
    lock = _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
    mine = False
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            mine = await lock.acquire()
    had = _has_turn.set(True)
    try:
        yield
    finally:
        _has_turn.reset(had)
        if mine:
            lock.release()


def write_in_turn() -> None:
    """Have the server of this process do so, when its database is SQLite. Before the server's app is made."""
    from prefect.server.database.configurations import AioSqliteConfiguration
    from prefect.server.database.dependencies import MODELS_DEPENDENCIES
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL

    url = PREFECT_API_DATABASE_CONNECTION_URL.value()
    if not str(url).startswith("sqlite"):
        return

    class InTurn(AioSqliteConfiguration):
        def setup_sqlite(self, conn: Any, record: Any) -> None:
            super().setup_sqlite(conn, record)
            cursor = conn.cursor()
            cursor.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten, not only marked as free
            cursor.close()

        @contextlib.asynccontextmanager
        async def begin_transaction(self, session: Any, with_for_update: bool = False) -> AsyncIterator[Any]:
            async with turn(), super().begin_transaction(session, with_for_update=True) as transaction:
                yield transaction

    MODELS_DEPENDENCIES["database_config"] = InTurn(connection_url=str(url))
    _skip_known_events()


def _skip_known_events() -> None:
    """Have events that come once more, which clients send after a reconnection, left out before they are written.

    Prefect 3.8 leaves them out as well, but then inserts an empty list, which fails; it does so five times, and drops with them
    whatever was new.
    """
    import sqlalchemy
    from prefect.server.database import provide_database_interface
    from prefect.server.events.storage import database

    write: Any = database._write_sqlite_events
    event = provide_database_interface().Event

    async def write_new(session: Any, events: list[Any]) -> None:
        known: set[Any] = set()
        for batch in database._in_safe_batches(events):
            found = await session.scalars(sqlalchemy.select(event.id).where(event.id.in_({one.id for one in batch})))
            known.update(found.all())
        new = [one for one in events if one.id not in known]
        if new:
            await write(session, new)

    database._write_sqlite_events = write_new


# -- at the start, and while it runs ------------------------------------------------------------------------------------


def known_revisions() -> frozenset[str]:
    """The revisions of the database that this version of Prefect knows: a module each, which alembic would take a second to import."""
    from prefect.server.database import provide_database_interface

    folder = Path(provide_database_interface().orm.versions_dir)
    lines = (line for module in folder.glob("*.py") for line in module.read_text(encoding="utf-8").splitlines())
    return frozenset(line.partition("=")[2].strip(" \"'") for line in lines if line.startswith("revision ="))


def migrate() -> None:
    """Bring the database of this process's settings to this version of Prefect. Raises what SQLAlchemy and alembic raise."""
    from prefect.server.database import provide_database_interface

    asyncio.run(provide_database_interface().create_db())


@contextlib.asynccontextmanager
async def transaction() -> AsyncIterator[AsyncSession]:
    """A session that writes, and commits behind the block."""
    from prefect.server.database import provide_database_interface

    async with provide_database_interface().session_context(begin_transaction=True, with_for_update=True) as session:
        yield session


async def on_sqlite(*statements: str) -> list[Any]:
    """Execute these outside a transaction, in turn; the first value that each gave. Nothing on another database."""
    import sqlalchemy
    from prefect.server.database import provide_database_interface

    interface = provide_database_interface()
    if interface.dialect.name != "sqlite":
        return []
    session: Any = await interface.session()
    async with turn(), session:
        return [_first(await session.execute(sqlalchemy.text(statement))) for statement in statements]


def _first(result: Any) -> Any:
    return result.scalar() if result.returns_rows else None
