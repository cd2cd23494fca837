"""The networks of segmentation and speaker embedding, in the runtime that is fastest here.

On a CPU that is ONNX Runtime: weights are converted once, checked against torch, and kept in `models_dir`; afterwards
neither torch nor pyannote is imported. On a GPU torch runs them in half precision.

A speaker embedding is cut into a *trunk* (features → frames, run once per chunk) and a linear *head* (statistics of a
speaker's frames → embedding), so that one pass serves every speaker of a chunk with the numbers of a pass for each.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from speech.features import FbankOptions
from speech.files import replaced
from speech.registry import Resolved
from speech.runtime import cpu_threads, load_once, resolve_device
from speech.schema import SAMPLE_RATE, RuntimeOptions
from speech.weights import is_as_made, is_noted, made_once, packaged_files, refuse_code, weights_folder
from stenoflow.errors import EngineMissing, StenoError
from stenoflow.types import Frozen

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]

WINDOW = 10 * SAMPLE_RATE
"""Samples of one chunk of segmentation and embedding."""
FBANK_FRAMES = 998
"""10 ms frames of one chunk."""
CONVERSION = 1
"""Raised when converted files change shape or meaning."""
_TOLERANCE = 1e-3
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

    def __call__(self, batch: Floats) -> Floats: ...


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
        """The embedding of frames (channels, n) weighted by weights (n,): weighted mean and deviation, then the head.

        The deviation is unbiased, as in pyannote.audio's `StatsPool`. NaN when the weights hold less than two frames.
        """
        total = float(weights.sum())
        if total < 2.0:
            return np.full(self.bias.shape, np.nan, dtype=np.float32)
        mean = frames @ weights / total
        squares = np.square(frames - mean[:, None]) @ weights
        deviation = np.sqrt(squares / (total - float(np.square(weights).sum()) / total + 1e-8))
        out: Floats = self.weight @ np.concatenate([mean, deviation]) + self.bias
        return out


def load_segmenter(model: Resolved, models_dir: Path, runtime: RuntimeOptions) -> Segmenter:
    """The segmentation network of a diarization model, loaded once per process."""
    device, threads = resolve_device(runtime), cpu_threads(runtime)
    return load_once(
        ("segmenter", model.name, model.revision, device, threads), lambda: _segmenter(model, models_dir, device, threads)
    )


def load_embedder(model: Resolved, models_dir: Path, runtime: RuntimeOptions) -> Embedder:
    """The speaker-embedding network of a diarization model, loaded once per process."""
    device, threads = resolve_device(runtime), cpu_threads(runtime, beside=True)
    return load_once(
        ("embedder", model.name, model.revision, device, threads), lambda: _embedder(model, models_dir, device, threads)
    )


def _segmenter(model: Resolved, models_dir: Path, device: str, threads: int) -> Segmenter:
    weights = diarization_weights(model, models_dir)
    path = _converted(models_dir, model, "segmentation", lambda target: _convert_segmentation(weights, target))
    facts = np.load(path.with_suffix(".npz"), allow_pickle=False)
    network = _network(path, device, threads, lambda: _torch_segmentation(weights.segmentation)[0])
    return Segmenter(network, facts["mapping"], float(facts["frame_step"]), float(facts["frame_duration"]))


def _embedder(model: Resolved, models_dir: Path, device: str, threads: int) -> Embedder:
    weights = diarization_weights(model, models_dir)
    path = _converted(models_dir, model, "embedding", lambda target: _convert_embedding(weights, target))
    facts = np.load(path.with_suffix(".npz"), allow_pickle=False)
    network = _network(path, device, threads, lambda: _torch_trunk(weights)[0])
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

    def __call__(self, batch: Floats) -> Floats:
        out: Floats = self.session.run(None, {"x": np.ascontiguousarray(batch, dtype=np.float32)})[0]
        return out


class TorchNetwork:
    def __init__(self, module: torch.nn.Module, device: str) -> None:
        import torch

        self.device = device
        self.module = module.eval().to(device)
        self._torch = torch

    def __call__(self, batch: Floats) -> Floats:
        torch = self._torch
        with torch.inference_mode(), torch.autocast(self.device, dtype=torch.float16):
            tensor = torch.from_numpy(np.ascontiguousarray(batch, dtype=np.float32)).pin_memory()
            out: Floats = self.module(tensor.to(self.device, non_blocking=True)).float().cpu().numpy()
        return out


def _network(path: Path, device: str, threads: int, module: Any) -> Network:
    return OnnxNetwork(path, threads) if device == "cpu" else TorchNetwork(module(), device)


# -- conversion -------------------------------------------------------------------------------------------------------


def _converted(models_dir: Path, model: Resolved, part: str, convert: Any) -> Path:
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
    module, facts = _torch_segmentation(weights.segmentation)
    _export(module, (2, WINDOW), path, facts)


def _convert_embedding(weights: DiarizationWeights, path: Path) -> None:
    module, facts = _torch_trunk(weights)
    _export(module, (2, FBANK_FRAMES, 80), path, facts)


def _export(module: torch.nn.Module, shape: tuple[int, ...], path: Path, facts: dict[str, Any]) -> None:
    """Write `module` as ONNX with a free batch size, after checking that it gives torch's numbers."""
    import warnings

    import torch

    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.1
    with replaced(path.with_suffix(".npz")) as aside, open(aside, "wb") as file:
        np.savez(file, **facts)
    with replaced(path) as aside, warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (x,),
            str(aside),
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )
        expected = module(x).numpy()
        difference = float(np.abs(OnnxNetwork(aside, 1)(x.numpy()) - expected).max())
        if difference > _TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise StenoError(
                f"The converted {path.stem} differs from the original by {difference:g}; please report this with your versions."
            )


