"""The model hub: models at a pinned revision, kept in the hub's own cache, and its errors told in our words."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from speech.errors import GatedModel, ModelUnavailable, StenoError, TransientError, UnknownModel
from speech.files import file_lock, replaced
from speech.registry import Resolved

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_PATTERNS = {
    "whisper": ["config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*"],
    "diarization": ["config.yaml", "segmentation/*", "embedding/*", "plda/*"],
    "wav2vec2": ["*.json", "*.txt", "*.bin", "*.safetensors"],
}
_MADE_OF = {
    "whisper": "Whisper model in CTranslate2's format (model.bin, config.json, tokenizer.json)",
    "diarization": "pyannote pipeline (segmentation/ and embedding/ with pytorch_model.bin)",
    "wav2vec2": "wav2vec2 model in transformers' format (config.json and weights)",
}


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


def hub_folder(resolved: Resolved) -> Path | None:
    """The hub model's folder when all of it is already on this machine, else None. Asks no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = _HUB_PATTERNS[resolved.kind]
    try:
        folder = Path(
            snapshot_download(resolved.location, revision=resolved.revision, allow_patterns=patterns, local_files_only=True)
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, ValueError):
        return None
    return folder if _complete(resolved.kind, folder) else None


def hub_download(resolved: Resolved, *, again: bool = False) -> Path:
    """Fetch a hub model at its pinned revision, or find it in the hub's cache; `again` asks the hub for what may be missing there.

    Raises GatedModel when the licence was not accepted or the token is missing or wrong, UnknownModel when there is no such
    model or it is of another kind, ModelUnavailable when there is no way to the hub, TransientError when the hub had trouble.
    """
    folder = hub_folder(resolved) if not again else None
    if folder is not None:
        return folder
    from huggingface_hub import snapshot_download

    patterns = _HUB_PATTERNS[resolved.kind]
    with hub_errors_translated(resolved.location):
        folder = Path(
            snapshot_download(resolved.location, revision=resolved.revision, allow_patterns=patterns, token=hub_token())
        )
    if not _complete(resolved.kind, folder):
        raise UnknownModel(f"The hub's {resolved.location} does not hold a {_MADE_OF[resolved.kind]}.")
    return folder


def pinned_revision(repository: str, models_dir: Path, *, offline: bool) -> str:
    """The commit a hub id stands for here: recorded when it is first asked for, and kept from then on."""
    pins_path = models_dir / "pins.json"
    with file_lock(models_dir / "pins.lock"):
        pins = _pins(pins_path)
        if repository in pins:
            return pins[repository]
        if offline:
            raise ModelUnavailable(
                f"The model {repository!r} was never fetched on this machine",
                cure="STENO_OFFLINE is set: unset it to fetch it",
            )
        from huggingface_hub import HfApi

        with hub_errors_translated(repository):
            revision = HfApi(token=hub_token()).model_info(repository).sha
        if not revision:
            raise ModelUnavailable(f"The hub names no revision of {repository!r}.")
        with replaced(pins_path) as aside:
            aside.write_text(json.dumps(pins | {repository: revision}, indent=2, sort_keys=True))
    return revision


def _pins(path: Path) -> dict[str, str]:
    """The commits that were recorded; those of a damaged file are asked for again."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    pins = found.items() if isinstance(found, dict) else ()
    return {name: commit for name, commit in pins if isinstance(commit, str) and _COMMIT.fullmatch(commit)}


@contextlib.contextmanager
def hub_errors_translated(repository: str) -> Iterator[None]:
    """The hub's exceptions as ours; each message says what to do."""
    from huggingface_hub import errors as hub

    try:
        yield
    except hub.LocalEntryNotFoundError as error:
        # "Not in the cache" is what the client makes of any failure to ask; the reason is its cause.
        raise _translated(error.__cause__ or error, repository) from error
    except (hub.HfHubHTTPError, hub.OfflineModeIsEnabled) as error:
        raise _translated(error, repository) from error
    except Exception as error:
        if not _from_http_library(error):
            raise
        raise _translated(error, repository) from error


def _translated(error: BaseException, repository: str) -> StenoError:
    from huggingface_hub import errors as hub

    page = f"huggingface.co/{repository}"
    if isinstance(error, hub.GatedRepoError):
        why = "your HF_TOKEN has no access" if hub_token() else "HF_TOKEN is not set"
        return GatedModel(
            f"The model {repository} is gated",
            cure=f"{why}: accept its licence at https://{page}, create a token with read access, and set HF_TOKEN",
        )
    if isinstance(error, hub.RevisionNotFoundError):
        return ModelUnavailable(f"The pinned revision of {repository} is gone from the hub (https://{page}).")
    if isinstance(error, hub.RepositoryNotFoundError):
        return UnknownModel(
            f"The hub has no model {repository!r} that this token can see",
            cure=f"check the name at https://{page}, and HF_TOKEN if it is private",
        )
    if isinstance(error, hub.HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        if status in (401, 403):
            return GatedModel(
                f"The hub refused the token for {repository} (HTTP {status})",
                cure=f"check HF_TOKEN and accept the licence at https://{page}",
            )
        return TransientError(f"The hub answered HTTP {status} for {repository}; trying again may help.")
    if _from_http_library(error) and not isinstance(error, ConnectionError) and "Connect" not in type(error).__name__:
        return TransientError(f"The hub's answer for {repository} broke off ({type(error).__name__}); trying again may help.")
    return ModelUnavailable(
        f"The model {repository} is not on this machine and the hub cannot be reached",
        cure="check the network, or choose a packaged model (`steno models`)",
    )


def _from_http_library(error: BaseException) -> bool:
    """Whether it is one of the errors that huggingface_hub lets through: requests' up to 0.x, httpx's from 1.0 on."""
    return any(kind.__module__.split(".")[0] in ("requests", "httpx") for kind in type(error).__mro__)


def _complete(kind: str, folder: Path) -> bool:
    needed = {
        "whisper": ("model.bin", "config.json", "tokenizer.json"),
        "diarization": (
            "segmentation/pytorch_model.bin",
            "embedding/pytorch_model.bin",
            "plda/plda.npz",
            "plda/xvec_transform.npz",
        ),
        "wav2vec2": ("config.json",),
    }[kind]
    if kind == "wav2vec2" and not any((folder / name).exists() for name in ("model.safetensors", "pytorch_model.bin")):
        return False
    return all((folder / name).exists() for name in needed)
