"""Temporary files of processes that were killed go; those of living ones stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from infra.scratch import STALE_SECONDS, OwnFolder, sweep

HOLDER = """
import sys, time
from pathlib import Path
from infra.scratch import OwnFolder
own = OwnFolder(Path(sys.argv[1]))
folder = own.path
(folder / "half-received.part").write_bytes(b"half")
print(folder, flush=True)
time.sleep(600)
"""


def holder(root: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process at work in its folder under `root`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_only_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    living, kept = holder(tmp_path)
    dead, left = holder(tmp_path)
    try:
        dead.send_signal(signal.SIGKILL)
        dead.wait(10)
        assert (left / "half-received.part").exists()
        assert sweep(tmp_path) == 1
        assert not left.exists()
        assert (kept / "half-received.part").exists()
    finally:
        living.kill()
        living.wait(10)


def test_a_new_process_sweeps_when_it_first_needs_space(tmp_path: Path) -> None:
    dead, left = holder(tmp_path)
    dead.kill()
    dead.wait(10)
    own = OwnFolder(tmp_path)
    assert not left.exists()
    assert own.path.is_dir()
    folder = own.path
    del own
    assert not folder.exists(), "nothing refers to it any more"


def test_files_of_unknown_origin_are_removed_when_they_are_old(tmp_path: Path) -> None:
    for name in ("fetch-old", "fetch-busy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "source.part").write_bytes(b"x")
    (tmp_path / "artifact-new.json").write_bytes(b"x")
    before = (tmp_path / "fetch-old").stat().st_mtime - STALE_SECONDS - 60
    for path in (tmp_path / "fetch-old" / "source.part", tmp_path / "fetch-old", tmp_path / "fetch-busy"):
        os.utime(path, (before, before))
    assert sweep(tmp_path) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifact-new.json", "fetch-busy"]


def test_a_process_leaves_no_folder_behind(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from infra.scratch import OwnFolder; print(OwnFolder(Path(sys.argv[1])).path)"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, env=env)
    assert not Path(done.stdout.strip()).exists()


def test_a_folder_that_cannot_be_made_is_left_to_whoever_writes(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not OwnFolder(tmp_path / "file" / "scratch").path.exists()
