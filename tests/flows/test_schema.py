"""A database that this version of Prefect has brought up to date is not checked again, any other one is."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from flows.local_server.database import KnownSchema


def database(path: Path, revision: str) -> str:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS alembic_version (version_num TEXT)")
        connection.execute("DELETE FROM alembic_version")
        connection.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
    return f"sqlite+aiosqlite:///{path}"


def test_what_was_noted_is_current_until_the_database_or_prefect_changes(tmp_path: Path) -> None:
    url = database(tmp_path / "prefect.db", "r1")
    assert not KnownSchema(url, "3.1").current(), "nothing is noted yet"
    KnownSchema(url, "3.1").note()
    assert KnownSchema(url, "3.1").current()
    assert not KnownSchema(url, "3.2").current()
    database(tmp_path / "prefect.db", "r2")
    assert not KnownSchema(url, "3.1").current()
    KnownSchema(url, "3.2").note()
    assert KnownSchema(url, "3.2").current()


def test_a_database_made_anew_is_not_the_one_that_was_noted(tmp_path: Path) -> None:
    url = database(tmp_path / "prefect.db", "r1")
    KnownSchema(url, "3.1").note()
    (tmp_path / "prefect.db").unlink()
    assert not KnownSchema(url, "3.1").current()
    assert not (tmp_path / "prefect.db").exists(), "looking does not make one"
    (tmp_path / "prefect.db").write_bytes(b"")
    assert not KnownSchema(url, "3.1").current()


def test_a_damaged_note_is_none(tmp_path: Path) -> None:
    url = database(tmp_path / "prefect.db", "r1")
    (tmp_path / "prefect.db.steno.json").write_text("{")
    assert not KnownSchema(url, "3.1").current()
    KnownSchema(url, "3.1").note()
    assert KnownSchema(url, "3.1").current()


def test_nothing_is_known_of_other_databases(tmp_path: Path) -> None:
    for url in ("postgresql+asyncpg://prefect@host/prefect", "sqlite+aiosqlite:///:memory:"):
        KnownSchema(url, "3.1").note()
        assert not KnownSchema(url, "3.1").current()
    assert not list(tmp_path.iterdir())
