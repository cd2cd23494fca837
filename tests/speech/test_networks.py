"""The converted networks give the numbers of the original ones, and are converted once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from speech.diarize import networks
from speech.diarize.campplus import load_campplus
from speech.diarize.networks import Embedder, OnnxNetwork, Segmenter, diarization_weights
from speech.features import fbank
from speech.models import resolve_diarization
from stenoflow.errors import StenoError
from tests import media

WEIGHTS = "segmentation-3.0+campplus"


@pytest.fixture(scope="module")
def features(embedder: Embedder) -> np.ndarray:
    """(998, 80) of ten seconds of real speech."""
    found = fbank(media.speech()[10 * 16_000 : 20 * 16_000], embedder.fbank)
    return found - found.mean(axis=0)


def test_trunk_and_pooled_head_are_the_whole_network(models_dir: Path, embedder: Embedder, features: np.ndarray) -> None:
    files = diarization_weights(resolve_diarization(WEIGHTS, models_dir=models_dir, offline=True), models_dir)
    with torch.inference_mode():
        whole = load_campplus(files.embedding)(torch.from_numpy(features)[None])[0].numpy()
    frames = embedder.network(features[None])[0]
    apart = embedder.embed(frames, np.ones(frames.shape[-1], dtype=np.float32))
    assert apart.shape == (192,)
    assert np.abs(apart - whole).max() < 1e-4 * max(1.0, np.abs(whole).max())


def test_segmentation_equals_pyannotes_model(models_dir: Path, segmenter: Segmenter) -> None:
    files = diarization_weights(resolve_diarization(WEIGHTS, models_dir=models_dir, offline=True), models_dir)
    module, facts = networks._torch_segmentation(files.segmentation)
    batch = np.stack([media.speech()[at : at + networks.WINDOW] for at in (0, 8 * 16_000, 20 * 16_000)])
    with torch.inference_mode():
        expected = module(torch.from_numpy(batch)).numpy()
    assert np.abs(np.exp(segmenter.network(batch)) - np.exp(expected)).max() < 1e-3
    assert segmenter.mapping.tolist() == facts["mapping"].tolist()
    assert (segmenter.frame_step, segmenter.frame_duration) == (facts["frame_step"], facts["frame_duration"])


def test_a_batch_gives_what_one_at_a_time_gives(embedder: Embedder, features: np.ndarray) -> None:
    other = features[::-1].copy()
    both = embedder.network(np.stack([features, other]))
    assert np.abs(both[0] - embedder.network(features[None])[0]).max() < 1e-4
    assert np.abs(both[1] - embedder.network(other[None])[0]).max() < 1e-4


def test_weights_leave_out_what_others_say(embedder: Embedder, features: np.ndarray) -> None:
    frames = embedder.network(features[None])[0]
    half = (np.arange(frames.shape[-1]) < frames.shape[-1] // 2).astype(np.float32)
    assert np.allclose(
        embedder.embed(frames, half), embedder.embed(frames[:, half > 0], np.ones(int(half.sum()), dtype=np.float32)), atol=1e-3
    )


@pytest.mark.parametrize("heard", [0, 1])
def test_nobody_and_a_single_frame_have_no_embedding(embedder: Embedder, features: np.ndarray, heard: int) -> None:
    frames = embedder.network(features[None])[0]
    weights = (np.arange(frames.shape[-1]) < heard).astype(np.float32)
    assert np.isnan(embedder.embed(frames, weights)).all()


_CONVERT = """
import sys
from pathlib import Path
from speech.models import resolve_diarization
from speech.diarize.networks import load_segmenter
from speech.schema import RuntimeOptions
folder = Path(sys.argv[1])
model = resolve_diarization("segmentation-3.0+campplus", models_dir=folder, offline=True)
segmenter = load_segmenter(model, folder, RuntimeOptions(models_dir=str(folder), offline=True, threads=1, device="cpu"))
print(segmenter.mapping.shape, "torch" in sys.modules)
"""


@pytest.mark.slow
def test_two_processes_convert_once_and_a_third_needs_no_torch(tmp_path: Path) -> None:
    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", _CONVERT, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    both = [start(), start()]
    outputs = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    converted = sorted(out.split()[-1] for out, _ in outputs)
    assert converted == ["False", "True"]
    assert start().communicate(timeout=120)[0].split() == ["(7,", "3)", "False"]
    assert sorted(path.suffix for path in (tmp_path / "onnx").iterdir()) == [".json", ".lock", ".npz", ".onnx"]


def test_a_conversion_that_differs_is_never_kept(tmp_path: Path) -> None:
    class Forgetful(torch.nn.Module):
        """Remembers the number it saw while it was traced."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + float(torch.rand(())) * 100

    with pytest.raises(StenoError, match="differs from the original"):
        networks._export(Forgetful().eval(), (2, 4), tmp_path / "odd.onnx", {"weight": np.ones(1)})
    assert not (tmp_path / "odd.onnx").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["odd.npz"]


def test_an_interrupted_conversion_is_made_again(tmp_path: Path, models_dir: Path) -> None:
    """What a killed process leaves: a lock nobody holds, numbers without a network, and a part under another name."""
    model = resolve_diarization(WEIGHTS, models_dir=models_dir, offline=True)
    calls: list[Path] = []

    def convert(target: Path) -> None:
        calls.append(target)
        networks._export(torch.nn.Linear(4, 2).eval(), (2, 4), target, {"weight": np.ones(1)})

    path = networks._converted(tmp_path, model, "part", convert)
    path.rename(path.with_name(f".{path.name}.left"))
    assert networks._converted(tmp_path, model, "part", convert) == path
    assert networks._converted(tmp_path, model, "part", convert) == path
    assert calls == [path, path]
    assert OnnxNetwork(path, 1)(np.zeros((3, 4), dtype=np.float32)).shape == (3, 2)
