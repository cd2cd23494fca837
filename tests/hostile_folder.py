"""A project folder that holds modules of its own by our names, each of which leaves a mark when it is imported, and raises."""

from __future__ import annotations

from pathlib import Path

from stenoflow.isolated import ROOMS

STANDARD = ("modal", "prefect", "types", "queue", "secrets")
"""Names of libraries, which only Python's own rule (`-P`) keeps out."""


def make_hostile(folder: Path, *names: str) -> None:
    for name in (*ROOMS, *names):
        if name in ("tasks", *names):
            file = folder / f"{name}.py"
        else:
            (folder / name).mkdir(parents=True, exist_ok=True)
            file = folder / name / "__init__.py"
        file.write_text(f"open({str(folder / f'{name}.imported')!r}, 'w').close()\nraise RuntimeError('hostile {name}')\n")


def imported(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.imported")}
