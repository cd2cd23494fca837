"""How many chunks Whisper decodes at once: on a GPU as many as its free memory holds, elsewhere as many as are asked for."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from speech.runtime import gpu_free_bytes
from speech.schema import USUAL_BATCH

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

MOST = 64
"""Chunks: beyond that a GPU is full of work, and a stage seldom stops to be cancelled."""
_SHARE = 0.6
"""Of the free memory. What is left is for the networks that find the speakers meanwhile, and for what the estimate does not know."""
_LAYER = re.compile(r"decoder/layer_(\d+)/")
_HEAD_WIDTH = 64
_ENCODER_FRAMES = 1500
_TOKENS = 448


def chunks_at_once(model: WhisperModel, file: Path, known: dict[int, int], beam_size: int, workers: int = 1) -> int:
    """Chunks for each of the `workers` that share a model, for a request that names no number. `file` is its `model.bin`.

    Found once per loaded model, before its allocator holds memory of its own; `known` is what was found, by beam size.
    """
    inner = model.model
    if inner.device == "cpu":
        return USUAL_BATCH
    if beam_size not in known:
        wide = 4 if inner.compute_type.endswith("float32") else 2
        free = gpu_free_bytes()
        known[beam_size] = (
            chunks_that_fit(free, model_width(model), decoder_layers(file), beam_size, wide) if free else USUAL_BATCH
        )
    return max(1, known[beam_size] // workers)


def model_width(model: WhisperModel) -> int:
    """The dimension of the model's states, which CTranslate2 reveals only in encoded output."""
    extract = model.feature_extractor
    silence = np.zeros((1, len(extract.mel_filters), 2 * _ENCODER_FRAMES), dtype=np.float32)
    return int(model.encode(silence).shape[-1])


def decoder_layers(weights: Path) -> int:
    """How deep the decoder is: large-v3 has 32 layers, turbo 4, distilled models 2. Read from the names in CTranslate2's file.

    Its layout (`ctranslate2/specs/model_spec.py`): version, name, revision and count; then for each variable its name, rank, dimensions,
    type, size in bytes, and values.
    """
    deepest = -1
    with weights.open("rb") as file:

        def number(form: str) -> int:
            return int(struct.unpack(f"<{form}", file.read(struct.calcsize(form)))[0])

        number("I")
        file.seek(number("H"), os.SEEK_CUR)
        number("I")
        for _ in range(number("I")):
            name = file.read(number("H")).rstrip(b"\0").decode()
            file.seek(4 * number("B"), os.SEEK_CUR)
            number("B")
            file.seek(number("I"), os.SEEK_CUR)
            if layer := _LAYER.match(name):
                deepest = max(deepest, int(layer[1]))
    return deepest + 1


def chunks_that_fit(free: int, width: int, layers: int, beam_size: int, value_bytes: int = 2) -> int:
    """Chunks whose decoding takes at most `_SHARE` of `free` bytes, 1 to MOST; above the usual batch a multiple of it, as shards are.

    A chunk takes the keys and values of every decoder layer, over the encoder's frames once and over the tokens once per beam, and
    while it is encoded one layer's attention and its widest states.
    """
    keys_and_values = 2 * layers * width * (_ENCODER_FRAMES + beam_size * _TOKENS)
    encoding = width // _HEAD_WIDTH * _ENCODER_FRAMES**2 + 8 * width * _ENCODER_FRAMES
    fitting = int(min(max(free * _SHARE // (value_bytes * (keys_and_values + encoding)), 1), MOST))
    return fitting if fitting < USUAL_BATCH else fitting - fitting % USUAL_BATCH
