"""What is needed to execute the commands of a guide: a shell with the programs that it names, and something to transcribe."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import wave
from pathlib import Path

from tests import media


def spoken(path: Path) -> Path:
    """Ten seconds of a real telephone call, as a WAV file."""
    samples = (media.speech()[14 * 16_000 : 24 * 16_000] * 32767).astype("<i2")
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(samples.tobytes())
    return path


def commands(folder: Path) -> dict[str, str]:
    """The environment of a reader who has installed the product and set nothing: `steno`, `prefect` and `curl` are on the path."""
    programs = folder / "programs"
    programs.mkdir()
    (programs / "steno").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m stenoflow.cli.main "$@"\n')
    if shutil.which("curl") is None:
        (programs / "curl").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.api.curl "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("STENO_", "PREFECT_"))}
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return inherited | {"PATH": path, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "PYTHONPATH": os.pathsep.join(sys.path)}


def shell(code: str, folder: Path, env: dict[str, str]) -> str:
    """What the commands print; variables that they set are there for the next ones."""
    kept = folder / "variables"
    script = f"set -euo pipefail\nset -a\n{code}\nenv -0 > {kept}\n"
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    env.update(pair.split("=", 1) for pair in kept.read_text().split("\0") if "=" in pair)
    return done.stdout
