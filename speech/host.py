"""What `auto` stands for where the models run: by its hardware, and by what it can fetch.

On a GPU that is what WhisperX takes. On a CPU it is the packaged Whisper model, with or without a token: `large-v3-turbo` costs
many times as much there, and is used when it is named. A gated model is used where the token has access to it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from speech.hub import access, hub_folder, hub_token, reachable
from speech.packages import absent
from speech.registry import (
    ATTENTION,
    ENGINES,
    MODELS,
    PACKAGED_ASR,
    PACKAGED_DIARIZATION,
    TORCHAUDIO_FILES,
    TORCHAUDIO_HOST,
    default_aligner,
    on_hub,
    torchaudio_file,
)
from speech.runtime import resolve_device
from speech.schema import RuntimeOptions
from stenoflow.errors import EngineMissing

GATED_DIARIZATION = "community-1"


class Choice(NamedTuple):
    """A model that `auto` stands for."""

    name: str
    warning: str = ""
    """Why it is not the one that this host would use otherwise."""


@dataclass(frozen=True)
class Host:
    """Where models run, as far as `auto` depends on it."""

    models_dir: Path
    offline: bool
    gpu: bool = False
    gated: frozenset[str] | None = None
    """The gated models that it can fetch, if it is another machine; of this one, the hub is asked with its token."""
    token: bool = False
    """Whether another machine has a token, or should have."""
    lacking: str = ""
    """Why another machine's token is of no use."""

    @classmethod
    def here(cls, runtime: RuntimeOptions) -> Host:
        """This machine."""
        try:
            gpu = resolve_device(runtime) == "cuda"
        except EngineMissing:
            gpu = False
        return cls(runtime.models_path, runtime.offline, gpu)

    @property
    def asks_hub(self) -> bool:
        return not self.offline and os.environ.get("HF_HUB_OFFLINE", "0") in ("", "0")

    def asr(self, task: Literal["transcribe", "translate"] = "transcribe") -> Choice:
        """turbo was not trained to translate: it keeps the spoken language
        (https://github.com/openai/whisper#available-models-and-languages)."""
        if not self.gpu:
            return Choice(PACKAGED_ASR)
        name = "large-v3" if task == "translate" else "large-v3-turbo"
        return self._or(name, PACKAGED_ASR)

    def diarization(self) -> Choice:
        wanted = self._has_token or self._cached(GATED_DIARIZATION)
        return self._or(GATED_DIARIZATION, PACKAGED_DIARIZATION) if wanted else Choice(PACKAGED_DIARIZATION)

    def aligner(self, language: str) -> Choice:
        """WhisperX's wav2vec2 model of the language, if there is one and torch is installed: on a GPU, and where there is a token."""
        name = default_aligner(language)
        if name is None or not (self.gpu or self._has_token) or not self.asks_hub:
            return Choice(ATTENTION)
        if self.gated is not None:  # another machine: its own image has torch, and its own network
            return Choice(name)
        if absent(ENGINES["wav2vec2"].runs_on):
            return Choice(ATTENTION)
        if name not in TORCHAUDIO_FILES:
            return Choice(name)
        file = torchaudio_file(name, self.models_dir)
        if file.exists() or reachable(f"https://{TORCHAUDIO_HOST}/torchaudio/models/{file.name}", self.models_dir):
            return Choice(name)
        return Choice(ATTENTION, f"{TORCHAUDIO_HOST} is not reachable: {name} is not used, words are timed by attention.")

    def has(self, name: str) -> bool:
        """Whether nothing has to be fetched for a name: of a model of the hub, that it is in the cache."""
        model = MODELS.get(name)
        return model is None or model.hub is None or self._cached(name)

    def can_use(self, name: str) -> bool:
        """Whether a model of the registry is here, or can be fetched."""
        return self._or(name, "").name == name

    def _or(self, name: str, instead: str) -> Choice:
        """The model of the registry if this host can use it, else the packaged one."""
        model = on_hub(name)
        if self._cached(name):
            return Choice(name)
        if not self.asks_hub:
            return Choice(instead)
        if self.gated is not None and (name in self.gated or not MODELS[name].gated):
            return Choice(name)
        found = "denied" if self.gated is not None else access(model, self.models_dir)
        if found == "granted":
            return Choice(name)
        if found == "denied":
            page = f"https://huggingface.co/{model.location}"
            why = self.lacking or f"The hub token has no access to {name}; accept the licence at {page}"
            return Choice(instead, f"{why}. {instead} is used instead.")
        return Choice(instead, f"The model hub is not reachable: {instead} is used instead of {name}.")

    @property
    def _has_token(self) -> bool:
        return hub_token() is not None if self.gated is None else self.token

    def _cached(self, name: str) -> bool:
        if self.gated is not None:
            return False  # it is another machine's cache
        try:
            return hub_folder(on_hub(name)) is not None
        except ImportError:
            return False
