"""The guides say what the code does: every failure with its cure, every command and setting that they name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flows.report.advice import ADVICE
from stenoflow.cli.main import COMMANDS
from tests import settings_page

ROOT = Path(__file__).parents[1]
GUIDES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")], key=str)


@pytest.mark.parametrize("code", ADVICE)
def test_operations_guide_has_the_cure_of_every_failure(code: str) -> None:
    assert f"| `{code}` | {ADVICE[code]} |" in (ROOT / "docs" / "operations.md").read_text()


CLIENT = {"STENO_API_URL", "STENO_API_KEY"}
"""What the REST API's client reads, which is no part of a service."""


def settings() -> set[str]:
    """Every environment variable that a setting is read from; the sections' own are for all of one as JSON."""
    names = set(settings_page.variables())
    return {name for name in names if not any(other.startswith(f"{name}__") for other in names)}


def test_the_reference_of_settings_is_that_of_the_code() -> None:
    assert settings_page.PATH.read_text() == settings_page.written(), "run `make options`"
    without = [line for line in settings_page.written().splitlines() if line.startswith("| `STENO_") and "` |  |" in line[:60]]
    assert not without, f"without a description: {without}"


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_guides_name_only_settings_and_commands_that_exist(guide: Path) -> None:
    text = guide.read_text()
    named = set(re.findall(r"\bSTENO_[A-Z0-9]+(?:_[A-Z0-9]+)*(?:__[A-Z0-9_]+)?\b(?!_*[….*])", text))
    named = {name for name in named if not name.startswith("STENO_BENCH_")}  # the benchmarks' own
    assert named <= settings() | CLIENT, named - settings() - CLIENT
    commands = set(re.findall(r"(?:^\$ |^|`|\bbin/)steno ([a-z]+)\b", text, flags=re.MULTILINE))
    assert commands <= set(COMMANDS), commands - set(COMMANDS)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_links_and_pictures_of_guides_are_there(guide: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", guide.read_text())
    missing = [link for link in links if not (guide.parent / link).exists()]
    assert not missing, missing


def test_the_notices_have_every_package_that_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    names = {canonicalize_name(Requirement(need).name) for need in needed} - {"stenoflow"}
    notices = (ROOT / "THIRD_PARTY.md").read_text()
    listed = {canonicalize_name(name) for name in re.findall(r"^\| ([\w.-]+)(?: \([^)]*\))? \|", notices, flags=re.MULTILINE)}
    assert names <= listed, names - listed


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    records = {path.name for path in folder.glob("*.md")} - {"README.md"}
    listed = re.findall(r"^- \[(.+)\]\(([\w-]+\.md)\)$", (folder / "README.md").read_text(), flags=re.MULTILINE)
    assert sorted(name for _, name in listed) == sorted(records)
    for title, name in listed:
        assert (folder / name).read_text().startswith(f"# {title}\n")
