"""Weights of the true shapes of models that no package carries, made on the spot, seeded: what a GPU's speed is measured with.

Speed depends on shapes, not on values, with one exception: how long a text the decoder writes. `Forced` has it write as many tokens
as real speech has. The segmentation is real (segmentation-3.0 and community-1's have the same network), since what is spoken where
decides how much there is to do.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from speech.registry import on_hub

FRAMES, TOKENS = 1500, 448
"""Whisper's positions in its encoder and decoder."""
VOCABULARY = 51_866
"""Of large-v3 and turbo."""


class Depth(NamedTuple):
    """Layers of a Whisper model as wide as large-v3."""

    encoder: int
    decoder: int


WHISPER = {"large-v3-turbo": Depth(32, 4), "large-v3": Depth(32, 32)}
WAV2VEC2_LAYERS = 24
PIPELINE = """\
pipeline:
  name: pyannote.audio.pipelines.SpeakerDiarization
  params:
    clustering: VBxClustering
    segmentation: $model/segmentation
    segmentation_batch_size: 32
    embedding: $model/embedding
    embedding_batch_size: 32
    embedding_exclude_overlap: true
    plda: $model/plda
params:
  clustering: {threshold: 0.6, Fa: 0.07, Fb: 0.8}
  segmentation: {min_duration_off: 0.0}
"""
"""community-1's own, for peers."""


def _random(*shape: int) -> np.ndarray[Any, np.dtype[np.float16]]:
    """Small numbers: a million of them, over and over."""
    block = (0.02 * np.random.default_rng(sum(shape)).standard_normal(1 << 20, dtype=np.float32)).astype(np.float16)
    return np.resize(block, shape)


def whisper(folder: Path, depth: Depth, tokenizer: Path, width: int = 1280, heads: int = 20) -> Path:
    """A CTranslate2 folder with the shapes of large-v3 or turbo; `tokenizer` is the folder of a multilingual Whisper model's."""
    from ctranslate2.specs.whisper_spec import WhisperSpec

    def norm(part: Any) -> None:
        part.gamma, part.beta = np.ones(width, np.float16), np.zeros(width, np.float16)

    def linear(part: Any, out: int, into: int = width, *, bias: bool = True) -> None:
        part.weight = _random(out, into)
        if bias:
            part.bias = np.zeros(out, np.float16)

    def attention(part: Any, *outs: int) -> None:
        norm(part.layer_norm)
        for each, out in zip(part.linear, outs, strict=True):
            linear(each, out)

    def feed_forward(part: Any) -> None:
        norm(part.layer_norm)
        linear(part.linear_0, 4 * width)
        linear(part.linear_1, width, 4 * width)

    spec = WhisperSpec(depth.encoder, heads, depth.decoder, heads)
    for convolution, channels in ((spec.encoder.conv1, 128), (spec.encoder.conv2, width)):
        convolution.weight, convolution.bias = _random(width, channels, 3), np.zeros(width, np.float16)
    spec.encoder.position_encodings.encodings = _random(FRAMES, width)
    for layer in spec.encoder.layer:
        attention(layer.self_attention, 3 * width, width)
        feed_forward(layer.ffn)
    decoder = spec.decoder
    decoder.embeddings.weight = _random(VOCABULARY, width)
    decoder.position_encodings.encodings = _random(TOKENS, width)
    for layer in decoder.layer:
        attention(layer.self_attention, 3 * width, width)
        attention(layer.attention, width, 2 * width, width)
        feed_forward(layer.ffn)
    linear(decoder.projection, VOCABULARY, bias=False)
    norm(spec.encoder.layer_norm)
    norm(decoder.layer_norm)
    known = (tokenizer / "vocabulary.txt").read_text(encoding="utf-8").split("\n")[: VOCABULARY - 1]
    spec.register_vocabulary([*known, *(f"<|more{place}|>" for place in range(VOCABULARY - len(known)))])
    facts = json.loads((tokenizer / "config.json").read_text())
    for name in ("suppress_ids", "suppress_ids_begin", "lang_ids"):
        setattr(spec.config, name, facts[name])
    first = depth.decoder // 2
    spec.config.alignment_heads = [[layer, head] for layer in range(first, depth.decoder) for head in range(0, heads, 4)]
    spec.validate()
    spec.optimize(quantization="float16")
    folder.mkdir(parents=True)
    spec.save(str(folder))
    shutil.copyfile(tokenizer / "tokenizer.json", folder / "tokenizer.json")
    (folder / "preprocessor_config.json").write_text(json.dumps({"feature_size": 128}))
    return folder


