"""What recordings leave behind, before and after pruning: `python -m bench.pruning [--count 200]`.

`--count` recordings of a second go through `steno batch` with stages that take no time, in a home of its own, with the database of
its own Prefect server. Printed are the database's size and rows and the store's files after the batch, after `steno gc` with
the default retention, and after `steno gc` when everything is too old.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import wave
from collections.abc import Mapping
from pathlib import Path

from bench.tables import markdown
from tests.dumps import counts

ROOT = Path(__file__).parents[1]
SHOWN = ("events", "event_resources", "log", "task_run", "task_run_state", "flow_run", "artifact")
OLD = {f"STENO_RETENTION__{name}_DAYS": "0" for name in ("RUN", "LOG", "EVENT")} | {"STENO_RETENTION__GRACE_HOURS": "0.0001"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="recordings (default: 200)")
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory(prefix="pruning-") as folder:
        home = Path(folder)
        env = environment(home)
        for number in range(count):
            recording(home / "recordings" / f"{number:05}.wav", number)
        head = ["", "database, MB", *SHOWN, "files in the store", "MB"]
        rows = [head, ["---"] * len(head)]
        run(env, "batch", str(home / "recordings"), "--output-dir", str(home / "out"), "--quiet")
        rows.append(["after the batch", *measured(home)])
        run(env, "gc")
        rows.append(["after `steno gc`", *measured(home)])
        run(env | OLD, "gc")
        rows.append(["when all is too old", *measured(home)])
    print(f"{count} recordings\n\n{markdown(rows)}")


def environment(home: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("STENO_", "PREFECT_"))}
    return clean | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), clean.get("PYTHONPATH")])),
        "PREFECT_HOME": str(home / "prefect"),
        "STENO_HOME": str(home / "steno"),
        "STENO_MODELS_DIR": os.environ.get("STENO_MODELS_DIR", str(ROOT / ".cache" / "models")),
        "STENO_COMPUTE__BACKEND": "tests.stub_compute:compute",
    }


def recording(path: Path, number: int) -> None:
    """A second of its own content."""
    path.parent.mkdir(exist_ok=True)
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes((number + 1).to_bytes(2, "little") * 16_000)


def run(env: Mapping[str, str], *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "stenoflow.cli.main", *arguments], env=dict(env), check=True, cwd=ROOT)


def measured(home: Path) -> list[str]:
    database = home / "prefect" / "prefect.db"
    found = counts(str(database))
    size = sum(path.stat().st_size for path in database.parent.glob("prefect.db*"))
    files = [path for path in (home / "steno" / "store").rglob("*") if path.is_file()]
    kept = sum(path.stat().st_size for path in files)
    return [f"{size / 1e6:.1f}", *(str(found[name]) for name in SHOWN), str(len(files)), f"{kept / 1e6:.1f}"]


if __name__ == "__main__":
    main()
