"""What a container loads before its first call: what the calls will ask for, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.on_modal import about, weights
from infra.on_modal.contract import WARMED
from infra.settings import get_settings
from speech.loaded import MODELS, LoadedModels
from speech.registry import default_aligner
from tests import true_shapes

pytestmark = pytest.mark.slow


class Notes(dict[str, Any]):
    """The app's dict, whose containers note what they can fetch."""


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Notes:
    notes = Notes()
    monkeypatch.setattr(about, "_notes", lambda settings: notes)
    monkeypatch.setattr(weights, "commit", lambda: None)
    return notes


@pytest.fixture
def container(tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoadedModels]:
    """Its folder of weights, with the aligners of two languages, and what it has loaded."""
    shutil.copytree(models_dir, tmp_path / "models", symlinks=True)
    for language in ("en", "fr"):
        true_shapes.torchaudio_aligner(str(default_aligner(language)), tmp_path / "models")
    for name, value in {"MODELS_DIR": str(tmp_path / "models"), "MODEL": "base", "MODAL__GPU": '["L4"]'}.items():
        monkeypatch.setenv(f"STENO_{name}", value)
    get_settings.cache_clear()
    MODELS.let_go()
    yield MODELS
    MODELS.let_go()
    get_settings.cache_clear()


def aligners(loaded: LoadedModels) -> list[str]:
    return [key[1] for key in loaded if key[0] == "wav2vec2"]


def test_a_container_loads_the_aligners_of_the_languages_it_was_warmed_for(notes: Notes, container: LoadedModels) -> None:
    rows = weights.warm(["base"], ["fr"])
    assert [row["model"] for row in rows if "error" not in row] == ["asr base", "diarization", "alignment fr"]
    assert notes[WARMED] == ["fr"]
    container.let_go()
    weights.load_speech()
    assert {key[0] for key in container} == {"whisper", "wav2vec2"}
    assert aligners(container) == [default_aligner("fr")]


def test_warming_for_no_language_keeps_those_of_before(notes: Notes, container: LoadedModels) -> None:
    about.expect(get_settings().modal, ["en"])
    weights.warm(["base"], [])
    container.let_go()
    weights.load_speech()
    assert aligners(container) == [default_aligner("en")]


def test_no_aligner_is_loaded_that_no_call_asks_for(
    notes: Notes, container: LoadedModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers on CPUs time words by attention, unless a request names a model."""
    about.expect(get_settings().modal, ["en"])
    monkeypatch.setenv("STENO_MODAL__GPU", "[]")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    get_settings.cache_clear()
    weights.load_speech()
    assert aligners(container) == []
