"""Which weights a run uses, decided once, before anything is downloaded or computed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypedDict

from infra.compute import host_of
from infra.settings import StenoSettings, get_settings
from speech.host import Host
from speech.languages import only_language
from speech.models import resolve_align, resolve_asr, resolve_diarization, resolve_segmentation
from speech.registry import ATTENTION, Resolved
from stenoflow.errors import InvalidOption


class Where(TypedDict):
    models_dir: Path
    offline: bool
    host: Host


@dataclass(frozen=True)
class Models:
    """The resolved weights of one run."""

    asr: Resolved
    diarization: Resolved
    segmentation: Resolved
    """Where the speech is; the diarizer's own, unless it takes the audio alone."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why `auto` does not stand for the models that this host would use otherwise."""
        return tuple(dict.fromkeys(model.warning for model in (self.asr, self.diarization, self.segmentation) if model.warning))


class ModelOptions(Protocol):
    """Of a request, what its models depend on."""

    @property
    def model(self) -> str: ...
    @property
    def language(self) -> str | None: ...
    @property
    def task(self) -> Literal["transcribe", "translate"]: ...
    @property
    def align(self) -> bool: ...
    @property
    def align_model(self) -> str: ...
    @property
    def diarization_model(self) -> str: ...
    @property
    def compute(self) -> str | None: ...


async def resolve_models(asked: ModelOptions) -> Models:
    """Names to pinned revisions; `auto` is the settings' model.

    A typing error, a gated or a missing model is met here, in milliseconds. Raises UnknownModel, InvalidOption,
    ModelUnavailable, GatedModel.
    """
    return await asyncio.to_thread(resolve, get_settings(), asked)


async def resolve_aligners(
    align_model: str, languages: Sequence[str], asr: Resolved, *, spoken: bool, backend: str | None = None
) -> list[Resolved]:
    """What gives the words of each language their times. A further language without a model of its own has the ASR model's times.

    Where none of them was spoken (a translation, or no words at all) that is Whisper's attention, whatever was asked for.
    """
    name = align_model if spoken else ATTENTION
    settings = get_settings()

    where = _where(settings, backend)

    def further(language: str) -> Resolved:
        try:
            return resolve_align(name, language, asr, **where)
        except InvalidOption as error:
            own = resolve_align(ATTENTION, language, asr, **where)
            return own.model_copy(update={"warning": f"{error.happened}: its words are timed by {own.name}."})

    def resolved() -> list[Resolved]:
        return [resolve_align(name, languages[0], asr, **where), *map(further, languages[1:])]

    return await asyncio.to_thread(resolved)


def argument(model: Resolved) -> str:
    """The name under which a stage finds these very weights again."""
    if model.kind == "attention":
        return "attention"
    return model.location if model.origin == "folder" else model.name


def pinned(model: Resolved) -> str:
    """The weights' identity, for a stage's key."""
    return f"{model.kind}:{model.name}@{model.revision}"


def resolve(settings: StenoSettings, asked: ModelOptions) -> Models:
    """As `resolve_models`, in this thread."""
    here = _where(settings, asked.compute)
    name = settings.model if asked.model == "auto" else asked.model
    asr = resolve_asr(name, asked.language, task=asked.task, **here)
    language = only_language(asked.language)
    if asked.align and (language or asked.align_model != "auto"):
        resolve_align(asked.align_model, language or "en", asr, **here)
    diarization = resolve_diarization(asked.diarization_model, **here)
    return Models(asr, diarization, resolve_segmentation(diarization, **here))


def _where(settings: StenoSettings, backend: str | None) -> Where:
    return {"models_dir": settings.models_path, "offline": settings.offline, "host": host_of(settings, backend)}
