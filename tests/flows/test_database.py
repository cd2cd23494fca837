"""The database of Prefect's server: migrated by one command at a time, and each thing that can be wrong with it has its own sentence."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.local_server import database
from stenoflow.errors import DatabaseDamaged, DatabaseNewer, OutputNotWritable, StorageFull
from tests import stub_compute
from tests.prefect_home import prefect_home
from tests.stage_double import recording

SERVE = "from flows.local_server.server import TemporaryServer; server = TemporaryServer(); server.wait(); print('up'); server.stop()"


def environment(home: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("STENO_", "PREFECT_", "HF_"))}
    ours = {"PREFECT_HOME": str(home / "prefect"), "STENO_HOME": str(home / "steno"), "PYTHONPATH": os.pathsep.join(sys.path)}
    return clean | ours | {"STENO_COMPUTE__BACKEND": stub_compute.BACKEND}


@pytest.mark.slow
def test_commands_that_come_first_at_the_same_time_all_find_a_server(tmp_path: Path) -> None:
    env = environment(tmp_path)
    servers = [subprocess.Popen([sys.executable, "-c", SERVE], env=env, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [server.communicate(timeout=280)[0].strip() for server in servers] == ["up"] * 4


def damaged(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\0" * 4096)


def newer(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'feedfacecafe'")


def pages_damaged(path: Path) -> None:
    """Not where a server looks when it starts."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        for page in range(40, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(os.urandom(4096))


TROUBLES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "damaged": (damaged, "prefect_database_damaged", "mv "),
    "newer": (newer, "prefect_database_newer", "install that version"),
}


@pytest.mark.slow
@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_command_says_what_is_wrong_with_the_database_and_what_to_do(tmp_path: Path, trouble: str) -> None:
    change, code, cure = TROUBLES[trouble]
    change(prefect_home(tmp_path / "prefect") / "prefect.db")
    done = steno(tmp_path, [])
    assert (done["code"], done["exit_code"]) == (code, 6)
    assert str(tmp_path / "prefect" / "prefect.db") in done["message"]
    assert cure in done["message"]


@pytest.mark.slow
def test_a_full_disk_under_the_database_is_said_to_be_full(tmp_path: Path) -> None:
    """A disk of three megabytes, in a mount namespace of its own."""
    (tmp_path / "prefect").mkdir()
    mount = f'mount -t tmpfs -o size=3m tmpfs {tmp_path}/prefect && exec "$@"'
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    done = steno(tmp_path, ["unshare", *user, "--mount", "sh", "-c", mount, "sh"])
    assert (done["code"], done["exit_code"]) == ("storage_full", 5)
    assert "PREFECT_HOME" in done["message"]


UNDER_WAY = {
    "damaged": (
        ": > prefect/prefect.db-wal; dd if=/dev/urandom of=prefect/prefect.db bs=4096 seek=1 count=400 conv=notrunc",
        "prefect_database_damaged",
        "mv ",
    ),
    "full": ("dd if=/dev/zero of=prefect/other-programs", "storage_full", "PREFECT_HOME"),
}


@pytest.mark.slow
@pytest.mark.parametrize("trouble", UNDER_WAY)
def test_what_becomes_of_the_database_under_a_run_is_said_as_well(tmp_path: Path, trouble: str) -> None:
    """On a disk of its own, at a time when the run's stages are at work."""
    change, code, cure = UNDER_WAY[trouble]
    kept, plan = prefect_home(tmp_path / "kept") / "prefect.db", tmp_path / "plan.json"
    plan.write_text(json.dumps({"log": str(tmp_path / "stages.log"), "seconds": {"asr": 2}}))
    shell = f"""
        mount -t tmpfs -o size=32m tmpfs prefect && cp {kept} prefect/ || exit 99
        (until grep -qs '"asr"' stages.log; do sleep 0.1; done; {change}) > /dev/null 2>&1 &
        exec "$@"
    """
    (tmp_path / "prefect").mkdir()
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    done = steno(tmp_path, ["unshare", *user, "--mount", "sh", "-c", shell, "sh"], {"STUB_PLAN": str(plan)})
    assert (done["code"], done["exit_code"]) == (code, 5 if trouble == "full" else 6)
    assert str(tmp_path / "prefect") in done["message"]
    assert cure in done["message"]


def steno(folder: Path, before: list[str], more: dict[str, str] | None = None) -> dict[str, Any]:
    """The last line of a command that fails."""
    source = recording(folder / "talk.wav")
    command = [*before, sys.executable, "-m", "stenoflow.cli.main", "transcribe", "--json", str(source)]
    env = environment(folder) | (more or {})
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == line["exit_code"], done.stderr
    return line


# -- what doctor sees -----------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A small database with the table that says which version made it."""
    path = tmp_path / "prefect.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('r1')")
        connection.execute("CREATE TABLE log (line TEXT)")
        connection.executemany("INSERT INTO log VALUES (?)", [("x" * 1000,) for _ in range(2000)])
    return path


def test_a_sound_database_an_empty_one_and_none_are_fine(path: Path, tmp_path: Path) -> None:
    database.refuse(path, frozenset({"r1"}))
    assert database.examined(path) is None
    path.write_bytes(b"")
    assert database.examined(path) is None
    assert database.examined(tmp_path / "none.db") is None


def test_one_of_a_later_version_is_told_by_its_revision(path: Path) -> None:
    with pytest.raises(DatabaseNewer):
        database.refuse(path, frozenset({"r0"}))


@pytest.mark.parametrize("change", [damaged, pages_damaged])
def test_damage_anywhere_is_found_when_all_of_it_is_read(path: Path, change: Callable[[Path], None]) -> None:
    change(path)
    assert isinstance(database.examined(path), DatabaseDamaged)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("(sqlite3.OperationalError) database or disk is full", StorageFull),
        ("[Errno 28] No space left on device", StorageFull),
        ("(sqlite3.DatabaseError) database disk image is malformed", DatabaseDamaged),
        ("file is not a database", DatabaseDamaged),
        ("disk I/O error", DatabaseDamaged),
        ("attempt to write a readonly database", OutputNotWritable),
        ("Can't locate revision identified by 'feedface'", DatabaseNewer),
    ],
)
def test_what_libraries_say_becomes_an_error_that_crosses_to_the_command(path: Path, said: str, kind: type[Exception]) -> None:
    known = database.explained(said, path)
    assert type(known) is kind
    assert str(path.parent) in known.message
    again = database.error_in(f"a line before\n{database.error_line(known)}")
    assert again is not None
    assert (type(again), again.message) == (kind, known.message)


def test_another_last_line_tells_of_nothing(path: Path) -> None:
    assert database.error_in("") is None
    assert database.error_in("ERROR: Application startup failed. Exiting.") is None
    assert database.explained("something else", path) is None
