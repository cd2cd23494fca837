"""What programs import: names that stay, nothing else loaded, whatever the folder they are run in holds."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import stenoflow
from stenoflow import isolated
from tests.hostile_folder import make_hostile
from tests.test_layering import ROOMS, ROOT

NAMES = {
    *("transcribe", "StenoClient", "AsyncStenoClient"),
    *("Transcript", "Segment", "Word", "Turn", "Stretch", "ModelInfo", "Progress"),
    *("StenoError", "InputError", "MediaError", "AccessError", "TransientError", "ClientError", "TranscribeFailed"),
}


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A program of somebody else's, in their folder, which Python puts first on the path."""
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


def test_the_names_that_programs_import_stay() -> None:
    assert set(stenoflow.__all__) == NAMES
    for name in NAMES:
        assert getattr(stenoflow, name).__module__.startswith("stenoflow.")
    assert set(dir(stenoflow)) >= NAMES
    with pytest.raises(AttributeError, match="no attribute 'transcibe'"):
        stenoflow.transcibe  # type: ignore[attr-defined]  # noqa: B018


def test_importing_every_name_loads_httpx_and_pydantic_and_none_of_the_rooms(tmp_path: Path) -> None:
    make_hostile(tmp_path)
    code = (
        "import sys; before = set(sys.modules); import stenoflow; lazy = set(sys.modules) - before\n"
        f"from stenoflow import {', '.join(sorted(NAMES))}\n"
        "import json, importlib.metadata as m; found = {n.partition('.')[0] for n in sys.modules}\n"
        "print(json.dumps([sorted(lazy), sorted({d for n, ds in m.packages_distributions().items() if n in found for d in ds})]))"
    )
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    lazy, distributions = json.loads(done.stdout)
    assert {name.partition(".")[0] for name in lazy} - set(sys.stdlib_module_names) == {"stenoflow"}
    # httpx imports its own command line's libraries where they are installed, Rich 14.0 attrs likewise, and setuptools is on the path by a `.pth` file.
    allowed = "httpx httpcore h11 anyio sniffio idna certifi pydantic pydantic_core annotated-types typing_extensions"
    allowed += " typing-inspection stenoflow click rich Pygments markdown-it-py mdurl attrs setuptools"
    assert set(distributions) <= set(allowed.split()), distributions


def test_our_modules_come_before_others_of_the_same_name(tmp_path: Path) -> None:
    make_hostile(tmp_path)
    code = "import sys; sys.path.insert(0, sys.argv[1]); from stenoflow import isolated; isolated.take_precedence(); "
    code += f"import {', '.join(isolated.ROOMS)}; import beside; print(beside.__name__, sys.path.count(sys.argv[1]))"
    (tmp_path / "beside.py").touch()
    done = subprocess.run([sys.executable, "-P", "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["beside", "1"], done.stderr


def test_every_room_is_isolated_and_in_the_wheel() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {*isolated.ROOMS, "stenoflow"} == set(ROOMS) == set(packages)


def test_every_child_process_is_isolated() -> None:
    """`python -m` puts the working directory first on the path, and a user's own `flows` before ours."""
    started = [
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if "sys.executable" in path.read_text() and path.name != "isolated.py"
    ]
    assert not started


# -- what is installed --------------------------------------------------------------------------------------------------

PROGRAM = """
from stenoflow import StenoClient, Transcript, transcribe

found: Transcript = StenoClient().transcribe("talk.wav", diarize=True)
reveal_type(found.segments[0].words[0].score)
reveal_type(StenoClient().job("1").stages[0].seconds)
transcribe("talk.wav", num_speakers="two")
"""


@pytest.mark.slow
def test_a_program_is_checked_against_the_types_in_the_wheel(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    venv.create(tmp_path / "venv")
    [packages] = (tmp_path / "venv").glob("lib/python*/site-packages")
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    (packages / "libraries.pth").write_text(f"{site.getsitepackages()[0]}\n")
    (tmp_path / "program.py").write_text(PROGRAM)
    python = str(tmp_path / "venv" / "bin" / "python")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file",
        os.devnull,
        "--python-executable",
        python,
        "program.py",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith("program.py")]
    assert [line.partition(": ")[2] for line in found] == [
        'note: Revealed type is "float"',
        'note: Revealed type is "float"',
        'error: Argument "num_speakers" to "transcribe" has incompatible type "str"; expected "int | None"  [arg-type]',
    ], done.stdout


def test_the_client_brings_fewer_than_15_distributions() -> None:
    wanted, found = [Requirement(line) for line in _project()["dependencies"]], {"stenoflow"}
    while wanted:
        name = canonicalize_name(wanted.pop().name)
        if name not in found:
            found.add(name)
            theirs = [Requirement(line) for line in requires(name) or ()]
            wanted += [each for each in theirs if each.marker is None or each.marker.evaluate({"extra": ""})]
    assert len(found) < 15, sorted(found)
    assert _project()["optional-dependencies"]["client"] == []


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project
