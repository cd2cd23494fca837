"""`/v1/models`: names that calls may use."""

from __future__ import annotations

from api.errors import Unprocessable
from api.openai.schemas import Model
from infra.settings import StenoSettings
from speech.models import resolve_asr
from speech.registry import ALIASES, names
from stenoflow.errors import StenoError

DIARIZING = "gpt-4o-transcribe-diarize"
STAND_INS = (
    "whisper-1",
    "gpt-transcribe",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15",
    DIARIZING,
)
"""OpenAI's names, for clients that cannot name others; each is this service's default model (`auto`)."""


def own_name(model: str) -> str:
    """The model's name in a request of ours."""
    return "auto" if model in STAND_INS else model


def listed(settings: StenoSettings) -> list[Model]:
    """The default and what stands for it, and the ASR models that are here or may be fetched."""
    runs = _owner(settings.model, settings) is not None
    found = [Model(id=name, owned_by="stenoflow") for name in ("auto", *STAND_INS)] if runs else []
    for name in sorted(names("asr")):
        if (owner := _owner(name, settings)) is not None:
            found.append(Model(id=name, owned_by=owner))
    known = {model.id: model.owned_by for model in found}
    found += [Model(id=alias, owned_by=known[name]) for alias, name in ALIASES.items() if name in known]
    return found + [Model(id=name, owned_by=name.partition("/")[0] or "stenoflow") for name in settings.api.models]


def _owner(name: str, settings: StenoSettings) -> str | None:
    """Who publishes the weights; None for what is no Whisper model, or neither here nor to be fetched."""
    try:
        resolved = resolve_asr(name, "en", models_dir=settings.models_path, offline=settings.offline)
    except (StenoError, ImportError):
        return None
    return resolved.location.partition("/")[0] if resolved.origin == "hub" else resolved.origin


def found(name: str, settings: StenoSettings) -> Model:
    """The model with that name. Raises Unprocessable, which the API reports as 404, when there is none."""
    for model in listed(settings):
        if model.id == name:
            return model
    raise Unprocessable("There is no model with that name; `GET /v1/models` lists them.", code="unknown_model")
