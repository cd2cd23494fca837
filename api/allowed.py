"""What callers may name: models, and buckets. A name makes the worker fetch it with the operator's credentials.

The default is what is published: the models of the registry, and no bucket.
"""

from __future__ import annotations

import contextlib

from api import cures
from api.errors import Unprocessable
from infra.settings import StenoSettings
from stenoflow.errors import AccessError, InputError

ANY = "*"
"""In a setting's list: no limit."""


def model_names(settings: StenoSettings) -> tuple[str, ...]:
    """The ASR models that callers may name: `auto`, those of the registry, the service's own, and what its operator adds."""
    from speech.registry import ALIASES, names

    published = set(names("asr"))
    published |= {alias for alias, name in ALIASES.items() if name in published}
    return tuple(dict.fromkeys(("auto", settings.model, *sorted(published), *settings.api.models)))


def aligner_names(settings: StenoSettings) -> tuple[str, ...]:
    """The models for word times that callers may name: those that need no name, torchaudio's, and what the operator adds."""
    from speech.registry import ATTENTION, TORCHAUDIO_FILES

    return tuple(dict.fromkeys(("auto", ATTENTION, "wav2vec2", *TORCHAUDIO_FILES, *settings.api.models)))


def diarizer_names() -> tuple[str, ...]:
    """The diarization models that callers may name: those of the registry."""
    from speech.registry import ALIASES, names

    published = names("diarize")
    return ("auto", *published, *(alias for alias, name in ALIASES.items() if name in published))


def check_models(model: str, align_model: str, diarization_model: str, language: str | None, settings: StenoSettings) -> None:
    """Raise Unprocessable for a model that is not allowed, or does not support the language."""
    from speech.models import resolve_asr

    _check_named("model", model, model_names(settings), settings)
    _check_named("align_model", align_model, aligner_names(settings), settings)
    check_diarizer(diarization_model, settings)
    if model == "auto" or "/" in model:
        return
    # Whether the weights can be had is the worker's business.
    with contextlib.suppress(AccessError):
        try:
            resolve_asr(model, language, models_dir=settings.models_path, offline=settings.offline)
        except InputError as error:
            raise Unprocessable(cures.of(error), code=error.code) from None


def check_diarizer(name: str, settings: StenoSettings) -> None:
    """Raise Unprocessable for a diarization model that is not allowed."""
    _check_named("diarization_model", name, diarizer_names(), settings)


def _check_named(field: str, given: str, names: tuple[str, ...], settings: StenoSettings) -> None:
    if given in names:
        return
    shown = ", ".join(f"`{name}`" for name in names if "/" not in name or name in settings.api.models)
    detail = f"{field}: use one of {shown}. The operator can allow others in STENO_API__MODELS."
    raise Unprocessable(detail, code="unknown_model", errors=[{"field": field, "message": detail, "code": "unknown_model"}])


def may_read(path: str, settings: StenoSettings) -> bool:
    """Whether `s3://` sources may name `bucket/key`."""
    return any(place == ANY or within(path, place) for place in settings.api.s3_sources)


def within(path: str, place: str) -> bool:
    """Whether `bucket/key` is the place, as `bucket` or `bucket/prefix`, or in it."""
    place = place.removeprefix("s3://").strip("/")
    return bool(place) and (path == place or path.startswith(f"{place}/"))
