"""The database of Prefect's server: brought up to date by one process at a time, and what is or goes wrong with it in a sentence.

Without a lock, several commands that come first on a machine migrate one SQLite file at once, and most of them fail.

Checking for migrations takes alembic half a second, and finds something once per version of Prefect. So a server that has
started notes which revision that left; while the database is still at it, and Prefect the same, the next need not check.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from infra.storage.aside import write_file
from stenoflow.errors import DatabaseDamaged, DatabaseNewer, OutputNotWritable, StenoError, StorageFull

LEAST_FREE = 16 * 2**20
"""Bytes; a new database takes two million, and its journal as many again."""
_ERRORS = {kind.code: kind for kind in (DatabaseDamaged, DatabaseNewer, OutputNotWritable, StorageFull)}
_MARK = "steno-database: "
_KEY = "steno_database"
_STATUS = 507
"""Insufficient Storage; Prefect's clients do not send such a request again."""
_SAID = {
    StorageFull: ("database or disk is full", "no space left on device"),
    DatabaseDamaged: ("malformed", "not a database", "disk i/o error", "already exists", "no such table", "no such column"),
    OutputNotWritable: ("readonly database", "unable to open database file", "permission denied"),
}
"""What SQLite says, in lower case."""
_SCHEME = "sqlite+aiosqlite:///"


def sqlite_path(url: str) -> Path | None:
    """The file of an SQLite database; None for one in memory, and for any other."""
    path = url.removeprefix(_SCHEME).partition("?")[0]
    return Path(path) if url.startswith(_SCHEME) and path != ":memory:" else None


class KnownSchema:
    """The note about one database, kept beside it; nothing is known of one that is no SQLite file."""

    def __init__(self, url: str, version: str) -> None:
        path = self.database = sqlite_path(url)
        self._note = path.with_name(f"{path.name}.steno.json") if path is not None else None
        self._version = version

    def current(self) -> bool:
        """Whether this version of Prefect has brought the database to where it is now."""
        if self._note is None:
            return False
        try:
            noted = json.loads(self._note.read_bytes())
        except (OSError, ValueError):
            return False
        revision = self._revision()
        return revision is not None and noted == {"prefect": self._version, "revision": revision}

    def note(self) -> None:
        """Remember that it has; a folder that cannot be written to costs the next start its check."""
        revision = self._revision()
        if revision is None or self._note is None or self.current():
            return
        with contextlib.suppress(OSError):
            write_file(self._note, json.dumps({"prefect": self._version, "revision": revision}).encode())

    def _revision(self) -> str | None:
        if self.database is None:
            return None
        address = f"{self.database.absolute().as_uri()}?mode=ro"
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(address, uri=True)) as database,
        ):
            rows = database.execute("SELECT version_num FROM alembic_version").fetchall()
            return str(rows[0][0]) if len(rows) == 1 else None
        return None


def default_path() -> Path | None:
    """The database that a temporary server uses, as far as the environment says; None when that is no SQLite file."""
    for name in ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL"):
        if url := os.environ.get(name):
            return sqlite_path(url)
    return Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser() / "prefect.db"


@contextlib.contextmanager
def prepared(schema: KnownSchema) -> Iterator[bool]:
    """Whether the server need not look for migrations: the database is current, or was migrated here. Locked until the block ends.

    For the process of the server. Raises DatabaseDamaged, DatabaseNewer, OutputNotWritable and StorageFull.
    """
    path = schema.database
    if path is None or schema.current():
        yield path is not None
        return
    with contextlib.ExitStack() as stack:
        with _explained(path):
            stack.enter_context(FileLock(path.with_name(f"{path.name}.steno.lock"), fallback_to_soft=False))
        if not schema.current():  # nobody else has migrated it meanwhile
            _migrate(path)
            yield False
        else:
            yield True


def _migrate(path: Path) -> None:
    from prefect.settings import PREFECT_API_DATABASE_MIGRATE_ON_START

    from flows.prefect_compat.database import known_revisions, migrate

    refuse(path, known_revisions())
    if not PREFECT_API_DATABASE_MIGRATE_ON_START.value():
        return
    with _explained(path):
        migrate()


