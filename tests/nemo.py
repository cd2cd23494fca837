"""Stand-ins for NeMo's ONNX exports, of their true layout: graphs that hear tones as pieces of words, small enough to be made here.

`transducer` is laid out as istupakov/parakeet-tdt-0.6b-v3-onnx, `encoder_decoder` as istupakov/canary-1b-v2-onnx: the same files,
names, types and shapes, subsampling and vocabulary format. The features, the loading and the decoding are onnx-asr's own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RATE = 16_000
PIECES = ("▁al", "pha", "▁be", "ta", "▁gam", "ma", ".")
PITCHES = tuple(400.0 * 1.45**n for n in range(len(PIECES)))
"""Hz of the tone that stands for each piece; among the voice's own, so that speech is heard as pieces, too."""
MELS, SUBSAMPLING = 128, 8
DURATIONS = 5
THRESHOLD = 1.5
"""Standard deviations above a band's mean, which the features are normalised to."""
LANGUAGES = ("en", "fr", "de")
PROMPT = (" ", "<|startofcontext|>", "<|startoftranscript|>", "<|emo:undefined|>", "<|pnc|>", "<|noitn|>")
PROMPT += ("<|notimestamp|>", "<|nodiarize|>", "<|endoftext|>")
F, I32, I64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64


def tones(said: list[tuple[int, float, float]], seconds: float) -> np.ndarray:
    """(samples,) of the pieces, each (index, start, end); noise elsewhere."""
    samples = np.random.default_rng(0).normal(0, 0.02, round(seconds * RATE))
    for piece, start, end in said:
        first, last = round(start * RATE), round(end * RATE)
        time = np.arange(last - first) / RATE
        swell = np.minimum(1, np.minimum(time, end - start - time) / 0.03)
        samples[first:last] += 0.3 * swell * np.sin(2 * np.pi * PITCHES[piece] * time)
    return samples.astype(np.float32)


def transducer(folder: Path, variant: str = "", *, external: bool = True) -> Path:
    """A token-and-duration transducer; `variant` is `.int8` for the files that quantised weights have."""
    folder.mkdir(parents=True, exist_ok=True)
    encoder = _graph(
        [*_pooled(), helper.make_node("Conv", ["pooled", "bands"], ["outputs"]), *_lengths("encoded_lengths")],
        {"audio_signal": (F, ["B", MELS, "T"]), "length": (I64, ["B"])},
        {"outputs": (F, ["B", len(PIECES), "T8"]), "encoded_lengths": (I64, ["B"])},
        {"bands": _bands()[:, :, None], "one": np.array(1), "eight": np.array(SUBSAMPLING)},
    )
    joint = _graph(
        [
            helper.make_node("Reshape", ["encoder_outputs", "flat"], ["scores"]),
            helper.make_node("Equal", ["pieces", "targets"], ["same"]),
            helper.make_node("Cast", ["same"], ["said"], to=F),
            helper.make_node("Mul", ["said", "forbidden"], ["penalty"]),
            helper.make_node("Sub", ["scores", "penalty"], ["tokens"]),
            helper.make_node("Concat", ["tokens", "rest"], ["logits"], axis=1),
            helper.make_node("Reshape", ["logits", "joint_shape"], ["outputs"]),
            helper.make_node("Add", ["input_states_1", "one"], ["output_states_1"]),
            helper.make_node("Add", ["input_states_2", "one"], ["output_states_2"]),
            helper.make_node("Identity", ["target_length"], ["prednet_lengths"]),
        ],
        {
            "encoder_outputs": (F, ["B", len(PIECES), "T8"]),
            "targets": (I32, ["B", "U"]),
            "target_length": (I32, ["B"]),
            "input_states_1": (F, [2, "B", 4]),
            "input_states_2": (F, [2, "B", 4]),
        },
        {
            "outputs": (F, ["B", "T8", "U", len(PIECES) + 1 + DURATIONS]),
            "prednet_lengths": (I32, ["B"]),
            "output_states_1": (F, [2, "B", 4]),
            "output_states_2": (F, [2, "B", 4]),
        },
        {
            "flat": np.array([1, len(PIECES)]),
            "pieces": np.arange(len(PIECES), dtype=np.int32)[None],
            # The same piece is not said twice in a row, which its second frame would be.
            "forbidden": np.array(1000, dtype=np.float32),
            # The blank, and the duration of one frame.
            "rest": np.array([[THRESHOLD, *(float(n == 1) for n in range(DURATIONS))]], dtype=np.float32),
            "joint_shape": np.array([1, 1, 1, -1]),
            "one": np.array(1, dtype=np.float32),
        },
    )
    _save(encoder, folder / f"encoder-model{variant}.onnx", external and not variant)
    _save(joint, folder / f"decoder_joint-model{variant}.onnx", False)
    _describe(folder, "nemo-conformer-tdt", [*PIECES, "<blk>"])
    return folder


