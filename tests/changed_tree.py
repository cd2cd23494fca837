"""A copy of the tree with a newcomer's change in it: what the recipes of CONTRIBUTING.md name is done, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
FOLDERS = ("speech", "infra", "tasks", "flows", "deployments", "api", "stenoflow", "tests", "requirements")


class Change(NamedTuple):
    path: str
    before: str
    """A text that the file has once."""
    put: str
    """What is put before that."""


def changed_tree(folder: Path, changes: Iterable[Change], files: Mapping[str, str] | None = None) -> Path:
    """The folder, with a copy of the tree in which `changes` are made and `files` are new."""
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.wav"))
    for path, before, put in changes:
        text = (folder / path).read_text()
        assert text.count(before) == 1, (path, before)
        (folder / path).write_text(text.replace(before, put + before))
    for path, text in (files or {}).items():
        (folder / path).write_text(text)
    return folder


def seen_by(tree: Path, code: str, **environment: str) -> Any:
    """What the code, run in that tree, prints as its last line of JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tree, capture_output=True, text=True, check=False, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
