from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from speech.audio import Recording, normalise
from speech.diarize.networks import Embedder, Segmenter, load_embedder, load_segmenter
from speech.diarize.segmentation import Segmentation, segment
from speech.models import resolve_diarization
from speech.schema import AudioInfo, RuntimeOptions
from tests import media


@pytest.fixture
def normalised(tmp_path: Path) -> Callable[..., tuple[AudioInfo, Recording]]:
    """Normalise a file, and open what came out."""

    def run(source: Path, **options: object) -> tuple[AudioInfo, Recording]:
        target = tmp_path / "normalised.flac"
        settings: dict[str, object] = {"max_duration": 3600.0, **options}
        info = normalise(source, target, **settings)  # type: ignore[arg-type]
        return info, Recording(target)

    return run


@pytest.fixture
def recorded(tmp_path: Path) -> Callable[[np.ndarray], Path]:
    """Normalise float samples at 16 kHz."""

    def make(samples: np.ndarray, name: str = "recorded") -> Path:
        target = tmp_path / f"{name}.flac"
        normalise(media.wav(tmp_path / f"{name}.wav", samples), target, max_duration=3600.0)
        return target

    return make


@pytest.fixture(scope="session")
def runtime(models_dir: Path) -> RuntimeOptions:
    """One thread of the CPU, no network."""
    return RuntimeOptions(models_dir=str(models_dir), offline=True, threads=1, device="cpu")


@pytest.fixture(scope="session")
def segmenter(models_dir: Path, runtime: RuntimeOptions) -> Segmenter:
    model = resolve_diarization("segmentation-3.0+campplus", models_dir=models_dir, offline=True)
    return load_segmenter(model, models_dir, runtime)


@pytest.fixture(scope="session")
def embedder(models_dir: Path, runtime: RuntimeOptions) -> Embedder:
    model = resolve_diarization("segmentation-3.0+campplus", models_dir=models_dir, offline=True)
    return load_embedder(model, models_dir, runtime)


@pytest.fixture(scope="session")
def call(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pyannote's sample recording, normalised: a real call of two people, 30 s."""
    folder = tmp_path_factory.mktemp("call")
    normalise(media.wav(folder / "call.wav", media.speech()), folder / "call.flac", max_duration=60.0)
    return folder / "call.flac"


@pytest.fixture(scope="session")
def segmented_call(call: Path, segmenter: Segmenter) -> Segmentation:
    with Recording(call) as recording:
        return segment(recording, segmenter, lambda fraction: None)
