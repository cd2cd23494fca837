"""Speaker embeddings: one per chunk and speaker of the segmentation, from one pass of the network over each chunk."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from speech.audio import Recording
from speech.features import FRAME_SHIFT, fbank
from speech.models import resolve_diarization
from speech.networks import FBANK_FRAMES, WINDOW, Embedder, Floats, load_embedder
from speech.schema import EmbedParams, RuntimeOptions, Shard
from speech.segmentation import STEP, Segmentation
from speech.shards import WHOLE, part_of
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


def embed(
    recording: Recording, segmentation: Segmentation, embedder: Embedder, progress: Progress, shard: Shard = WHOLE
) -> Floats:
    """(chunks, speakers, dimension) embeddings; only chunks in which someone speaks are looked at, and of those the shard's."""
    chunks, _, speakers = segmentation.activity.shape
    vectors = np.full((chunks, speakers, len(embedder.bias)), np.nan, dtype=np.float32)
    active = np.flatnonzero(segmentation.activity.any(axis=(1, 2)))
    begin, end = part_of(len(active), shard, max(_BATCH.values()))
    size = _BATCH[embedder.network.device]
    for first in range(begin, end, size):
        batch = active[first : min(first + size, end)]
        features = np.stack([_chunk_features(recording, int(chunk), embedder) for chunk in batch])
        for chunk, frames in zip(batch, embedder.network(features), strict=True):
            for speaker, weights in _weights(segmentation.activity[chunk], frames.shape[-1], segmentation.frame_step):
                vectors[chunk, speaker] = embedder.embed(frames, weights)
        progress((first + len(batch) - begin) / (end - begin))
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
    embeddings, facts = _embedded(inputs, params, runtime, progress, WHOLE)
    return _keep(embeddings, output) | facts


def run_shard(
    inputs: Mapping[str, Path],
    params: EmbedParams,
    runtime: RuntimeOptions,
    output: Path,
    progress: Progress,
    shard: Shard,
) -> dict[str, Any]:
    """The embeddings of the shard's chunks."""
    embeddings, facts = _embedded(inputs, params, runtime, progress, shard)
    rows = np.flatnonzero(~np.isnan(embeddings.vectors).all(axis=(1, 2)))
    with open(output, "wb") as file:
        shape = embeddings.vectors.shape
        np.savez(file, shape=shape, rows=rows, vectors=embeddings.vectors[rows], model=embeddings.model)
    return facts


def combine(
    inputs: Mapping[str, Path], params: EmbedParams, runtime: RuntimeOptions, parts: Sequence[Path], output: Path
) -> dict[str, Any]:
    """The embeddings of all shards' chunks."""
    vectors, model = np.zeros((0, 0, 0), dtype=np.float32), ""
    for part in parts:
        with np.load(part, allow_pickle=False) as file:
            if not model:
                vectors, model = np.full(file["shape"], np.nan, dtype=np.float32), str(file["model"])
            vectors[file["rows"]] = file["vectors"]
    return _keep(Embeddings(vectors, model), output)


def _embedded(
    inputs: Mapping[str, Path], params: EmbedParams, runtime: RuntimeOptions, progress: Progress, shard: Shard
) -> tuple[Embeddings, dict[str, Any]]:
    began = time.perf_counter()
    models_dir = runtime.models_path
    model = resolve_diarization(params.model, models_dir=models_dir, offline=runtime.offline)
    embedder = load_embedder(model, models_dir, runtime)
    loaded = time.perf_counter() - began
    segmentation = Segmentation.load(inputs["segmentation"])
    with Recording(inputs["audio"]) as recording:
        vectors = embed(recording, segmentation, embedder, progress, shard)
    return Embeddings(vectors, model.name), {"load_seconds": round(loaded, 3), "device": embedder.network.device}


def _keep(embeddings: Embeddings, output: Path) -> dict[str, Any]:
    embeddings.save(output)
    return {"embeddings": int((~np.isnan(embeddings.vectors[..., 0])).sum())}
