"""Stenoflow's own modules in Stenoflow's own processes, whatever else is called `flows`, `tasks` or `api` where they run.

`python -P -m stenoflow.isolated MODULE ARGUMENT…` is `python -m MODULE ARGUMENT…` for which neither the working directory nor
PYTHONPATH stands in the way: `-P` keeps the one off the path, `take_precedence` puts ours before the other.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("speech", "infra", "tasks", "flows", "deployments", "api")
"""The packages that stand beside this one under names that others use as well."""


def command(module: str, *arguments: str) -> list[str]:
    """How a child process is started that runs one of our modules, as if by `python -m`."""
    return [sys.executable, "-P", __file__, module, *arguments]


def others(module: str, *arguments: str) -> list[str]:
    """The same for a module that is not ours."""
    return [sys.executable, "-P", "-m", module, *arguments]


def take_precedence() -> None:
    """Move those entries of `sys.path` that hold other packages by our names behind the one that holds ours."""
    if not any(_is_root(entry) for entry in sys.path):
        sys.path.append(str(ROOT))
    at = next(index for index, entry in enumerate(sys.path) if _is_root(entry))
    others = [entry for entry in sys.path[:at] if any(_holds(entry, room) for room in ROOMS)]
    before = [entry for entry in sys.path[:at] if entry not in others]
    sys.path[:] = [*before, sys.path[at], *others, *sys.path[at + 1 :]]


def _is_root(entry: str) -> bool:
    return Path(entry).resolve() == ROOT


def _holds(entry: str, name: str) -> bool:
    return (Path(entry) / name).is_dir() or (Path(entry) / f"{name}.py").is_file()


if __name__ == "__main__":
    take_precedence()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
