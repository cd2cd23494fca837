"""The wheel alone, in an environment of its own, outside the checkout: what somebody has who ran `pip install "stenoflow[cpu]"`.

The environment is installed from the package index and takes a minute, so this runs with `make test-matrix`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.demo import sample_recording
from tests.deployed import ROOT
from tests.modal_server.client import ModalServer
from tests.prefect_home import prefect_home
from tests.up import free_port

pytestmark = pytest.mark.matrix

OF_A_CHECKOUT = ("requirements/", "make demo", "make test", "[engine]", str(ROOT))


class Installed:
    """`steno` of the environment, run in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "venv" / "bin" / "python"
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("STENO_", "PREFECT_", "HF_", "PYTHON"))
        }
        kept.pop("VIRTUAL_ENV", None)
        self.env = kept | {
            "PATH": f"{self.python.parent}:/usr/bin:/bin",
            "STENO_HOME": str(folder / "home"),
            "PREFECT_HOME": str(prefect_home(folder / "prefect")),
            "HF_HUB_OFFLINE": "1",
        }

    def steno(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(self.python.with_name("steno")), *arguments],
            env=self.env | variables,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        said = done.stdout + done.stderr
        assert "Traceback" not in said, said
        assert not [words for words in OF_A_CHECKOUT if words in said], said
        return done


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    here = Path(sys.executable).parent

    def run(*command: str | Path) -> None:
        done = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]

    source = folder / "source"
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    run(here / "uv", "build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable, "-o", folder, source)
    shutil.rmtree(source)
    (wheel,) = folder.glob("stenoflow-*.whl")
    run(sys.executable, "-m", "venv", folder / "venv")
    found = Installed(folder)
    pinned = ["-c", ROOT / "requirements" / "cpu.txt", "--python", found.python]
    run(here / "uv", "pip", "install", "--quiet", *pinned, f"stenoflow[cpu] @ {wheel.as_uri()}")
    shutil.copy(sample_recording(), folder / "talk.wav")
    return found


@pytest.fixture(scope="module")
def fetched(installed: Installed) -> Installed:
    """The same, once somebody at a terminal has transcribed a recording and agreed to the weights being fetched."""
    before = installed.steno("batch", "talk.wav", "--output-dir", "out")
    assert before.returncode != 0, "weights may never be fetched unasked"
    refused = installed.steno("transcribe", "talk.wav")
    assert (refused.returncode, "`steno models fetch`" in refused.stderr) == (4, True), refused.stderr
    assert not (installed.folder / "home" / "models" / "packages").exists()
    code, said = on_a_terminal(installed, "steno transcribe talk.wav --output-dir first", answer="y")
    assert code == 0, said
    assert "Have pip fetch them" in said
    return installed


def on_a_terminal(installed: Installed, command: str, answer: str) -> tuple[int, str]:
    """The exit code and what stood on the terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(installed.folder)
        os.execvpe("/bin/sh", ["sh", "-c", f"exec {command}"], installed.env)
    said = b""
    with contextlib.suppress(OSError):  # how Linux says that the other end is closed
        while chunk := os.read(terminal, 4096):
            said += chunk
            if b"[Y/n]" in said and answer:
                os.write(terminal, f"{answer}\n".encode())
                answer = ""
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), said.decode(errors="replace")


def test_there_is_no_torch(installed: Installed) -> None:
    listed = subprocess.run(
        [installed.python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
    )
    names = {line.partition("==")[0].lower() for line in listed.stdout.splitlines()}
    assert "ctranslate2" in names
    assert not {name for name in names if name.startswith(("torch", "nvidia", "triton", "whisperx", "pyannote"))}


def test_a_recording_is_transcribed_with_speakers(fetched: Installed) -> None:
    transcript = json.loads((fetched.folder / "first" / "talk.json").read_text())
    words = transcript["word_segments"]
    assert len(words) > 60
    assert {word["speaker"] for word in words} == {"SPEAKER_00", "SPEAKER_01"}
    assert {word["timing"] for word in words} <= {"attention", "interpolated"}
    assert "torch" not in transcript["versions"]
    again = fetched.steno("transcribe", "--json", "talk.wav", "--output-dir", "second")
    assert again.returncode == 0
    stages = json.loads(again.stdout.splitlines()[-1])["stages"]
    assert {stage["state"] for stage in stages if stage["stage"] in ("segment", "asr", "embed")} == {"cached"}


def test_a_batch(fetched: Installed) -> None:
    (fetched.folder / "inbox").mkdir()
    shutil.copy(fetched.folder / "talk.wav", fetched.folder / "inbox")
    done = fetched.steno("batch", "inbox", "--output-dir", "batched")
    assert done.returncode == 0, done.stderr
    assert (fetched.folder / "batched" / "talk.json").is_file()


def test_the_doctor_misses_nothing(fetched: Installed) -> None:
    done = fetched.steno("doctor", "--json")
    checks = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, checks
    assert {check["verdict"] for check in checks if check["subject"] in ("cpu", "whisper", "diarization")} == {"ok"}
    assert not [check for check in checks if check["subject"] == "gpu"]


def test_what_needs_torch_names_the_extra(fetched: Installed) -> None:
    words = fetched.steno("transcribe", "talk.wav", "-l", "en", "--align-model", "wav2vec2", HF_HUB_OFFLINE="0")
    gpu = fetched.steno("transcribe", "talk.wav", "--device", "cuda", "--no-diarize")
    for done in (words, gpu):
        assert 'pip install "stenoflow[gpu]"' in done.stderr, done.stderr
        assert done.returncode != 0


def test_up_starts_everything(fetched: Installed) -> None:
    with up(fetched) as log:
        deadline = time.monotonic() + 240
        while "Ctrl-C stops everything" not in log.read_text(errors="replace"):
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.5)


@contextlib.contextmanager
def up(installed: Installed) -> Iterator[Path]:
    log = installed.folder / "up.log"
    with log.open("wb") as out:
        command = [str(installed.python.with_name("steno")), "up", "--port", str(free_port())]
        process = subprocess.Popen(command, env=installed.env, cwd=installed.folder, stdout=out, stderr=out)
    try:
        yield log
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == 0
    finally:
        process.kill()


def test_modal_deploy_installs_the_wheels_own_pins(fetched: Installed) -> None:
    with ModalServer.start() as server:
        done = fetched.steno("modal", "deploy", "--quiet", **server.env)
        assert done.returncode == 0, done.stderr
        image = server.app("stenoflow")["functions"]["Speech.*"]["image"]
        for name in ("gpu", "weights"):
            (sent,) = [text for path, text in image["context_files"].items() if path.endswith(f"_{name}.txt")]
            assert sent == (ROOT / "requirements" / f"{name}.txt").read_text()
