"""The model hub: models at a pinned revision, kept in the hub's own cache, and its errors translated to ours."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from speech.files import file_lock, replaced
from speech.registry import ENGINES, MODELS, Resolved, Seam
from stenoflow.errors import GatedModel, ModelUnavailable, StenoError, TransientError, UnknownModel

_PIN = re.compile(r"([\w.-]+:)?[0-9a-f]{40}")


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
    from huggingface_hub import constants

    # Its client takes a fifth of a second to import, for every command that asks which models are here.
    if not (Path(constants.HF_HUB_CACHE) / f"models--{resolved.location.replace('/', '--')}").exists():
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = _fetched(resolved)
    try:
        folder = Path(
            snapshot_download(resolved.location, revision=resolved.revision, allow_patterns=patterns, local_files_only=True)
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, ValueError):
        return None
    return None if missing(files_in(folder), _needed(resolved)) else folder


Access = Literal["granted", "denied", "unreachable"]
_REMEMBERED: dict[Access, float] = {"granted": 7 * 86_400.0, "denied": 300.0, "unreachable": 60.0}
"""Seconds: a licence may be accepted and a network come back any time; access is rarely taken away."""
_PATIENCE = 5.0


def access(model: Resolved, models_dir: Path) -> Access:
    """Whether the hub lets this machine's token fetch a model: one small request, whose answer is remembered."""
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session  # type: ignore[attr-defined]

    token = hub_token()

    def ask() -> Access:
        # Not through its client, which tries for 20 s and logs each attempt.
        file = next(name for name in _needed(model) if not set(name) & set("*|"))
        url = f"{constants.ENDPOINT}/{model.location}/resolve/{model.revision}/{file}"
        try:
            status = get_session().head(url, headers=build_hf_headers(token=token or False), timeout=_PATIENCE).status_code
        except Exception as error:
            if _from_http_library(error) or isinstance(error, OSError):
                return "unreachable"
            raise
        return "denied" if status in (401, 403) else "granted" if status < 400 else "unreachable"

    holder = hashlib.sha256(token.encode()).hexdigest()[:16] if token else "nobody"
    return _remembered(f"{model.location} {holder}", models_dir, ask)


def reachable(url: str, models_dir: Path) -> bool:
    """Whether a file can be fetched, remembered likewise."""

    def ask() -> Access:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_PATIENCE):
                return "granted"
        except urllib.error.HTTPError:
            return "denied"
        except (OSError, ValueError):
            return "unreachable"

    return _remembered(url, models_dir, ask) == "granted"


def _remembered(what: str, models_dir: Path, ask: Callable[[], Access]) -> Access:
    path = models_dir / "access.json"
    known = _read_access(path).get(what)
    if known is not None and 0 <= time.time() - known[1] < _REMEMBERED[known[0]]:
        return known[0]
    found = ask()
    with contextlib.suppress(OSError), file_lock(models_dir / "access.lock"):  # the folder may be read-only
        everything = _read_access(path) | {what: (found, time.time())}
        with replaced(path) as aside:
            aside.write_text(json.dumps(everything, indent=2, sort_keys=True))
    return found


def _read_access(path: Path) -> dict[str, tuple[Access, float]]:
    try:
        found = json.loads(path.read_bytes())
        return {what: (state, float(at)) for what, (state, at) in found.items() if state in _REMEMBERED}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def hub_download(resolved: Resolved, *, again: bool = False) -> Path:
    """Fetch a hub model at its pinned revision, or find it in the hub's cache; `again` asks the hub for what may be missing there.

    Raises GatedModel when the licence was not accepted or the token is missing or wrong, UnknownModel when there is no such
    model or it is of another kind, ModelUnavailable when there is no way to the hub, TransientError when the hub had trouble.
    """
    folder = hub_folder(resolved) if not again else None
    if folder is not None:
        return folder
    from huggingface_hub import snapshot_download

    with hub_errors_translated(resolved.location):
        patterns = _chosen(resolved)
        folder = Path(
            snapshot_download(resolved.location, revision=resolved.revision, allow_patterns=patterns, token=hub_token())
        )
    if absent := missing(files_in(folder), _needed(resolved)):
        raise UnknownModel(f"{resolved.location} on the hub is not a {resolved.engine.holds} ({' and '.join(absent)} missing).")
    return folder


class Pin(NamedTuple):
    """What a hub id stands for here."""

    revision: str
    engine: str


