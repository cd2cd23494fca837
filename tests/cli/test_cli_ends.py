"""How commands end that are told to, or that nobody listens to any more: in order, with the exit code that shells expect."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.media import speech, wav
from tests.prefect_home import prefect_home

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("STENO_", "PREFECT_", "HF_"))}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Callable[..., subprocess.Popen[str]]:
    folder = tmp_path_factory.mktemp("homes")
    own = {"STENO_HOME": str(folder / "steno"), "PREFECT_HOME": str(prefect_home(folder / "prefect"))}
    own |= {"STENO_MODELS_DIR": str(models_dir), "STENO_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}

    def start(*args: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "stenoflow.cli.main", *args]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=CLEAN | own, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)

    return start


Started = Callable[..., "subprocess.Popen[str]"]
QUICK = ("-m", "tiny.en", "-l", "en", "--no-diarize", "--no-align", "--json")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["transcribe", "batch"])
def test_a_command_that_is_terminated_ends_in_order(started: Started, tmp_path: Path, command: str) -> None:
    """While a flow is at work, Prefect would raise TerminationSignal out of the event loop."""
    (tmp_path / "in").mkdir()
    for number in range(6):
        wav(tmp_path / "in" / f"{number}.wav", speech()[: (20 + number) * 16_000])
    sources = [str(tmp_path / "in")] if command == "batch" else [str(path) for path in (tmp_path / "in").iterdir()]
    with started(command, *sources, "-o", str(tmp_path / "out"), *QUICK) as process:
        assert process.stdout is not None
        first: dict[str, Any] = json.loads(process.stdout.readline())  # the flow is at work
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=400)
    assert first["type"] in ("stage", "recording")
    assert process.returncode == 130, err
    assert "Traceback" not in out + err
    assert json.loads(out.splitlines()[-1])["code"] == "cancelled"


@pytest.mark.slow
@pytest.mark.parametrize("args", [("models",), ("transcribe", "SOURCE")])
def test_output_that_nobody_reads_ends_a_command_with_141(started: Started, tmp_path: Path, args: tuple[str, ...]) -> None:
    source = wav(tmp_path / "call.wav", speech())
    given = [str(source) if arg == "SOURCE" else arg for arg in args]
    rest = ("-o", str(tmp_path), *QUICK) if args[0] == "transcribe" else ()
    with started(*given, *rest) as process:
        assert process.stdout is not None
        if args[0] == "transcribe":
            assert process.stdout.read(1)
        process.stdout.close()  # at once where all is said in a moment
        process.wait(timeout=400)
        assert process.stderr is not None
        err = process.stderr.read()
    assert process.returncode == 141, err
    assert "Traceback" not in err


def test_the_part_of_prefect_that_takes_sigterm_is_where_it_is_replaced() -> None:
    from prefect import flow_engine

    assert "with capture_sigterm():" in inspect.getsource(flow_engine)