def refuse(path: Path, revisions: frozenset[str]) -> None:
    """Raise what is wrong with the database, where it can be seen without reading all of it."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage(path.parent).free < LEAST_FREE:
            raise _full(path)
    if not path.exists() or path.stat().st_size == 0:
        return
    with _explained(path), contextlib.closing(_opened(path)) as database:
        tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        found = database.execute("SELECT version_num FROM alembic_version").fetchall() if "alembic_version" in tables else []
    if found and found[0][0] not in revisions:
        raise _newer(path)


def examined(path: Path) -> StenoError | None:
    """What is wrong with the database, after reading all of it."""
    try:
        refuse(path, frozenset())
    except DatabaseNewer:
        pass  # which revisions there are takes importing Prefect; the server says so when it starts
    except StenoError as error:
        return error
    if not path.exists():
        return None
    try:
        with _explained(path), contextlib.closing(_opened(path)) as database:
            intact = database.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
    except StenoError as error:
        return error
    return None if intact else _damaged(path)


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30.0)


# -- in sentences -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What SQLite, alembic or the file system says of the database, as our own errors."""
    try:
        yield
    except StenoError:
        raise
    except Exception as error:
        if (known := explained(str(error), path)) is not None:
            raise known from error
        raise


def explained(said: str, path: Path) -> StenoError | None:
    """The error that some library's sentence is about."""
    said = said.lower()
    if "can't locate revision" in said:
        return _newer(path)
    kind = next((kind for kind, marks in _SAID.items() if any(mark in said for mark in marks)), None)
    if kind is None:
        return None
    return {StorageFull: _full, DatabaseDamaged: _damaged, OutputNotWritable: _closed}[kind](path)


def _full(path: Path) -> StenoError:
    return StorageFull(
        f"No space left for Prefect's database in {path.parent}; free some, or point PREFECT_HOME to another disk."
    )


def _damaged(path: Path) -> StenoError:
    return DatabaseDamaged(
        f"Prefect's database {path} is damaged; restore a backup, or move it away (`mv {path} {path}.damaged`) and start with an "
        "empty one: transcripts and finished stages are in the store, not in the database."
    )


def _newer(path: Path) -> StenoError:
    return DatabaseNewer(
        f"Prefect's database {path} was created by a later version of Prefect than the installed one; install that version, or "
        "point PREFECT_HOME to another folder."
    )


def _closed(path: Path) -> StenoError:
    return OutputNotWritable(
        f"Prefect's database {path} is not writable by this user; check the permissions of its folder, or point PREFECT_HOME to a "
        "folder of yours."
    )


# -- from the server's process to its parent, and to whoever calls it ------------------------------------------------


def error_line(error: StenoError) -> str:
    """The last line of a server process that could not start."""
    return f"{_MARK}{json.dumps(_as_json(error))}\n"


def error_in(log: str) -> StenoError | None:
    """The error in the last line of a server's log, if any."""
    lines = log.strip().splitlines()
    if not lines or not lines[-1].startswith(_MARK):
        return None
    return _from_json(json.loads(lines[-1].removeprefix(_MARK)))


def answer_database_errors(api_app: Any, path: Path) -> None:
    """Have Prefect's API report database errors in its responses."""
    from sqlalchemy.exc import DatabaseError
    from starlette.responses import JSONResponse

    async def answer(request: Any, error: Exception) -> Any:
        assert isinstance(error, DatabaseError)
        known = explained(str(error.orig), path)  # without the statement and its parameters, which may hold any text
        if known is None:
            raise error
        return JSONResponse({"exception_message": known.message, _KEY: _as_json(known)}, _STATUS)

    api_app.add_exception_handler(DatabaseError, answer)


def in_answer(response: Any) -> StenoError | None:
    """The error in such a response."""
    if response.status_code != _STATUS:
        return None
    try:
        return _from_json(response.json()[_KEY])
    except (ValueError, TypeError, LookupError):
        return None


def _as_json(error: StenoError) -> dict[str, str]:
    return {"code": error.code, "message": error.message}


def _from_json(said: dict[str, str]) -> StenoError:
    return _ERRORS[said["code"]](said["message"])
