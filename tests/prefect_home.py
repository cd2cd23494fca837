"""Homes of Prefect whose database is there already: making its tables takes a dozen CPU seconds, most of a server's start."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

from speech.files import file_lock

ROOT = Path(__file__).parents[1]

_SERVE = "from flows.local_server.server import TemporaryServer; server = TemporaryServer(); server.wait(); server.stop()"
_FILES = ("prefect.db", "prefect.db.steno.json")


def prefect_home(folder: Path) -> Path:
    """`folder`, with a copy of an empty database with all tables, and the note of the command's server that they are."""
    made = _made()
    folder.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        shutil.copy(made / name, folder / name)
    return folder


def _made() -> Path:
    """The folder that is copied; made by the first who asks, and kept for this version of Prefect."""
    import prefect

    kept = ROOT / ".cache" / f"prefect-{prefect.__version__}"
    with file_lock(kept.with_suffix(".lock")):
        if kept.exists():
            return kept
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
            env = inherited | {"PREFECT_HOME": f"{folder}/home", "PYTHONPATH": os.pathsep.join(sys.path)}
            subprocess.run([sys.executable, "-c", _SERVE], env=env, check=True, timeout=240)
            whole = Path(folder) / "whole"
            whole.mkdir()
            database, note = _FILES
            with (
                contextlib.closing(sqlite3.connect(f"{folder}/home/{database}")) as source,
                contextlib.closing(sqlite3.connect(whole / database)) as copy,
            ):
                source.backup(copy)
            shutil.copy(f"{folder}/home/{note}", whole / note)
            whole.rename(kept)
    return kept
