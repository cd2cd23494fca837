"""From the name a user gives to the exact weights that stand for it: a package, the hub at a pinned revision, or a folder.

Resolving a name is cheap: no network, no torch. It gives a `Resolved` whose revision is part of every stage key.
`speech.weights` then makes the files available and verifies them.

`speech.host` says what `auto` stands for.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from speech.host import Host
from speech.hub import engine_of, files_in, hub_folder, missing, pinned
from speech.languages import languages_of
from speech.packages import absent, version
from speech.registry import (
    ALIASES,
    ATTENTION,
    ENGINES,
    MODELS,
    PACKAGED_ASR,
    TORCHAUDIO_FILES,
    Engine,
    Resolved,
    Seam,
    default_aligner,
    names,
    on_hub,
    torchaudio_file,
)
from speech.runtime import install, not_installed
from speech.weights import FETCH, FETCH_CURE
from stenoflow.errors import AccessError, InvalidOption, ModelUnavailable, TransientError, UnknownModel
from stenoflow.types import Frozen

ENGLISH_ONLY = re.compile(r"\.en$")
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")


def resolve_asr(
    name: str,
    language: str | None,
    *,
    models_dir: Path,
    offline: bool,
    task: Literal["transcribe", "translate"] = "transcribe",
    host: Host | None = None,
) -> Resolved:
    """The weights that `name` stands for: a model of the registry, a hub id, or a folder; `auto` depends on the host. `language` may
    be several (`en,fr`).

    Raises UnknownModel for a name nothing is known of, ModelUnavailable when it is neither packaged nor may be asked for,
    InvalidOption when the model does not know the language or the task, or has to be given a language.
    """
    warning = ""
    if name == "auto":
        name, warning = (host or Host(models_dir, offline)).asr(task)
        if name == PACKAGED_ASR and _package_revision(MODELS[name].packages, models_dir) is None:
            raise _not_fetched(name)
    name = ALIASES.get(name, name)
    languages = languages_of(language)
    if ENGLISH_ONLY.search(name) and (other := next((code for code in languages if code != "en"), None)):
        raise InvalidOption(
            f"The model {name!r} supports English only, not {other!r}; use {name.removesuffix('.en')!r} instead."
        )
    if (model := MODELS.get(name)) is not None:
        if model.languages and (other := next((code for code in languages if code not in model.languages), None)):
            raise InvalidOption(
                f"The model {name!r} does not support {other!r}", cure="use a Whisper model, such as 'large-v3'"
            )
        if "yue" in languages and model.engine == "whisper" and "large-v3" not in name:
            raise InvalidOption(
                f"The model {name!r} does not support Cantonese ('yue')",
                cure="use 'large-v3' or 'large-v3-turbo', or give the language as 'zh'",
            )
        if len(languages) != 1 and not model.detects:
            raise InvalidOption(f"The model {name!r} does not detect languages", cure="give the one it is in with --language")
        if task == "translate" and not model.translates:
            raise InvalidOption(f"The model {name!r} does not translate", cure="use 'large-v3'")
    return _resolved("asr", name, models_dir, offline, names("asr")).model_copy(update={"warning": warning})


def resolve_diarization(name: str, *, models_dir: Path, offline: bool, host: Host | None = None) -> Resolved:
    """The weights of the diarizer that `name` stands for."""
    warning = ""
    if name == "auto":
        name, warning = (host or Host(models_dir, offline)).diarization()
    name = ALIASES.get(name, name)
    if name not in names("diarize"):
        known = " or ".join(f"{one!r} ({'hub' if MODELS[one].hub else 'packaged'})" for one in names("diarize"))
        raise UnknownModel(f"Unknown diarization model {name!r}; use {known}.")
    return _resolved("diarize", name, models_dir, offline, names("diarize")).model_copy(update={"warning": warning})


def resolve_segmentation(diarization: Resolved, *, models_dir: Path, offline: bool, host: Host | None = None) -> Resolved:
    """Where the speech is: by the diarizer's own segmentation, or the default one's where it takes the audio alone."""
    if not diarization.engine.end_to_end:
        return diarization
    return resolve_diarization("auto", models_dir=models_dir, offline=offline, host=host)


def resolve_align(
    name: str, language: str, asr: Resolved, *, models_dir: Path, offline: bool, host: Host | None = None
) -> Resolved:
    """What times the words: a wav2vec2 model, or the ASR model that made the text (of Whisper's, its cross-attention).

    `wav2vec2` is the language's WhisperX model; `auto` is that model where the host can use it.
    """
    own = Resolved(
        kind=ATTENTION,
        name=f"{asr.engine.times}:{asr.name}",
        revision=asr.revision,
        origin=asr.origin,
        location=asr.location,
    )
    default = default_aligner(language)
    if name == ATTENTION:
        return own
    if name == "auto":
        name, warning = (host or Host(models_dir, offline)).aligner(language)
        if name == ATTENTION:
            return own.model_copy(update={"warning": warning})
        try:
            return resolve_align(name, language, asr, models_dir=models_dir, offline=offline)
        except (AccessError, TransientError) as error:
            return own.model_copy(update={"warning": f"{error.happened} Words are timed by attention instead."})
    if name == "wav2vec2":
        if default is None:
            raise InvalidOption(
                f"There is no default wav2vec2 model for {language!r}", cure="give one with --align-model, or 'attention'"
            )
        name = default
    if name in TORCHAUDIO_FILES:
        if offline and not torchaudio_file(name, models_dir).exists():
            raise _offline(name)
        release = version("torchaudio") or "unknown"
        return Resolved(kind="wav2vec2", name=name, revision=f"torchaudio=={release}", origin="hub", location=name)
    return _resolved("align", name, models_dir, offline, ("auto", "wav2vec2", ATTENTION, *TORCHAUDIO_FILES))


def _resolved(seam: Seam, name: str, models_dir: Path, offline: bool, known: Iterable[str]) -> Resolved:
    """A folder, a model of the registry, or any repository that holds what one of the seam's engines reads."""
    folder = _folder(name)
    if folder is not None:
        files = files_in(folder)
        kind = engine_of(files, seam)
        if kind is None:
            raise UnknownModel(f"The folder {name} does not contain a {_lacking(files, seam)}.")
        return Resolved(kind=kind, name=folder.name, revision=folder_revision(folder), origin="folder", location=str(folder))
    model = MODELS.get(name) if name in known else None
    if model is not None and (revision := _package_revision(model.packages, models_dir)) is not None:
        return Resolved(kind=model.engine, name=name, revision=revision, origin="package")
    if model is not None and model.hub is not None:
        resolved = on_hub(name)
    elif model is not None:
        raise _not_fetched(name)
    elif _HUB_ID.match(name):
        pin = pinned(name, seam, models_dir, offline=offline)
        resolved = Resolved(kind=pin.engine, name=name, revision=pin.revision, origin="hub", location=name)
    else:
        raise _unknown(name, sorted(known))
    if offline and hub_folder(resolved) is None:
        raise _offline(name)
    return resolved


def _lacking(files: list[str], seam: Seam) -> str:
    """What each engine of the seam misses in a folder, the one that misses least first."""
    engines = [engine for engine in ENGINES.values() if engine.seam == seam and engine.needs]
    engines.sort(key=lambda engine: len(missing(files, engine.needs)) / len(engine.needs))
    return " or a ".join(f"{engine.holds} ({' and '.join(missing(files, engine.needs))} missing)" for engine in engines)


def _unknown(name: str, known: list[str]) -> UnknownModel:
    close = difflib.get_close_matches(
        name.lower(), [*known, *(alias for alias, meant in ALIASES.items() if meant in known)], n=1
    )
    hint = f". Did you mean {close[0]!r}?" if close else ""
    return UnknownModel(
        f"Unknown model {name!r}", cure=f"use one of {', '.join(known)}, a hub id (owner/name), or a folder{hint}"
    )


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
    if path.is_dir() and (os.sep in name or name.startswith((".", "~")) or name not in MODELS):
        return path.absolute()
    if name.startswith((os.sep, ".", "~")):
        raise UnknownModel(
            f"There is no folder {path.absolute()}", cure="give a folder of weights, or a model from `steno models`"
        )
    return None


def _offline(name: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"The model {name!r} is not on this machine",
        cure="STENO_OFFLINE is set: unset it, or choose another model (`steno models`)",
    )


def _not_fetched(name: str) -> ModelUnavailable:
    return ModelUnavailable(f"The weights of {name} are not on this machine", cure=FETCH_CURE)


def _package_revision(packages: tuple[str, ...], models_dir: Path) -> str | None:
    versions = [(package, version(package, models_dir)) for package in packages]
    if not packages or any(found is None for _, found in versions):
        return None
    return "+".join(f"{package}=={found}" for package, found in versions)


# -- what there is ------------------------------------------------------------------------------------------------------


class ModelStatus(Frozen):
    """One line of `steno models`."""

    name: str
    kind: str
    """Its engine."""
    step: str
    """What it does: a seam."""
    origin: str
    available: bool
    detail: str
    licence: str
    megabytes: int
    languages: tuple[str, ...]
    """Empty: all that Whisper knows; for a diarizer, any."""


def catalogue(models_dir: Path, offline: bool) -> list[ModelStatus]:
    """Every model of the registry, by each place that it comes from, and whether it is on this machine. Asks no network,
    imports no torch."""
    return [row for name in MODELS for row in _rows(name, models_dir, offline)]


def _rows(name: str, models_dir: Path, offline: bool) -> list[ModelStatus]:
    model = MODELS[name]
    engine = ENGINES[model.engine]
    missing_packages = absent(engine.runs_on)
    places: list[tuple[str, bool, str]] = []
    if model.packages:
        here = _package_revision(model.packages, models_dir) is not None
        places.append(("package:" + "+".join(model.packages), here, "here" if here else f"not here: `{FETCH} {name}`"))
    if model.hub is not None:
        repository, revision = model.hub
        here = Host(models_dir, offline).has(name)
        gated = "; gated: accept its licence and set HF_TOKEN" if model.gated else ""
        fetched = "not here, STENO_OFFLINE is set" if offline else f"downloaded on first use{gated}"
        places.append((f"hub:{repository}@{revision[:8]}", here, "in the hub cache" if here else fetched))
    lacks = f"; needs {' and '.join(missing_packages)}: {install(engine.extra)}" if missing_packages else ""
    return [
        ModelStatus(
            name=name,
            kind=model.engine,
            step=engine.seam,
            origin=origin,
            available=here,
            detail=detail + lacks,
            licence=model.licence,
            megabytes=model.megabytes,
            languages=model.languages,
        )
        for origin, here, detail in places
    ]


def require(engine: Engine) -> None:
    """Raise EngineMissing where what the engine runs on is not installed."""
    if missing_packages := absent(engine.runs_on):
        raise not_installed(missing_packages, engine.extra)


class Machine(NamedTuple):
    """What decides which model suits a machine."""

    gpu_gigabytes: float | None
    """Memory of its GPU; None without one."""
    cores: int
    hub: bool
    """Whether models may be fetched."""


def recommended(machine: Machine) -> tuple[str, str]:
    """The ASR model for a machine, and why (docs/models.md has the figures)."""
    if machine.gpu_gigabytes is not None:
        if not machine.hub:
            return "base", "a GPU, but only packaged models are allowed"
        if machine.gpu_gigabytes >= 6:
            return "large-v3-turbo", "the most accurate that is fast on a GPU with 6 GB or more"
        return "small", "what fits beside the speaker models in less than 6 GB of GPU memory"
    if not machine.hub:
        return "base", "the largest packaged model"
    if machine.cores >= 4:
        return (
            "parakeet-tdt-0.6b-v3-int8",
            "the most accurate at several times real time on CPUs, for its 25 languages; else small",
        )
    return "base", "faster than the recording on few cores"
