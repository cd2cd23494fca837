"""A language of tones: one pitch a letter. A tiny wav2vec2 learns to read it in seconds, so that alignment can be tested for real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

RATE = 16_000
LETTERS = "abcdefgh"
VOCABULARY = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, **{letter: 5 + i for i, letter in enumerate(LETTERS)}}
NOTE, REST = 0.12, 0.2
"""Seconds of a letter, and of the silence between words."""
FRAME = 320
"""Samples of one frame of the model."""


class Spoken(NamedTuple):
    samples: np.ndarray
    words: list[tuple[str, float, float]]
    letters: list[tuple[str, float]]
    """Each character, word separators included, with its onset."""


def speak(text: str, generator: np.random.Generator, lead: float = 0.3) -> Spoken:
    """Tones for a text of LETTERS and spaces; a letter that has no pitch is a hiss."""
    samples = [np.zeros(round(lead * RATE))]
    words: list[tuple[str, float, float]] = []
    letters: list[tuple[str, float]] = []
    at = lead
    for word in text.split():
        if words:
            letters.append(("|", at))
            samples.append(np.zeros(round(REST * RATE)))
            at += REST
        begin = at
        for letter in word:
            letters.append((letter, at))
            time = np.arange(round(NOTE * RATE)) / RATE
            pitch = 300 * 1.3 ** LETTERS.index(letter) if letter in LETTERS else 0
            tone = np.sin(2 * np.pi * pitch * time) if pitch else generator.normal(0, 0.5, len(time))
            samples.append(0.4 * tone * np.minimum(1, np.minimum(time, NOTE - time) / 0.01))
            at += NOTE
        words.append((word, begin, at))
    samples.append(np.zeros(round(0.4 * RATE)))
    joined = np.concatenate(samples)
    return Spoken((joined + generator.normal(0, 0.003, len(joined))).astype(np.float32), words, letters)


def random_text(generator: np.random.Generator, words: int, letters: str = LETTERS) -> str:
    return " ".join("".join(generator.choice(list(letters), size=generator.integers(2, 5))) for _ in range(words))


def train(folder: Path, steps: int = 300) -> Path:
    """A Wav2Vec2ForCTC in Hugging Face's layout that labels each tone's first frames, and blank elsewhere.

    Its convolutions stay as they are drawn, random filters are enough to tell pitches apart; the rest takes seconds to train.
    """
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC, Wav2Vec2Processor

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(VOCABULARY))
    extractor = Wav2Vec2FeatureExtractor(feature_size=1, sampling_rate=RATE, do_normalize=False)
    Wav2Vec2Processor(extractor, Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))).save_pretrained(folder)
    torch.manual_seed(0)
    model = Wav2Vec2ForCTC(
        Wav2Vec2Config(
            vocab_size=len(VOCABULARY),
            hidden_size=64,
            num_hidden_layers=0,
            num_attention_heads=2,
            intermediate_size=64,
            conv_dim=(64,) * 7,
            feat_extract_norm="layer",
            num_conv_pos_embeddings=8,
            num_conv_pos_embedding_groups=2,
            hidden_dropout=0.0,
            feat_proj_dropout=0.0,
            final_dropout=0.0,
            mask_time_prob=0.0,
            apply_spec_augment=False,
        )
    ).eval()
    inner = model.wav2vec2
    heard, labels = _examples(inner.feature_extractor)
    parameters = [parameter for name, parameter in model.named_parameters() if "feature_extractor" not in name]
    optimizer = torch.optim.AdamW(parameters)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for _ in range(steps):
        batch = torch.randint(0, len(heard), (16,))
        logits = model.lm_head(inner.encoder(inner.feature_projection(heard[batch])[0]).last_hidden_state)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[batch].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.save_pretrained(folder)
    return folder


def _examples(extract: Any) -> tuple[Any, Any]:
    """(examples, frames, channels) features and (examples, frames) labels, cut to the shortest."""
    import torch

    generator = np.random.default_rng(1)
    features, labels = [], []
    for _ in range(40):
        item = speak(random_text(generator, 5, LETTERS + "0"), generator, lead=float(generator.uniform(0.1, 0.5)))
        with torch.no_grad():
            features.append(extract(torch.from_numpy(item.samples)[None])[0].T)
        target = torch.zeros(len(features[-1]), dtype=torch.long)
        for letter, onset in item.letters:
            frame = round(onset * RATE / FRAME)
            target[frame : frame + 2] = VOCABULARY.get(letter, VOCABULARY["<unk>"])
        labels.append(target)
    frames = min(len(target) for target in labels)
    return torch.stack([item[:frames] for item in features]), torch.stack([item[:frames] for item in labels])
