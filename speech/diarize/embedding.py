"""Speaker embeddings: one per chunk and speaker of the segmentation, from one pass of the network over the recording."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from speech.audio import Recording
from speech.diarize.networks import FBANK_FRAMES, WINDOW, Embedder, Floats, load_embedder
from speech.diarize.segmentation import STEP, Segmentation
from speech.features import FRAME_SHIFT, fbank
from speech.models import resolve_diarization
from speech.schema import WHOLE, EmbedParams, RuntimeOptions, Shard, part_of
from speech.stages import Progress
from speech.stored import reading

MIN_CLEAN_SECONDS = 0.5
"""A speaker with less speech of their own in a chunk is embedded from all of it, overlapped speech included."""
BLOCK = FBANK_FRAMES * FRAME_SHIFT
"""Samples between the blocks that the network sees: their frames of features follow each other without a gap or an overlap. Chunks
would be four times as many. A frame hears its neighbours as far as its block reaches, as it did in its chunk."""
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
        with reading(path), np.load(path, allow_pickle=False) as file:
            return cls(file["vectors"], str(file["model"]))


def embed(
    recording: Recording, segmentation: Segmentation, embedder: Embedder, progress: Progress, shard: Shard = WHOLE
) -> Floats:
    """(chunks, speakers, dimension) embeddings; only chunks in which someone speaks are looked at, and of those the shard's.

    Chunks overlap by three quarters. The network goes over the audio once, in blocks that do not, and each chunk's speakers
    are pooled from the frames of the blocks that it touches.
    """
    chunks, _, speakers = segmentation.activity.shape
    vectors = np.full((chunks, speakers, len(embedder.bias)), np.nan, dtype=np.float32)
    active = np.flatnonzero(segmentation.activity.any(axis=(1, 2)))
    begin, end = part_of(len(active), shard, max(_BATCH.values()))
    trunk = _Trunk(recording, embedder, spoken_blocks(segmentation.activity))
    for done, chunk in enumerate(active[begin:end], start=1):
        frames, places = trunk.frames(int(chunk) * STEP)
        activity = segmentation.activity[chunk]
        for speaker, own in _speakers(activity, segmentation.frame_step):
            # Nearest segmentation frame of each frame of the trunk, as `F.interpolate(mode="nearest")` in pyannote's pooling.
            weights = own[(places * len(activity)).astype(np.int64)]
            vectors[chunk, speaker] = embedder.embed(frames, weights)
        progress(done / (end - begin))
    return vectors


def spoken_blocks(activity: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The blocks in which someone speaks, ascending; `activity` is (chunks, frames, speakers)."""
    chunk, frame = np.nonzero(activity.any(axis=2))
    edges = [chunk * STEP + (frame + side) * WINDOW // activity.shape[1] for side in (0, 1)]
    return np.unique(np.concatenate(edges) // BLOCK)


class _Trunk:
    """The network's frames of a recording: each block computed once, in batches, and kept while a chunk may need it."""

    def __init__(self, recording: Recording, embedder: Embedder, blocks: NDArray[np.int64]) -> None:
        self._recording = recording
        self._embedder = embedder
        size = _BATCH[embedder.network.device]
        # The same whatever a shard begins with: sums of floats depend on what they are batched with.
        self._batch = {int(block): blocks[at // size * size :][:size] for at, block in enumerate(blocks)}
        self._kept: dict[int, Floats] = {}

    def frames(self, start: int) -> tuple[Floats, Floats]:
        """(channels, frames) of the blocks in the chunk at sample `start`, those without speech left out, and (frames,) where
        in the chunk each frame is, 0…1. Chunks are asked for in ascending order."""
        near = range(start // BLOCK, (start + WINDOW - 1) // BLOCK + 1)
        self._kept = {block: frames for block, frames in self._kept.items() if block >= near[0]}
        parts: list[Floats] = []
        places: list[NDArray[np.float64]] = []
        for block in near:
            if block not in self._batch:
                continue
            if block not in self._kept:
                self._compute(self._batch[block])
            frames = self._kept[block]
            place = (block * BLOCK - start + (np.arange(frames.shape[1]) + 0.5) * BLOCK / frames.shape[1]) / WINDOW
            inside = (place >= 0) & (place < 1)
            parts.append(frames[:, inside])
            places.append(place[inside])
        return np.concatenate(parts, axis=1), np.concatenate(places)

    def _compute(self, blocks: NDArray[np.int64]) -> None:
        features = np.stack([self._features(int(block)) for block in blocks])
        self._kept.update(zip(map(int, blocks), self._embedder.network(features), strict=True))

    def _features(self, block: int) -> Floats:
        """(998, 80) features of a block, normalised by their mean over the block as the networks were trained."""
        first = block * BLOCK
        features = fbank(self._recording.read(first, first + WINDOW, pad=True), self._embedder.fbank)
        # A padded tail is not part of the recording: it must not pull the mean.
        present = max(1, min(FBANK_FRAMES, (self._recording.samples - first) // FRAME_SHIFT - 2))
        out: Floats = features - features[:present].mean(axis=0)
        return out


def _speakers(activity: NDArray[np.bool_], frame_step: float) -> Iterator[tuple[int, Floats]]:
    """For each active speaker of a chunk, (frames,) weights: their speech without overlap, where there is enough of it."""
    alone = activity & (activity.sum(axis=1, keepdims=True) == 1)
    for speaker in np.flatnonzero(activity.any(axis=0)):
        own = alone[:, speaker] if alone[:, speaker].sum() * frame_step >= MIN_CLEAN_SECONDS else activity[:, speaker]
        yield int(speaker), own.astype(np.float32)


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
        with reading(part), np.load(part, allow_pickle=False) as file:
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