def wav2vec2(folder: Path, layers: int = WAV2VEC2_LAYERS) -> Path:
    """A transformers folder with the shapes of wav2vec2-large-xlsr-53."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    torch.manual_seed(0)
    folder.mkdir(parents=True)
    alphabet = ["[PAD]", "[UNK]", "|", "'", *map(chr, range(ord("a"), ord("z") + 1))]
    (folder / "vocab.json").write_text(json.dumps({character: place for place, character in enumerate(alphabet)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), pad_token="[PAD]", unk_token="[UNK]")
    tokenizer.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(
        feature_size=1, sampling_rate=16_000, do_normalize=True, return_attention_mask=True
    ).save_pretrained(folder)
    shape = Wav2Vec2Config(
        hidden_size=1024,
        num_hidden_layers=layers,
        num_attention_heads=16,
        intermediate_size=4096,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        conv_bias=True,
        vocab_size=len(alphabet),
        pad_token_id=0,
    )
    Wav2Vec2ForCTC(shape).save_pretrained(folder)
    return folder


def community_1(hub: Path, segmentation: Path) -> Path:
    """community-1 in a hub's cache: PyanNet with the real weights of `segmentation`, ResNet34 and PLDA of its shapes."""
    from tests import true_shapes

    model = on_hub("community-1")
    repository = hub / f"models--{model.location.replace('/', '--')}"
    folder = repository / "snapshots" / model.revision
    true_shapes.community_1(folder)
    shutil.copyfile(segmentation, folder / "segmentation" / "pytorch_model.bin")
    (folder / "config.yaml").write_text(PIPELINE)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(model.revision)
    return folder


class Forced:
    """CTranslate2's Whisper, which decodes as many tokens as are said in a chunk of real speech, and answers with those tokens.

    The decoder's work is done: it may not end before, and the tokens are replaced after. So is that of the word times, which are
    spread evenly: times at random would have speech decoded again that seems to have no words.
    """

    def __init__(self, model: Any, end: int, said: Sequence[int]) -> None:
        """`end` is the token that ends a text, `said` the tokens of a chunk."""
        self._model, self._end, self._said = model, end, list(said)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, features: Any, prompts: Any, **options: Any) -> list[Any]:
        suppressed = [*(options.get("suppress_tokens") or [-1]), self._end]
        longest = {
            "suppress_tokens": suppressed,
            "max_length": 2 * len(self._said),
        }  # it takes half of that (`src/models/whisper.cc`)
        found = self._model.generate(features, prompts, **{**options, **longest})
        return [SimpleNamespace(sequences_ids=[self._said], scores=[-0.3], no_speech_prob=0.01) for _ in found]

    def align(self, features: Any, start: Any, texts: Sequence[Sequence[int]], frames: Any, **options: Any) -> list[Any]:
        self._model.align(features, start, texts, frames, **options)
        lengths = frames if isinstance(frames, Sequence) else [frames] * len(texts)
        return [_evenly(len(text), length // 2) for text, length in zip(texts, lengths, strict=True)]


def _evenly(tokens: int, frames: int) -> SimpleNamespace:
    """A way through (tokens and the end, frames) that takes each token for as long."""
    steps = max(frames, tokens + 1)
    places = [(step * (tokens + 1) // steps, step * frames // steps) for step in range(steps)]
    return SimpleNamespace(alignments=places, text_token_probs=[0.9] * tokens)


def said(tokenizer: Any, text: str, seconds: float, chunk: float = 28.0) -> list[int]:
    """The tokens of a chunk at the pace of a recording of that text and length."""
    tokens = tokenizer.encode(text, add_special_tokens=False).ids
    return list(islice(cycle(tokens), round(len(tokens) * chunk / seconds)))
