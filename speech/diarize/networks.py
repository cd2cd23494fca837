"""The networks of segmentation and speaker embedding, in the runtime that is fastest here.

On a CPU that is ONNX Runtime: graphs are built from the weights once (`speech.diarize.graphs`) and kept in `models_dir`;
torch is not needed. On a GPU torch runs the networks in half precision (`speech.diarize.torch_networks`).

A speaker embedding is cut into a *trunk* (features → frames, run once per chunk) and a linear *head* (statistics of a
speaker's frames → embedding), so that one pass serves every speaker of a chunk with the numbers of a pass for each.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from speech.checkpoints import read_checkpoint
from speech.diarize import graphs, torch_networks
from speech.features import MEL_BINS, FbankOptions
from speech.files import replaced
from speech.loaded import Room, bytes_in, load_once
from speech.registry import Resolved
from speech.runtime import cpu_threads, resolve_device
from speech.schema import SAMPLE_RATE, RuntimeOptions
from speech.weights import is_as_made, is_noted, made_once, packaged_files, weights_folder
from stenoflow.errors import UnknownModel
from stenoflow.types import Frozen

if TYPE_CHECKING:
    import onnx
    import torch

Floats = NDArray[np.float32]

WINDOW = 10 * SAMPLE_RATE
"""Samples of one chunk of segmentation and embedding."""
FBANK_FRAMES = 998
"""10 ms frames of one chunk."""
CONVERSION = 1
"""Raised when converted files change shape or meaning."""
_FILES = (".onnx", ".npz")


class DiarizationWeights(Frozen):
    """Files of a diarization model."""

    segmentation: Path
    embedding: Path
    embedding_network: str
    """`campplus` or `pyannote` (a checkpoint that pyannote.audio loads, such as WeSpeaker's ResNet34)."""
    plda: Path | None = None
    """Folder with the PLDA that VBx clustering needs; None where clustering is agglomerative."""


def diarization_weights(resolved: Resolved, models_dir: Path) -> DiarizationWeights:
    """The files of a diarization model, verified. Raises ModelUnavailable, GatedModel, ChecksumMismatch."""
    if resolved.origin == "package":
        segmentation, embedding = packaged_files(resolved.name, models_dir).values()
        return DiarizationWeights(segmentation=segmentation, embedding=embedding, embedding_network="campplus")
    folder = weights_folder(resolved, models_dir)
    return DiarizationWeights(
        segmentation=folder / "segmentation" / "pytorch_model.bin",
        embedding=folder / "embedding" / "pytorch_model.bin",
        embedding_network="pyannote",
        plda=folder / "plda",
    )


class Network(Protocol):
    """(batch, …) float32 in, (batch, …) float32 out."""

    device: str

    def send(self, batch: Floats) -> Any:
        """The batch where the network computes; another thread may send the next one while it does."""

    def __call__(self, batch: Any) -> Floats:
        """`batch` is what `send` returned."""


class Segmenter(NamedTuple):
    """(batch, samples) → (batch, frames, powerset classes) log-probabilities."""

    network: Network
    mapping: Floats
    """(powerset classes, speakers): who is active in each class."""
    frame_step: float
    """Seconds between frames."""
    frame_duration: float
    """Seconds of audio one frame sees."""


class Embedder(NamedTuple):
    """(batch, 998, 80) features → (batch, channels, frames); `weight` and `bias` map their statistics to an embedding."""

    network: Network
    weight: Floats
    """(dimension, 2 × channels)"""
    bias: Floats
    """(dimension,)"""
    fbank: FbankOptions

    def embed(self, frames: Floats, weights: Floats) -> Floats:
        """(speakers, dimension) embeddings of frames (channels, n), each weighted by its row of weights (speakers, n): weighted mean and
        deviation, then the head.

        The deviation is unbiased, as in pyannote.audio's `StatsPool`. NaN when the weights hold less than two frames. All speakers'
        sums come from one product each of the frames and of their squares, as differences from their common mean: sums of squares
        lose what a large mean and a small deviation differ by.
        """
        total = np.maximum(weights.sum(axis=1), 1.0)
        common = (frames @ (weights.sum(axis=0) / total.sum()))[:, None]
        apart = frames - common
        mean = apart @ weights.T / total
        np.square(apart, out=apart)
        squares = apart @ weights.T - np.square(mean) * total
        deviation = np.sqrt(np.maximum(squares, 0) / (total - np.square(weights).sum(axis=1) / total + 1e-8))
        out: Floats = (self.weight @ np.concatenate([mean + common, deviation])).T + self.bias
        out[weights.sum(axis=1) < 2.0] = np.nan
        return out


def load_segmenter(model: Resolved, models_dir: Path, runtime: RuntimeOptions) -> Segmenter:
    """The segmentation network of a diarization model, loaded once per process."""
    device, threads = resolve_device(runtime), cpu_threads(runtime)
    return load_once(
        ("segmenter", model.name, model.revision, device),
        lambda room: _segmenter(model, models_dir, device, threads, room),
        device=device,
        threads=threads,
    )


def load_embedder(model: Resolved, models_dir: Path, runtime: RuntimeOptions) -> Embedder:
    """The speaker-embedding network of a diarization model, loaded once per process."""
    device, threads = resolve_device(runtime), cpu_threads(runtime, beside=True)
    return load_once(
        ("embedder", model.name, model.revision, device),
        lambda room: _embedder(model, models_dir, device, threads, room),
        device=device,
        threads=threads,
    )


def _segmenter(model: Resolved, models_dir: Path, device: str, threads: int, room: Room) -> Segmenter:
    weights = diarization_weights(model, models_dir)
    path = _converted(models_dir, model, "segmentation", lambda target: _convert_segmentation(weights, target))
    facts = np.load(path.with_suffix(".npz"), allow_pickle=False)
    room(bytes_in(path))
    network = _network(path, device, threads, lambda: torch_networks.segmentation(weights.segmentation))
    return Segmenter(network, facts["mapping"], float(facts["frame_step"]), float(facts["frame_duration"]))


def _embedder(model: Resolved, models_dir: Path, device: str, threads: int, room: Room) -> Embedder:
    weights = diarization_weights(model, models_dir)
    path = _converted(models_dir, model, "embedding", lambda target: _convert_embedding(weights, target))
    facts = np.load(path.with_suffix(".npz"), allow_pickle=False)
    room(bytes_in(path))
    network = _network(path, device, threads, lambda: torch_networks.trunk(weights.embedding, weights.embedding_network))
    fbank = FbankOptions(window=str(facts["window"]), scale=float(facts["scale"]))
    return Embedder(network, facts["weight"], facts["bias"], fbank)


# -- runtimes ---------------------------------------------------------------------------------------------------------


class OnnxNetwork:
    device = "cpu"

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Idle threads must not spin: other stages share the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # what goes wrong is raised as well
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def send(self, batch: Floats) -> Floats:
        return np.ascontiguousarray(batch, dtype=np.float32)

    def __call__(self, batch: Floats) -> Floats:
        out: Floats = self.session.run(None, {"x": self.send(batch)})[0]
        return out


def _network(path: Path, device: str, threads: int, module: Callable[[], torch.nn.Module]) -> Network:
    return OnnxNetwork(path, threads) if device == "cpu" else torch_networks.TorchNetwork(module(), device)


# -- conversion -------------------------------------------------------------------------------------------------------


def _converted(models_dir: Path, model: Resolved, part: str, convert: Callable[[Path], None]) -> Path:
    """The ONNX file of `part`, made when it is not there yet, or damaged; beside it `.npz` with the part's other numbers."""
    path = models_dir / "onnx" / f"{_stem(model, part)}.onnx"
    made_once(path, _FILES, models_dir, lambda: convert(path))
    return path


def _stem(model: Resolved, part: str) -> str:
    return f"{model.name}-{part}-{model.revision[-40:]}-v{CONVERSION}".replace("/", "_").replace("=", "")


def damaged_conversions(models_dir: Path) -> list[str]:
    """The names of converted files that are not what they were when they were made; they are made again when next used."""
    made = [path for path in (models_dir / "onnx").glob("*.onnx") if is_noted(path)]
    return [path.stem for path in made if not is_as_made(path, _FILES, models_dir)]


def _convert_segmentation(weights: DiarizationWeights, path: Path) -> None:
    checkpoint = _checkpoint(weights.segmentation)
    try:
        specifications = checkpoint["pyannote.audio"]["specifications"].attributes
        speakers, together = len(specifications["classes"]), specifications["powerset_max_classes"]
        stride = checkpoint["hyper_parameters"]["sincnet"]["stride"]
    except (KeyError, TypeError, AttributeError):
        together = None
    if together is None:
        raise UnknownModel(f"The segmentation weights {weights.segmentation.name} are not a powerset PyanNet.")
    step, seen = graphs.pyannet_frames(stride)
    facts = {
        "mapping": powerset(speakers, together),
        "frame_step": step / SAMPLE_RATE,
        "frame_duration": seen / SAMPLE_RATE,
    }
    _keep(graphs.pyannet(checkpoint["state_dict"], WINDOW, stride), facts, path)


def _convert_embedding(weights: DiarizationWeights, path: Path) -> None:
    checkpoint = _checkpoint(weights.embedding)
    facts: dict[str, Any]
    if weights.embedding_network == "campplus":
        model = graphs.campplus(checkpoint, FBANK_FRAMES, MEL_BINS)
        weight, mean, variance = (
            checkpoint[f"xvector.dense.{name}"]
            for name in ("linear.weight", "nonlinear.batchnorm.running_mean", "nonlinear.batchnorm.running_var")
        )
        scale = 1 / np.sqrt(variance + np.float32(graphs.EPSILON))
        facts = {"weight": weight[..., 0] * scale[:, None], "bias": -mean * scale, "window": "povey", "scale": 1.0}
    else:
        state = checkpoint["state_dict"]
        model = graphs.resnet34(state, FBANK_FRAMES, MEL_BINS)
        weight, bias = state["resnet.seg_1.weight"], state["resnet.seg_1.bias"]
        facts = {"weight": weight, "bias": bias, "window": "hamming", "scale": 32768.0}
    _keep(model, facts, path)


def _checkpoint(path: Path) -> dict[str, Any]:
    checkpoint = read_checkpoint(path)
    if not isinstance(checkpoint, dict):
        raise UnknownModel(f"The weights {path.name} contain no network.")
    return checkpoint


def powerset(speakers: int, together: int) -> Floats:
    """(classes, speakers): the sets of at most `together` speakers, the small ones first, as `pyannote.audio.utils.powerset`."""
    sets = [each for size in range(together + 1) for each in combinations(range(speakers), size)]
    return np.array([[speaker in each for speaker in range(speakers)] for each in sets], dtype=np.float32)


def _keep(model: onnx.ModelProto, facts: dict[str, Any], path: Path) -> None:
    with replaced(path.with_suffix(".npz")) as aside, open(aside, "wb") as file:
        np.savez(file, **facts)
    with replaced(path) as aside:
        aside.write_bytes(model.SerializeToString())
