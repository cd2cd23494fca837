"""What is loaded ahead is what stages find, and what cannot be had is left to them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from infra import compute
from infra.settings import get_settings
from speech import ahead
from speech.asr.whisper import load_whisper
from speech.diarize.networks import load_embedder, load_segmenter
from speech.loaded import LoadedModels
from speech.models import resolve_asr, resolve_diarization
from speech.registry import Resolved
from speech.schema import RuntimeOptions
from stenoflow.errors import ModelUnavailable, UnknownModel


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> LoadedModels:
    """The models of this process, none to begin with."""
    models = LoadedModels()
    monkeypatch.setattr("speech.loaded.MODELS", models)
    return models


@pytest.fixture
def options(models_dir: Path) -> RuntimeOptions:
    return RuntimeOptions(models_dir=str(models_dir), offline=True, device="cpu")


def test_importing_ahead_forgives_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    ahead.import_libraries()
    assert "faster_whisper" in sys.modules


def test_what_is_loaded_ahead_is_what_stages_find(loaded: LoadedModels, options: RuntimeOptions) -> None:
    ahead.load_voices(options)
    ahead.load_speech("tiny.en", options)
    assert len(list(loaded)) == 3
    voices = resolve_diarization("auto", models_dir=options.models_path, offline=True)
    load_segmenter(voices, options.models_path, options)
    load_embedder(voices, options.models_path, options)
    load_whisper(resolve_asr("tiny.en", None, models_dir=options.models_path, offline=True), options.models_path, options)
    assert len(list(loaded)) == 3


def test_a_command_loads_what_its_recording_needs(
    loaded: LoadedModels, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"MODELS_DIR": str(models_dir), "OFFLINE": "1", "MODEL": "tiny.en", "COMPUTE__DEVICE": "cpu"}.items():
        monkeypatch.setenv(f"STENO_{name}", value)
    get_settings.cache_clear()
    settings = get_settings()
    try:
        assert compute.computes_here(settings)
        assert not compute.computes_here(settings, "modal")
        compute.warm_up(settings, "auto", "en", diarize=False)
        assert sorted(key[:2] for key in loaded) == sorted([("segmenter", _voices(models_dir)), ("whisper", "tiny.en")])
        compute.warm_up(settings, "no-such-model", None, diarize=True)
        assert [key[0] for key in loaded] == ["whisper", "segmenter", "embedder"]
    finally:
        get_settings.cache_clear()


def test_weights_on_a_hub_are_not_fetched_ahead(
    loaded: LoadedModels, options: RuntimeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_hub(*names: Any, **options: Any) -> Resolved:
        return Resolved(kind="whisper", name="large-v3", revision="1", origin="hub", location="no/such-repository")

    monkeypatch.setattr("speech.models.resolve_asr", on_hub)
    monkeypatch.setattr("speech.models.resolve_diarization", on_hub)
    ahead.load_speech("large-v3", options, download=False)
    ahead.load_voices(options, download=False)
    assert not list(loaded)
    with pytest.raises(ModelUnavailable):
        ahead.load_speech("large-v3", options.model_copy(update={"offline": True}))


def test_a_model_that_there_is_not_is_said(options: RuntimeOptions) -> None:
    with pytest.raises(UnknownModel):
        ahead.load_speech("no-such-model", options)


def _voices(folder: Path) -> str:
    return resolve_diarization("auto", models_dir=folder, offline=True).name