def _torch_segmentation(path: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    import torch

    model = _pyannote_model(path)
    specifications = model.specifications
    if not specifications.powerset:
        raise EngineMissing(f"The segmentation weights {path.name} are not of the powerset kind that this engine reads.")

    class Mono(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.model(x.unsqueeze(1))
            return out

    from pyannote.audio.utils.powerset import Powerset

    mapping = Powerset(len(specifications.classes), specifications.powerset_max_classes).mapping.numpy().astype(np.float32)
    field = model.receptive_field
    return Mono().eval(), {"mapping": mapping, "frame_step": field.step, "frame_duration": field.duration}


def _torch_trunk(weights: DiarizationWeights) -> tuple[torch.nn.Module, dict[str, Any]]:
    import torch

    class Frames(torch.nn.Module):
        def __init__(self, model: torch.nn.Module, frames: Any) -> None:
            super().__init__()
            self.model = model
            self.frames = frames

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.frames(x)
            return out.flatten(1, -2) if out.ndim > 3 else out

    if weights.embedding_network == "campplus":
        from speech.diarize.campplus import load_campplus

        network = load_campplus(weights.embedding)
        linear, norm = network.xvector["dense"].linear, network.xvector["dense"].nonlinear.batchnorm  # type: ignore[union-attr]
        scale = torch.rsqrt(norm.running_var + norm.eps)  # type: ignore[union-attr, operator]
        weight = linear.weight[..., 0] * scale[:, None]  # type: ignore[index, union-attr]
        bias = -norm.running_mean * scale  # type: ignore[union-attr, operator]
        facts = {"weight": weight.detach().numpy(), "bias": bias.detach().numpy(), "window": "povey", "scale": 1.0}
        return Frames(network, network.trunk).eval(), facts
    model = _pyannote_model(weights.embedding)
    head = model.resnet.seg_1
    facts = {"weight": head.weight.detach().numpy(), "bias": head.bias.detach().numpy(), "window": "hamming", "scale": 32768.0}
    return Frames(model.resnet, model.resnet.forward_frames).eval(), facts


def _pyannote_model(path: Path) -> Any:
    """A pyannote checkpoint. Its telemetry stays off, and its complaint about a missing ffmpeg is not ours (PyAV decodes)."""
    import warnings

    os.environ.setdefault("PYANNOTE_METRICS_ENABLED", "0")
    refuse_code(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from pyannote.audio import Model
        except ImportError:
            raise EngineMissing("The speech engine is not installed here", cure="install `stenoflow[engine]`") from None
        return Model.from_pretrained(str(path)).eval()
