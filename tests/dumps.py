"""All that a Prefect database, or a folder, holds, as text to be searched."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import asyncpg


def found_in(database: str, words: Iterable[str]) -> Counter[tuple[str, str]]:
    """How many rows of which table hold which of the words; `database` is a file of SQLite or a `postgresql://` URL."""
    rows = _postgres(database) if database.startswith("postgresql") else _sqlite(Path(database))
    return Counter((table, word) for table, text in rows for word in words if word in text)


def found_under(folder: Path, words: Iterable[str]) -> Counter[tuple[str, str]]:
    """The same for the names and the bytes of all files under a folder, or of the one file."""
    files = [folder] if folder.is_file() else [path for path in folder.rglob("*") if path.is_file()]
    found: Counter[tuple[str, str]] = Counter()
    for path in files:
        with contextlib.suppress(FileNotFoundError):
            content = str(path).encode() + path.read_bytes()
            found.update((str(path), word) for word in words if word.encode() in content)
    return found


def counts(database: str) -> Counter[str]:
    """Table to number of rows."""
    rows = _postgres(database) if database.startswith("postgresql") else _sqlite(Path(database))
    return Counter(table for table, _ in rows)


def _sqlite(path: Path) -> Iterator[tuple[str, str]]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in database.execute(f'SELECT * FROM "{table}"'):
                yield table, "\n".join(one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in row)


def _postgres(url: str) -> list[tuple[str, str]]:
    async def read() -> list[tuple[str, str]]:
        connection = await asyncpg.connect(url)
        try:
            tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            return [
                (table, row[0])
                for (table,) in tables
                for row in await connection.fetch(f'SELECT "{table}"::text FROM "{table}"')
            ]
        finally:
            await connection.close()

    return asyncio.run(read())
