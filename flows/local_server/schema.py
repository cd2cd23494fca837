"""Whether the database of Prefect's server needs to be looked at before it starts.

Checking for migrations takes alembic half a second, and finds something once per version of Prefect. So a server that has
started notes which revision that left; while the database is still at it, and Prefect the same, the next need not check.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

from infra.storage.aside import write_file

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
