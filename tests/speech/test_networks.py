"""The converted networks give the numbers of the original ones, and are converted once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pyannote.audio.utils.powerset import Powerset

from speech.checkpoints import read_checkpoint
from speech.diarize import graphs, networks, torch_networks
from speech.diarize.campplus import load_campplus
from speech.diarize.networks import DiarizationWeights, Embedder, OnnxNetwork, Segmenter, diarization_weights
from speech.features import fbank
from speech.models import resolve_diarization
from speech.schema import RuntimeOptions
from stenoflow.errors import UnknownModel
from tests import media, true_shapes

WEIGHTS = "segmentation-3.0+campplus"


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> RuntimeOptions:
    """A models folder that is empty, so that what is loaded from it is converted anew."""
    folder = tmp_path_factory.mktemp("models")
    return RuntimeOptions(models_dir=str(folder), offline=True, threads=1, device="cpu")


@pytest.fixture(scope="module")
def segmenter(converted: RuntimeOptions) -> Segmenter:
    folder = converted.models_path
    return networks._segmenter(
        resolve_diarization(WEIGHTS, models_dir=folder, offline=True), folder, "cpu", 1, lambda size: None
    )


@pytest.fixture(scope="module")
def embedder(converted: RuntimeOptions) -> Embedder:
    folder = converted.models_path
    return networks._embedder(
        resolve_diarization(WEIGHTS, models_dir=folder, offline=True), folder, "cpu", 1, lambda size: None
    )


@pytest.fixture(scope="module")
def files(models_dir: Path) -> DiarizationWeights:
    return diarization_weights(resolve_diarization(WEIGHTS, models_dir=models_dir, offline=True), models_dir)


@pytest.fixture(scope="module")
def features(embedder: Embedder) -> np.ndarray:
    """(998, 80) of ten seconds of real speech."""
    found = fbank(media.speech()[10 * 16_000 : 20 * 16_000], embedder.fbank)
    return found - found.mean(axis=0)


def test_trunk_and_pooled_head_are_the_whole_network(
    files: DiarizationWeights, embedder: Embedder, features: np.ndarray
) -> None:
    with torch.inference_mode():
        whole = load_campplus(files.embedding)(torch.from_numpy(features)[None])[0].numpy()
    frames = embedder.network(features[None])[0]
    [apart] = embedder.embed(frames, np.ones((1, frames.shape[-1]), dtype=np.float32))
    assert apart.shape == (192,)
    assert np.abs(apart - whole).max() < 1e-4 * max(1.0, np.abs(whole).max())


def test_the_trunk_gives_pytorchs_numbers(files: DiarizationWeights, embedder: Embedder, features: np.ndarray) -> None:
    module = torch_networks.trunk(files.embedding, "campplus")
    batch = np.stack([features, features[::-1]])
    with torch.inference_mode():
        expected = module(torch.from_numpy(batch)).numpy()
    assert np.abs(embedder.network(batch) - expected).max() < 1e-4


def test_segmentation_gives_pyannotes_numbers(files: DiarizationWeights, segmenter: Segmenter) -> None:
    module = torch_networks.segmentation(files.segmentation)
    model = module.owner
    batch = np.stack([media.speech()[at : at + networks.WINDOW] for at in (0, 8 * 16_000, 20 * 16_000)])
    with torch.inference_mode():
        expected = module(torch.from_numpy(batch)).numpy()
    found = segmenter.network(batch)
    assert np.abs(np.exp(found) - np.exp(expected)).max() < 1e-4
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    assert segmenter.mapping.tolist() == Powerset(3, 2).mapping.tolist()
    assert (segmenter.frame_step, segmenter.frame_duration) == (model.receptive_field.step, model.receptive_field.duration)


@pytest.fixture(scope="module")
def community(tmp_path_factory: pytest.TempPathFactory) -> DiarizationWeights:
    folder = tmp_path_factory.mktemp("community")
    true_shapes.community_1(folder)
    return DiarizationWeights(
        segmentation=folder / "segmentation/pytorch_model.bin",
        embedding=folder / "embedding/pytorch_model.bin",
        embedding_network="pyannote",
    )


@pytest.mark.slow  # imports all of pyannote.audio
def test_community_1s_networks_give_pyannotes_numbers(
    community: DiarizationWeights, features: np.ndarray, tmp_path: Path
) -> None:
    networks._convert_segmentation(community, tmp_path / "segmentation.onnx")
    audio = media.speech()[None, : networks.WINDOW]
    with torch.inference_mode():
        expected = torch_networks.segmentation(community.segmentation)(torch.from_numpy(audio)).numpy()
    assert expected.shape == (1, 589, 11)
    assert np.abs(OnnxNetwork(tmp_path / "segmentation.onnx", 1)(audio) - expected).max() < 1e-4
    networks._convert_embedding(community, tmp_path / "embedding.onnx")
    batch = np.stack([features, features[::-1]])
    with torch.inference_mode():
        expected = torch_networks.trunk(community.embedding, "pyannote")(torch.from_numpy(batch)).numpy()
    assert expected.shape == (2, 2560, 125)
    difference = np.abs(OnnxNetwork(tmp_path / "embedding.onnx", 1)(batch) - expected).max()
    assert difference < 1e-4 * max(1.0, np.abs(expected).max())


def test_weights_of_another_architecture_are_refused(files: DiarizationWeights, tmp_path: Path) -> None:
    swapped = files.model_copy(update={"segmentation": files.embedding, "embedding": files.segmentation})
    with pytest.raises(UnknownModel, match="not a powerset PyanNet"):
        networks._convert_segmentation(swapped, tmp_path / "network.onnx")
    with pytest.raises(UnknownModel, match=r"they lack head\.conv1\.weight"):
        networks._convert_embedding(swapped, tmp_path / "network.onnx")
    state = read_checkpoint(files.segmentation)["state_dict"] | {"attention.weight": np.ones(3, dtype=np.float32)}
    with pytest.raises(UnknownModel, match=r"it has no attention\.weight"):
        graphs.pyannet(state, networks.WINDOW, 10)
    assert list(tmp_path.iterdir()) == []


def test_a_batch_gives_what_one_at_a_time_gives(embedder: Embedder, features: np.ndarray) -> None:
    other = features[::-1].copy()
    both = embedder.network(np.stack([features, other]))
    assert np.abs(both[0] - embedder.network(features[None])[0]).max() < 1e-4
    assert np.abs(both[1] - embedder.network(other[None])[0]).max() < 1e-4


def test_weights_leave_out_what_others_say(embedder: Embedder, features: np.ndarray) -> None:
    frames = embedder.network(features[None])[0]
    half = (np.arange(frames.shape[-1]) < frames.shape[-1] // 2).astype(np.float32)
    assert np.allclose(
        embedder.embed(frames, half[None]),
        embedder.embed(frames[:, half > 0], np.ones((1, int(half.sum())), dtype=np.float32)),
        atol=1e-3,
    )


@pytest.mark.parametrize("heard", [0, 1])
def test_nobody_and_a_single_frame_have_no_embedding(embedder: Embedder, features: np.ndarray, heard: int) -> None:
    frames = embedder.network(features[None])[0]
    weights = (np.arange(frames.shape[-1]) < heard).astype(np.float32)
    assert np.isnan(embedder.embed(frames, weights[None])).all()


_CONVERT = """
import sys
from pathlib import Path
from speech.models import resolve_diarization
from speech.diarize.networks import load_segmenter
from speech.schema import RuntimeOptions
folder = Path(sys.argv[1])
model = resolve_diarization("segmentation-3.0+campplus", models_dir=folder, offline=True)
segmenter = load_segmenter(model, folder, RuntimeOptions(models_dir=str(folder), offline=True, threads=1, device="cpu"))
made = "speech.diarize.graphs" in sys.modules and "onnx" in sys.modules
print(segmenter.mapping.shape, "made" if made else "found", "torch" in sys.modules)
"""


def test_two_processes_convert_once_and_none_needs_torch(tmp_path: Path) -> None:
    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", _CONVERT, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    both = [start(), start()]
    outputs = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sorted(out.split() for out, _ in outputs) == [["(7,", "3)", "found", "False"], ["(7,", "3)", "made", "False"]]
    assert sorted(path.suffix for path in (tmp_path / "onnx").iterdir()) == [".json", ".lock", ".npz", ".onnx"]


def test_an_interrupted_conversion_is_made_again(tmp_path: Path, models_dir: Path) -> None:
    """What a killed process leaves: a lock nobody holds, numbers without a network, and a part under another name."""
    model = resolve_diarization(WEIGHTS, models_dir=models_dir, offline=True)
    calls: list[Path] = []

    def convert(target: Path) -> None:
        calls.append(target)
        graph = graphs.Graph({"weight": np.ones((4, 2), dtype=np.float32)})
        networks._keep(graph.model(graph.add("MatMul", "x", graph.weight("weight")), (3, 4)), {"weight": np.ones(1)}, target)

    path = networks._converted(tmp_path, model, "part", convert)
    path.rename(path.with_name(f".{path.name}.left"))
    assert networks._converted(tmp_path, model, "part", convert) == path
    assert networks._converted(tmp_path, model, "part", convert) == path
    assert calls == [path, path]
    assert OnnxNetwork(path, 1)(np.zeros((5, 3, 4), dtype=np.float32)).shape == (5, 3, 2)