def pinned(repository: str, seam: Seam, models_dir: Path, *, offline: bool) -> Pin:
    """The commit of a hub id, and which of the seam's engines its files are for: recorded when it is first asked for, and kept
    from then on. A repository that is for none of them is taken for one of the first's, which says what it misses."""
    pins_path = models_dir / "pins.json"
    with file_lock(models_dir / "pins.lock"):
        pins = _pins(pins_path)
        if repository not in pins:
            if offline:
                raise ModelUnavailable(
                    f"The model {repository!r} is not on this machine",
                    cure="STENO_OFFLINE is set: unset it to download the model",
                )
            pins[repository] = _current_revision(repository, seam)
            with replaced(pins_path) as aside:
                aside.write_text(json.dumps(pins, indent=2, sort_keys=True))
    engine, _, revision = pins[repository].rpartition(":")
    return Pin(revision, engine or _first(seam))


def _current_revision(repository: str, seam: Seam) -> str:
    """As it is recorded: the commit, and before it the engine where it is not the seam's first."""
    from huggingface_hub import HfApi

    with hub_errors_translated(repository):
        info = HfApi(token=hub_token()).model_info(repository)
    if not info.sha:
        raise ModelUnavailable(f"The hub returned no revision of {repository!r}.")
    found = engine_of([file.rfilename for file in info.siblings or ()], seam)
    return info.sha if found in (None, _first(seam)) else f"{found}:{info.sha}"


def engine_of(files: Iterable[str], seam: Seam) -> str | None:
    """The first of the seam's engines that has all it needs among the files of a folder or repository; None when none has."""
    there = list(files)
    engines = [(name, engine) for name, engine in ENGINES.items() if engine.seam == seam and engine.needs]
    return next((name for name, engine in engines if not missing(there, engine.needs)), None)


def _first(seam: Seam) -> str:
    return next(name for name, engine in ENGINES.items() if engine.seam == seam and engine.needs)


def _pins(path: Path) -> dict[str, str]:
    """The commits that were recorded; those of a damaged file are asked for again."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    pins = found.items() if isinstance(found, dict) else ()
    return {name: pin for name, pin in pins if isinstance(pin, str) and _PIN.fullmatch(pin)}


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
        return ModelUnavailable(f"The pinned revision of {repository} is no longer on the hub (https://{page}).")
    if isinstance(error, hub.RepositoryNotFoundError):
        return UnknownModel(
            f"The hub has no model {repository!r} that this token can see",
            cure=f"check the name at https://{page}, and HF_TOKEN if it is private",
        )
    if isinstance(error, hub.HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        if status in (401, 403):
            return GatedModel(
                f"The hub rejected the token for {repository} (HTTP {status})",
                cure=f"check HF_TOKEN and accept the licence at https://{page}",
            )
        return TransientError(f"The hub answered HTTP {status} for {repository}; try again.")
    if _from_http_library(error) and not isinstance(error, ConnectionError) and "Connect" not in type(error).__name__:
        return TransientError(f"The hub's answer for {repository} was cut off ({type(error).__name__}); try again.")
    return ModelUnavailable(
        f"The model {repository} is not on this machine, and the hub is unreachable",
        cure="check the network, or choose a packaged model (`steno models`)",
    )


def _from_http_library(error: BaseException) -> bool:
    """Whether it is one of the errors that huggingface_hub lets through: requests' up to 0.x, httpx's from 1.0 on."""
    return any(kind.__module__.split(".")[0] in ("requests", "httpx") for kind in type(error).__mro__)


def _fetched(resolved: Resolved) -> list[str]:
    """Which of a repository's files are fetched."""
    return list(_listed(resolved) or resolved.engine.fetches)


def _chosen(resolved: Resolved) -> list[str]:
    """The same, of alternatives the first that the repository has: many have each of their weights in two formats."""
    from huggingface_hub import HfApi

    patterns = _fetched(resolved)
    if not any("|" in pattern for pattern in patterns):
        return patterns
    info = HfApi(token=hub_token()).model_info(resolved.location, revision=resolved.revision)
    there = [file.rfilename for file in info.siblings or ()]
    return [next((name for name in pattern.split("|") if fnmatch.filter(there, name)), pattern) for pattern in patterns]


def _needed(resolved: Resolved) -> tuple[str, ...]:
    """Which files there have to be."""
    return _listed(resolved) or resolved.engine.needs


def _listed(resolved: Resolved) -> tuple[str, ...]:
    model = MODELS.get(resolved.name)
    return model.fetches if model is not None and model.hub == (resolved.location, resolved.revision) else ()


def missing(files: Iterable[str], needs: Iterable[str]) -> list[str]:
    """Those of the needed files (`speech.registry.Engine.needs`) that are not among these, by their first names."""
    there = list(files)
    return [need.split("|")[0] for need in needs if not any(fnmatch.filter(there, name) for name in need.split("|"))]


def files_in(folder: Path) -> list[str]:
    """The files of a folder of weights, as a repository names them."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