def encoder_decoder(folder: Path) -> Path:
    """An attention encoder-decoder: the pieces that are heard, each once, in the order in which they are first heard."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = [*PIECES, *PROMPT, *(f"<|{language}|>" for language in LANGUAGES)]
    end = vocabulary.index("<|endoftext|>")
    encoder = _graph(
        [
            *_pooled(),
            helper.make_node("Conv", ["pooled", "bands"], ["scores"]),
            helper.make_node("Transpose", ["scores"], ["encoder_embeddings"], perm=[0, 2, 1]),
            helper.make_node("ReduceMax", ["encoder_embeddings"], ["top"], axes=[2], keepdims=0),
            helper.make_node("Cast", ["top"], ["whole"], to=I64),
            helper.make_node("Mul", ["whole", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "one"], ["encoder_mask"]),
        ],
        {"audio_signal": (F, ["B", MELS, "T"]), "length": (I64, ["B"])},
        {"encoder_embeddings": (F, ["B", "T8", len(PIECES)]), "encoder_mask": (I64, ["B", "T8"])},
        {"bands": _bands()[:, :, None], "zero": np.array(0), "one": np.array(1)},
    )
    decoder = _graph(
        [
            # When each piece is first heard, and after the end where it is not.
            helper.make_node("Greater", ["encoder_embeddings", "threshold"], ["heard"]),
            helper.make_node("Cast", ["heard"], ["heard_number"], to=F),
            helper.make_node("ArgMax", ["heard_number"], ["first"], axis=1, keepdims=0),
            helper.make_node("Cast", ["first"], ["first_number"], to=F),
            helper.make_node("ReduceMax", ["heard_number"], ["ever"], axes=[1], keepdims=0),
            helper.make_node("Sub", ["certain", "ever"], ["never"]),
            helper.make_node("Mul", ["never", "late"], ["delay"]),
            helper.make_node("Add", ["first_number", "delay"], ["times"]),
            helper.make_node("Concat", ["times", "after_all"], ["times_and_end"], axis=1),
            helper.make_node("TopK", ["times_and_end", "all"], ["sorted", "order"], axis=1, largest=0),
            # The token of this step: as many were said as there are ids and memories beyond the prompt.
            helper.make_node("Shape", ["decoder_mems"], ["mems_shape"]),
            helper.make_node("Gather", ["mems_shape", "two"], ["remembered"]),
            helper.make_node("Shape", ["input_ids"], ["ids_shape"]),
            helper.make_node("Gather", ["ids_shape", "one"], ["given"]),
            helper.make_node("Add", ["remembered", "given"], ["length"]),
            helper.make_node("Sub", ["length", "prompt"], ["step"]),
            helper.make_node("Gather", ["order", "step"], ["place"], axis=1),
            helper.make_node("Gather", ["ids", "place"], ["token"]),
            helper.make_node("OneHot", ["token", "depth", "off_on"], ["one_hot"], axis=-1),
            helper.make_node("Unsqueeze", ["one_hot", "one_axis"], ["last"]),
            helper.make_node("Unsqueeze", ["given", "zero_axis"], ["given_vector"]),
            helper.make_node("Concat", ["batch_one", "given_vector", "batch_one"], ["repeats"], axis=0),
            helper.make_node("Tile", ["last", "repeats"], ["logits"]),
            helper.make_node("Concat", ["zero_axis_2", "zero_axis_2", "given_vector", "zero_axis_2"], ["padding_end"], axis=0),
            helper.make_node("Concat", ["no_padding", "padding_end"], ["padding"], axis=0),
            helper.make_node("Pad", ["decoder_mems", "padding"], ["decoder_hidden_states"]),
        ],
        {
            "input_ids": (I64, ["B", "S"]),
            "encoder_embeddings": (F, ["B", "T8", len(PIECES)]),
            "encoder_mask": (I64, ["B", "T8"]),
            "decoder_mems": (F, [2, "B", "M", 4]),
        },
        {"logits": (F, ["B", "S", len(vocabulary)]), "decoder_hidden_states": (F, [2, "B", "M2", 4])},
        {
            "threshold": np.array(THRESHOLD, dtype=np.float32),
            "certain": np.array(1, dtype=np.float32),
            "late": np.array(1e6, dtype=np.float32),
            "after_all": np.array([[5e5]], dtype=np.float32),
            "all": np.array([len(PIECES) + 1]),
            "ids": np.array([*range(len(PIECES)), end]),
            "one": np.array(1),
            "two": np.array(2),
            "prompt": np.array(10),
            "depth": np.array([len(vocabulary)]),
            "off_on": np.array([-20.0, -0.1], dtype=np.float32),
            "one_axis": np.array([1]),
            "zero_axis": np.array([0]),
            "batch_one": np.array([1]),
            "zero_axis_2": np.array([0]),
            "no_padding": np.array([0, 0, 0, 0]),
        },
    )
    _save(encoder, folder / "encoder-model.onnx", True)
    _save(decoder, folder / "decoder-model.onnx", False)
    _describe(folder, "nemo-conformer-aed", vocabulary)
    return folder


def _pooled() -> list[Any]:
    shape = {"kernel_shape": [SUBSAMPLING], "strides": [SUBSAMPLING], "ceil_mode": 1}
    return [helper.make_node("AveragePool", ["audio_signal"], ["pooled"], **shape)]


def _lengths(name: str) -> list[Any]:
    return [
        helper.make_node("Sub", ["length", "one"], ["before"]),
        helper.make_node("Div", ["before", "eight"], ["steps"]),
        helper.make_node("Add", ["steps", "one"], [name]),
    ]


def _bands() -> np.ndarray:
    """(pieces, mels): the band in which each piece's pitch lies, in NeMo's scale of mels."""
    from onnx_asr.preprocessors.numpy_preprocessor import NemoPreprocessorNumpy

    hear = NemoPreprocessorNumpy(f"nemo{MELS}")
    out = np.zeros((len(PIECES), MELS), dtype=np.float32)
    for piece in range(len(PIECES)):
        samples = tones([(piece, 0.5, 1.0)], 1.5)
        features, _ = hear(samples[None], np.array([len(samples)]))
        out[piece, int(features[0][:, 60:90].mean(axis=1).argmax())] = 1.0
    return out


def _graph(
    nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], constants: dict[str, np.ndarray]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _save(model: onnx.ModelProto, path: Path, external: bool) -> None:
    if external:
        onnx.save_model(model, str(path), save_as_external_data=True, location=f"{path.name}.data", size_threshold=0)
    else:
        onnx.save_model(model, str(path))


def _describe(folder: Path, kind: str, vocabulary: list[str]) -> None:
    config = {"model_type": kind, "features_size": MELS, "subsampling_factor": SUBSAMPLING}
    (folder / "config.json").write_text(json.dumps(config))
    lines = (f"{token.replace(' ', chr(0x2581))} {place}\n" for place, token in enumerate(vocabulary))
    (folder / "vocab.txt").write_text("".join(lines), encoding="utf-8")
