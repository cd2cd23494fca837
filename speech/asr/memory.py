"""How many chunks Whisper decodes at once: on a GPU as many as its free memory holds, elsewhere as many as are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from speech.runtime import load_once
from speech.schema import USUAL_BATCH
from stenoflow.types import ModelInfo

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

MOST = 64
"""Chunks: beyond that a GPU is full of work, and a stage seldom stops to be cancelled."""
_SHARE = 0.6
"""Of the free memory. What is left is for the networks that find the speakers meanwhile, and for what the estimate does not know."""
_DECODER_LAYERS = {384: 4, 512: 6, 768: 12, 1024: 24, 1280: 32}
"""Of OpenAI's models, by width (`whisper/model.py`). Distilled ones have fewer, so that what is counted for them is too much."""
_HEAD_WIDTH = 64
_ENCODER_FRAMES = 1500
_TOKENS = 448


def chunks_at_once(model: WhisperModel, info: ModelInfo, beam_size: int, workers: int = 1) -> int:
    """Chunks for each of the `workers` that share a model, for a request that names no number.

    Found once per loaded model, before its allocator holds memory of its own.
    """
    inner = model.model
    if inner.device == "cpu":
        return USUAL_BATCH

    def found() -> int:
        import torch

        free, _ = torch.cuda.mem_get_info()
        wide = 4 if inner.compute_type.endswith("float32") else 2
        return chunks_that_fit(free, model_width(model), beam_size, wide)

    return max(1, load_once(("chunks at once", info.name, info.revision, inner.compute_type, beam_size), found) // workers)


def model_width(model: WhisperModel) -> int:
    """The dimension of the model's states, which CTranslate2 tells of what it has encoded alone."""
    extract = model.feature_extractor
    silence = np.zeros((1, len(extract.mel_filters), 2 * _ENCODER_FRAMES), dtype=np.float32)
    return int(model.encode(silence).shape[-1])


def chunks_that_fit(free: int, width: int, beam_size: int, value_bytes: int = 2) -> int:
    """Chunks whose decoding takes at most `_SHARE` of `free` bytes, 1 to MOST; above the usual batch a multiple of it, as shards are.

    A chunk takes the keys and values of every decoder layer, over the encoder's frames once and over the tokens once per beam, and
    while it is encoded one layer's attention and its widest states.
    """
    layers = _DECODER_LAYERS.get(width, max(_DECODER_LAYERS.values()))
    keys_and_values = 2 * layers * width * (_ENCODER_FRAMES + beam_size * _TOKENS)
    encoding = width // _HEAD_WIDTH * _ENCODER_FRAMES**2 + 8 * width * _ENCODER_FRAMES
    fitting = int(min(max(free * _SHARE // (value_bytes * (keys_and_values + encoding)), 1), MOST))
    return fitting if fitting < USUAL_BATCH else fitting - fitting % USUAL_BATCH
