"""Each second of speech goes through the embedding network once, and every chunk's speakers are pooled from what it gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from speech.audio import Recording
from speech.diarize.embedding import BLOCK, embed, spoken_blocks
from speech.diarize.networks import WINDOW, Embedder, Floats, Segmenter
from speech.diarize.segmentation import STEP, Segmentation, segment
from speech.features import fbank
from tests import media

RATE = 16_000


class Counted:
    """The network, counting what it is asked."""

    def __init__(self, embedder: Embedder) -> None:
        self.network, self.device, self.blocks = embedder.network, embedder.network.device, 0
        self.send = embedder.network.send

    def __call__(self, batch: Floats) -> Floats:
        self.blocks += len(batch)
        return self.network(batch)


def embedded(audio: Path, segmentation: Segmentation, embedder: Embedder) -> tuple[Floats, int]:
    counted = Counted(embedder)
    with Recording(audio) as recording:
        vectors, _ = embed(recording, segmentation, embedder._replace(network=counted), lambda fraction: None)
    return vectors, counted.blocks


def segmented(audio: Path, segmenter: Segmenter) -> Segmentation:
    with Recording(audio) as recording:
        return segment(recording, segmenter, lambda fraction: None)


def test_a_call_is_looked_at_once(call: Path, segmented_call: Segmentation, embedder: Embedder) -> None:
    vectors, blocks = embedded(call, segmented_call, embedder)
    assert len(segmented_call.activity) == 9
    assert blocks == -(-segmented_call.samples // BLOCK) == 4
    active = segmented_call.activity.any(axis=1)
    assert not np.isnan(vectors[active]).any()
    assert np.isnan(vectors[~active]).all()


def test_ten_seconds_are_the_network_over_them(recorded: Callable[..., Path], segmenter: Segmenter, embedder: Embedder) -> None:
    samples = media.speech()[10 * RATE : 10 * RATE + WINDOW]
    audio = recorded(samples)
    segmentation = segmented(audio, segmenter)
    vectors, _ = embedded(audio, segmentation, embedder)
    with Recording(audio) as recording:
        features = fbank(recording.read(0, WINDOW), embedder.fbank)
    frames = embedder.network((features - features.mean(axis=0))[None])[0]
    activity = segmentation.activity[0]
    alone = activity & (activity.sum(axis=1, keepdims=True) == 1)
    for speaker in np.flatnonzero(alone.sum(axis=0) > 60):
        weights = alone[np.arange(frames.shape[1]) * len(alone) // frames.shape[1], speaker].astype(np.float32)
        whole = embedder.embed(frames, weights[None])[0]
        similarity = whole @ vectors[0, speaker] / np.linalg.norm(whole) / np.linalg.norm(vectors[0, speaker])
        assert similarity > 0.99


def test_long_silence_is_not_looked_at(recorded: Callable[..., Path], segmenter: Segmenter, embedder: Embedder) -> None:
    speech, silence = media.speech()[: 9 * RATE], np.zeros(60 * RATE, dtype=np.float32)
    audio = recorded(np.concatenate([speech, silence, speech]))
    segmentation = segmented(audio, segmenter)
    _, blocks = embedded(audio, segmentation, embedder)
    assert blocks == len(spoken_blocks(segmentation.activity)) <= 4


@pytest.mark.parametrize("chunk", [0, 1, 4, 27])
def test_blocks_are_those_in_which_someone_speaks(chunk: int) -> None:
    activity = np.zeros((40, 500, 3), dtype=np.bool_)
    activity[chunk, 100:150, 1] = True
    spoken = chunk * STEP + np.array([100, 150]) * WINDOW / 500
    assert spoken_blocks(activity).tolist() == sorted(set((spoken // BLOCK).astype(int).tolist()))
