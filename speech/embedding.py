"""Speaker embeddings: one per chunk and speaker of the segmentation, from one pass of the network over each chunk."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from speech.audio import Recording
from speech.features import FRAME_SHIFT, fbank
from speech.models import resolve_diarization
from speech.networks import FBANK_FRAMES, WINDOW, Embedder, Floats, load_embedder
from speech.schema import EmbedParams, RuntimeOptions
from speech.segmentation import STEP, Segmentation
from speech.stages import Progress

MIN_CLEAN_SECONDS = 0.5
"""A speaker with less speech of their own in a chunk is embedded from all of it, overlapped speech included."""
_BATCH = {"cpu": 4, "cuda": 64}


class Embeddings(NamedTuple):
    vectors: Floats
    """(chunks, speakers, dimension); NaN where a speaker is silent."""
    model: str
    """Name of the diarization model; it decides how the vectors are clustered."""

    def save(self, path: Path) -> None:
        with open(path, "wb") as file:
            np.savez(file, vectors=self.vectors.astype(np.float32), model=self.model)

    @classmethod
    def load(cls, path: Path) -> Embeddings:
        with np.load(path, allow_pickle=False) as file:
            return cls(file["vectors"], str(file["model"]))


def embed(recording: Recording, segmentation: Segmentation, embedder: Embedder, progress: Progress) -> Floats:
    """(chunks, speakers, dimension) embeddings; only chunks in which someone speaks are looked at."""
    chunks, _, speakers = segmentation.activity.shape
    vectors = np.full((chunks, speakers, len(embedder.bias)), np.nan, dtype=np.float32)
    active = np.flatnonzero(segmentation.activity.any(axis=(1, 2)))
    size = _BATCH[embedder.network.device]
    for first in range(0, len(active), size):
        batch = active[first : first + size]
        features = np.stack([_chunk_features(recording, int(chunk), embedder) for chunk in batch])
        for chunk, frames in zip(batch, embedder.network(features), strict=True):
            for speaker, weights in _weights(segmentation.activity[chunk], frames.shape[-1], segmentation.frame_step):
                vectors[chunk, speaker] = embedder.embed(frames, weights)
        progress((first + len(batch)) / len(active))
    return vectors


def _chunk_features(recording: Recording, chunk: int, embedder: Embedder) -> Floats:
    """(998, 80) features of a chunk, normalised by their mean over the chunk as the networks were trained."""
    samples = recording.read(chunk * STEP, chunk * STEP + WINDOW, pad=True)
    features = fbank(samples, embedder.fbank)
    # A padded tail is not part of the recording: it must not pull the mean.
    present = max(1, min(FBANK_FRAMES, (recording.samples - chunk * STEP) // FRAME_SHIFT - 2))
    out: Floats = features - features[:present].mean(axis=0)
    return out


def _weights(activity: NDArray[np.bool_], frames: int, frame_step: float) -> Iterator[tuple[int, Floats]]:
    """For each active speaker of a chunk, (frames,) weights: their speech without overlap, where there is enough of it."""
    alone = activity & (activity.sum(axis=1, keepdims=True) == 1)
    # Nearest segmentation frame of each frame of the trunk, as `F.interpolate(mode="nearest")` in pyannote's pooling.
    nearest = np.arange(frames) * len(activity) // frames
    for speaker in np.flatnonzero(activity.any(axis=0)):
        own = alone[:, speaker] if alone[:, speaker].sum() * frame_step >= MIN_CLEAN_SECONDS else activity[:, speaker]
        yield int(speaker), own[nearest].astype(np.float32)


def run(
    inputs: Mapping[str, Path], params: EmbedParams, runtime: RuntimeOptions, output: Path, progress: Progress
) -> dict[str, Any]:
    """The `embed` stage: audio and segmentation → embeddings."""
    began = time.perf_counter()
    models_dir = runtime.models_path
    model = resolve_diarization(params.model, models_dir=models_dir, offline=runtime.offline)
    embedder = load_embedder(model, models_dir, runtime)
    loaded = time.perf_counter() - began
    segmentation = Segmentation.load(inputs["segmentation"])
    with Recording(inputs["audio"]) as recording:
        vectors = embed(recording, segmentation, embedder, progress)
    Embeddings(vectors, model.name).save(output)
    return {
        "embeddings": int((~np.isnan(vectors[..., 0])).sum()),
        "load_seconds": round(loaded, 3),
        "device": embedder.network.device,
    }
