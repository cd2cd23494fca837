"""The speaker networks as ONNX graphs, built from their weights alone: no PyTorch, no tracing.

Each function takes a state dict by the names that the network's authors gave, and returns the graph for a batch of any size.
A graph that leaves a tensor of the state dict unused, or misses one, is of another architecture and raises UnknownModel, as
PyTorch's strict loading would. Operators are those of ONNX opset 17.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stenoflow.errors import UnknownModel

if TYPE_CHECKING:
    import onnx

_OPSET, _IR = 17, 8
EPSILON = 1e-5
"""PyTorch's default in its normalisations."""
SINC_KERNEL = 251
"""Samples of a SincNet filter."""
SEGMENT_FRAMES = 100
"""Frames of one segment of CAM++'s context pooling (in the trunk's halved frame rate)."""


class Graph:
    """An ONNX graph under construction; values are known by name."""

    def __init__(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._state = dict(state)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, NDArray[Any]] = {}

    def has(self, name: str) -> bool:
        return name in self._state

    def weight(self, name: str) -> NDArray[Any]:
        """A tensor of the state dict, each taken once."""
        try:
            return self._state.pop(name)
        except KeyError:
            raise UnknownModel(f"The weights are not of the network that this engine reads: they lack {name}.") from None

    def constant(self, array: NDArray[Any]) -> str:
        name = f"c{len(self._constants)}"
        self._constants[name] = np.ascontiguousarray(array)
        return name

    def add(self, operator: str, *inputs: str | NDArray[Any], **attributes: Any) -> str:
        """The name of what `operator` makes of values and constants."""
        from onnx import helper

        names = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        name = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, names, [name], name=name, **attributes))
        return name

    def batch_norm(self, x: str, prefix: str) -> str:
        parts = (self.weight(f"{prefix}.{name}") for name in ("weight", "bias", "running_mean", "running_var"))
        out = self.add("BatchNormalization", x, *parts, epsilon=EPSILON)
        self._state.pop(f"{prefix}.num_batches_tracked", None)
        return out

    def model(self, output: str, shape: tuple[int, ...], unused: tuple[str, ...] = ()) -> onnx.ModelProto:
        """The model of (batch, *shape) float32 `x`, which ends in `output`. Tensors that begin with one of `unused` may be left."""
        from onnx import TensorProto, helper, numpy_helper

        left = [name for name in self._state if not name.startswith(unused or ("\0",))]
        if left:
            raise UnknownModel(f"The weights are not of the network that this engine reads: it has no {left[0]}.")
        self._nodes.append(helper.make_node("Identity", [output], ["y"], name="y"))
        graph = helper.make_graph(
            self._nodes,
            "network",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", None, None])],
            [numpy_helper.from_array(array, name) for name, array in self._constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)


def _ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


# -- PyanNet ------------------------------------------------------------------------------------------------------------


def pyannet(state: Mapping[str, NDArray[Any]], samples: int, stride: int) -> onnx.ModelProto:
    """pyannote.audio's `PyanNet`: (batch, samples) → (batch, frames, classes) log-probabilities. `stride` is SincNet's."""
    graph = Graph(state)

    def instance_norm(x: str, prefix: str) -> str:
        scale, bias = graph.weight(f"{prefix}.weight"), graph.weight(f"{prefix}.bias")
        return graph.add("InstanceNormalization", x, scale, bias, epsilon=EPSILON)

    x = instance_norm(graph.add("Unsqueeze", "x", _ints(1)), "sincnet.wav_norm1d")
    for layer in range(3):
        if layer == 0:
            x = graph.add("Abs", graph.add("Conv", x, _sinc_filters(graph), strides=[stride]))
        else:
            x = graph.add("Conv", x, *(graph.weight(f"sincnet.conv1d.{layer}.{name}") for name in ("weight", "bias")))
        x = graph.add("MaxPool", x, kernel_shape=[3], strides=[3])
        x = graph.add("LeakyRelu", instance_norm(x, f"sincnet.norm1d.{layer}"), alpha=0.01)
    x = graph.add("Transpose", x, perm=[2, 0, 1])  # (frames, batch, features), as ONNX's LSTM has it
    layer = 0
    while graph.has(f"lstm.weight_ih_l{layer}"):
        x = _lstm(graph, x, layer)
        layer += 1
    layer = 0
    while graph.has(f"linear.{layer}.weight"):
        x = graph.add("LeakyRelu", _linear(graph, x, f"linear.{layer}"), alpha=0.01)
        layer += 1
    x = graph.add("LogSoftmax", _linear(graph, x, "classifier"), axis=-1)
    return graph.model(graph.add("Transpose", x, perm=[1, 0, 2]), (samples,))


def _linear(graph: Graph, x: str, prefix: str) -> str:
    product = graph.add("MatMul", x, graph.weight(f"{prefix}.weight").T)
    return graph.add("Add", product, graph.weight(f"{prefix}.bias"))


def _lstm(graph: Graph, x: str, layer: int) -> str:
    """A bidirectional layer: (frames, batch, features) → (frames, batch, 2 × hidden)."""
    directions = [f"l{layer}", f"l{layer}_reverse"]

    def gates(name: str) -> list[NDArray[Any]]:
        """In ONNX's order, input, output, forget, cell; PyTorch's is input, forget, cell, output."""
        parts = (np.split(graph.weight(f"lstm.{name}_{direction}"), 4) for direction in directions)
        return [np.concatenate([part[gate] for gate in (0, 3, 1, 2)]) for part in parts]

    inputs, recurrent = np.stack(gates("weight_ih")), np.stack(gates("weight_hh"))
    biases = np.concatenate([gates("bias_ih"), gates("bias_hh")], axis=1)
    hidden = recurrent.shape[-1]
    x = graph.add("LSTM", x, inputs, recurrent, biases, hidden_size=hidden, direction="bidirectional")
    return graph.add("Reshape", graph.add("Transpose", x, perm=[0, 2, 1, 3]), _ints(0, 0, 2 * hidden))


def _sinc_filters(graph: Graph) -> NDArray[np.float32]:
    """(filters, 1, 251): `asteroid_filterbanks.ParamSincFB.filters`, band-pass filters and their odd counterparts."""
    low_hz, band_hz, window, time = (
        graph.weight(f"sincnet.conv1d.0.filterbank.{name}") for name in ("low_hz_", "band_hz_", "window_", "n_")
    )
    low = 50 + np.abs(low_hz)
    high = np.clip(low + 50 + np.abs(band_hz), 50, 8000)
    band = high - low
    left_even = (np.sin(high @ time) - np.sin(low @ time)) / (time / 2) * window
    left_odd = (np.cos(low @ time) - np.cos(high @ time)) / (time / 2) * window
    even = np.concatenate([left_even, 2 * band, left_even[:, ::-1]], axis=1)
    odd = np.concatenate([left_odd, np.zeros_like(band), -left_odd[:, ::-1]], axis=1)
    filters: NDArray[np.float32] = (np.concatenate([even, odd]) / (2 * np.concatenate([band, band])))[:, None]
    return filters


def pyannet_frames(stride: int) -> tuple[int, int]:
    """Samples between PyanNet's frames, and samples that one frame sees (`SincNet.receptive_field_size`)."""
    seen, step = 1, 1
    for kernel, by in ((3, 3), (5, 1), (3, 3), (5, 1), (3, 3), (SINC_KERNEL, stride)):
        seen, step = (seen - 1) * by + kernel, step * by
    return step, seen


# -- speaker embedding ----------------------------------------------------------------------------------------------------


def resnet34(state: Mapping[str, NDArray[Any]], frames: int, mels: int) -> onnx.ModelProto:
    """The trunk of WeSpeaker's ResNet34: (batch, frames, mels) → (batch, channels × mels / 8, frames / 8)."""
    graph = Graph(state)
    x = graph.add("Unsqueeze", graph.add("Transpose", "x", perm=[0, 2, 1]), _ints(1))
    x = graph.add("Relu", _conv_norm(graph, x, "resnet.conv1", "resnet.bn1", (1, 1)))
    for layer, stride in enumerate((1, 2, 2, 2), start=1):
        x = _blocks(graph, x, f"resnet.layer{layer}", (stride, stride))
    return graph.model(_merge_frequency(graph, x), (frames, mels), unused=("resnet.seg_",))


def campplus(state: Mapping[str, NDArray[Any]], frames: int, mels: int) -> onnx.ModelProto:
    """The trunk of CAM++ (`speech.diarize.campplus`): (batch, frames, mels) → (batch, 512, frames / 2)."""
    graph = Graph(state)
    x = graph.add("Unsqueeze", graph.add("Transpose", "x", perm=[0, 2, 1]), _ints(1))
    x = graph.add("Relu", _conv_norm(graph, x, "head.conv1", "head.bn1", (1, 1)))
    for layer in (1, 2):
        x = _blocks(graph, x, f"head.layer{layer}", (2, 1))
    x = graph.add("Relu", _conv_norm(graph, x, "head.conv2", "head.bn2", (2, 1)))
    x = _merge_frequency(graph, x)
    x = graph.add("Conv", x, graph.weight("xvector.tdnn.linear.weight"), strides=[2], pads=[2, 2])
    x = _norm_relu(graph, x, "xvector.tdnn.nonlinear")
    segments = _Segments(graph, (frames + 1) // 2)
    for block, dilation in ((1, 1), (2, 2), (3, 2)):
        layer = 1
        while graph.has(f"xvector.block{block}.tdnnd{layer}.linear1.weight"):
            grown = _dense_layer(graph, x, f"xvector.block{block}.tdnnd{layer}", dilation, segments)
            x = graph.add("Concat", x, grown, axis=1)
            layer += 1
        x = _norm_relu(graph, x, f"xvector.transit{block}.nonlinear")
        x = graph.add("Conv", x, graph.weight(f"xvector.transit{block}.linear.weight"))
    return graph.model(_norm_relu(graph, x, "xvector.out_nonlinear"), (frames, mels), unused=("xvector.dense.",))


class _Segments:
    """Means over CAM++'s segments, and a segment's value given to each of its frames. The last segment may be shorter."""

    def __init__(self, graph: Graph, frames: int) -> None:
        segment = np.arange(frames) // SEGMENT_FRAMES
        shares = (segment[:, None] == np.arange(segment[-1] + 1)).astype(np.float32)
        # The mean over a segment, and that over all frames on top of it.
        self._means = graph.constant((shares / shares.sum(axis=0) + 1 / frames).astype(np.float32))
        self._segment = graph.constant(segment.astype(np.int64))
        self._graph = graph

    def means(self, x: str) -> str:
        """(batch, channels, frames) → (batch, channels, segments)."""
        return self._graph.add("MatMul", x, self._means)

    def spread(self, x: str) -> str:
        """(batch, channels, segments) → (batch, channels, frames)."""
        return self._graph.add("Gather", x, self._segment, axis=2)


def _dense_layer(graph: Graph, x: str, prefix: str, dilation: int, segments: _Segments) -> str:
    """A bottleneck, then a convolution whose output is scaled by a mask that depends on the segment alone."""
    x = graph.add("Conv", _norm_relu(graph, x, f"{prefix}.nonlinear1"), graph.weight(f"{prefix}.linear1.weight"))
    x = _norm_relu(graph, x, f"{prefix}.nonlinear2")
    masked = f"{prefix}.cam_layer"
    local = graph.weight(f"{masked}.linear_local.weight")
    out = graph.add("Conv", x, local, pads=[dilation, dilation], dilations=[dilation])
    mask = segments.means(x)
    mask = graph.add(
        "Relu", graph.add("Conv", mask, *(graph.weight(f"{masked}.linear1.{part}") for part in ("weight", "bias")))
    )
    mask = graph.add("Conv", mask, *(graph.weight(f"{masked}.linear2.{part}") for part in ("weight", "bias")))
    return graph.add("Mul", out, segments.spread(graph.add("Sigmoid", mask)))


def _norm_relu(graph: Graph, x: str, prefix: str) -> str:
    return graph.add("Relu", graph.batch_norm(x, f"{prefix}.batchnorm"))


def _conv_norm(graph: Graph, x: str, conv: str, norm: str, strides: tuple[int, int]) -> str:
    """A 2-D convolution of (batch, channels, mels, frames) that keeps the size but for its strides, normalised."""
    weight = graph.weight(f"{conv}.weight")
    pad = weight.shape[-1] // 2
    return graph.batch_norm(graph.add("Conv", x, weight, strides=list(strides), pads=[pad] * 4), norm)


def _blocks(graph: Graph, x: str, prefix: str, strides: tuple[int, int]) -> str:
    """A layer of residual blocks; the first one has the strides."""
    block = 0
    while graph.has(f"{prefix}.{block}.conv1.weight"):
        at, first = f"{prefix}.{block}", strides if block == 0 else (1, 1)
        out = graph.add("Relu", _conv_norm(graph, x, f"{at}.conv1", f"{at}.bn1", first))
        out = _conv_norm(graph, out, f"{at}.conv2", f"{at}.bn2", (1, 1))
        if graph.has(f"{at}.shortcut.0.weight"):
            x = _conv_norm(graph, x, f"{at}.shortcut.0", f"{at}.shortcut.1", first)
        x = graph.add("Relu", graph.add("Add", out, x))
        block += 1
    return x


def _merge_frequency(graph: Graph, x: str) -> str:
    """(batch, channels, mels, frames) → (batch, channels × mels, frames)."""
    shape = graph.add("Shape", x)
    batch = graph.add("Slice", shape, _ints(0), _ints(1))
    frames = graph.add("Slice", shape, _ints(3), _ints(4))
    return graph.add("Reshape", x, graph.add("Concat", batch, _ints(-1), frames, axis=0))
