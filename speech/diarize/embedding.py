"""Speaker embeddings: one per chunk and speaker of the segmentation, and one per piece, from one pass of the network over the recording."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from speech.audio import Recording
from speech.diarize.networks import FBANK_FRAMES, WINDOW, Embedder, Floats, load_embedder
from speech.diarize.pieces import NO_PIECES, SpeechPieces, cut, nearest_chunks
from speech.diarize.segmentation import STEP, Segmentation
from speech.features import FRAME_SHIFT, fbank
from speech.models import resolve_diarization
from speech.pipelined import pipelined
from speech.schema import SAMPLE_RATE, WHOLE, EmbedParams, RuntimeOptions, Shard, part_of
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
    pieces: SpeechPieces = NO_PIECES

    def save(self, path: Path) -> None:
        with open(path, "wb") as file:
            np.savez(
                file,
                vectors=self.vectors.astype(np.float32),
                model=self.model,
                spans=self.pieces.spans,
                pieces=self.pieces.vectors.astype(np.float32),
            )

    @classmethod
    def load(cls, path: Path) -> Embeddings:
        with reading(path), np.load(path, allow_pickle=False) as file:
            return cls(file["vectors"], str(file["model"]), SpeechPieces(file["spans"], file["pieces"]))


def embed(
    recording: Recording, segmentation: Segmentation, embedder: Embedder, progress: Progress, shard: Shard = WHOLE
) -> tuple[Floats, SpeechPieces]:
    """(chunks, speakers, dimension) embeddings, and those of the pieces; only chunks in which someone speaks are looked at, and of those the shard's.

    Chunks overlap by three quarters. The network goes over the audio once, in blocks that do not, and each chunk's speakers
    are pooled from the frames of the blocks that it touches; a piece is pooled with the chunk in whose middle it lies.
    """
    chunks, _, speakers = segmentation.activity.shape
    vectors = np.full((chunks, speakers, len(embedder.bias)), np.nan, dtype=np.float32)
    active = np.flatnonzero(segmentation.activity.any(axis=(1, 2)))
    begin, end = part_of(len(active), shard, max(_BATCH.values()))
    spans = cut(segmentation)
    pieces = SpeechPieces(spans, np.full((len(spans), len(embedder.bias)), np.nan, dtype=np.float32))
    blocks = spoken_blocks(segmentation.activity)
    pooling = _Pooling(segmentation, embedder, active[begin:end].tolist(), blocks, vectors, pieces)
    batches = _batches(recording, embedder, pooling.needed(_BATCH[embedder.network.device]))
    answers = pipelined(
        batches,
        lambda batch: (batch[0], embedder.network(batch[1])),
        lambda answer: pooling.add(*answer),
        embedder.network.device,
    )
    for left in answers:
        progress(1 - left / (end - begin))
    return vectors, pieces


def spoken_blocks(activity: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The blocks in which someone speaks, ascending; `activity` is (chunks, frames, speakers)."""
    chunk, frame = np.nonzero(activity.any(axis=2))
    edges = [chunk * STEP + (frame + side) * WINDOW // activity.shape[1] for side in (0, 1)]
    return np.unique(np.concatenate(edges) // BLOCK)


def _batches(
    recording: Recording, embedder: Embedder, batches: Iterable[NDArray[np.int64]]
) -> Iterator[tuple[NDArray[np.int64], Any]]:
    """Batches of blocks, each with what the network is given of them."""
    for blocks in batches:
        yield blocks, embedder.network.send(np.stack([_features(recording, embedder, int(block)) for block in blocks]))


def _features(recording: Recording, embedder: Embedder, block: int) -> Floats:
    """(998, 80) features of a block, normalised by their mean over the block as the networks were trained."""
    first = block * BLOCK
    features = fbank(recording.read(first, first + WINDOW, pad=True), embedder.fbank)
    # A padded tail is not part of the recording: it must not pull the mean.
    present = max(1, min(FBANK_FRAMES, (recording.samples - first) // FRAME_SHIFT - 2))
    out: Floats = features - features[:present].mean(axis=0)
    return out


class _Pooling:
    """The embeddings of chunks, in ascending order, from the blocks that they touch; a block is kept while a chunk may need it."""

    def __init__(
        self,
        segmentation: Segmentation,
        embedder: Embedder,
        chunks: Sequence[int],
        blocks: NDArray[np.int64],
        vectors: Floats,
        pieces: SpeechPieces,
    ) -> None:
        self._segmentation = segmentation
        self._embedder = embedder
        self._blocks = blocks
        self._vectors = vectors
        self._pieces = pieces
        self._nearest = nearest_chunks(segmentation, pieces.spans)
        spoken = set(blocks.tolist())
        near = {chunk: range(chunk * STEP // BLOCK, (chunk * STEP + WINDOW - 1) // BLOCK + 1) for chunk in chunks}
        self._waiting = deque((chunk, [block for block in near[chunk] if block in spoken]) for chunk in chunks)
        self._kept: dict[int, Floats] = {}

    def needed(self, size: int) -> Iterator[NDArray[np.int64]]:
        """The blocks of these chunks in batches, the same whatever a shard begins with: sums of floats depend on what they are
        batched with."""
        wanted = {block for _, blocks in self._waiting for block in blocks}
        for first in range(0, len(self._blocks), size):
            batch = self._blocks[first : first + size]
            if not wanted.isdisjoint(batch.tolist()):
                yield batch

    def add(self, blocks: NDArray[np.int64], frames: Floats) -> int:
        """Embed the chunks whose last block is there; how many are left."""
        self._kept.update(zip(blocks.tolist(), frames, strict=True))
        while self._waiting and self._waiting[0][1][-1] <= blocks[-1]:
            self._embed(*self._waiting.popleft())
        first = self._waiting[0][1][0] if self._waiting else np.inf
        self._kept = {block: kept for block, kept in self._kept.items() if block >= first}
        return len(self._waiting)

    def _embed(self, chunk: int, blocks: Sequence[int]) -> None:
        parts: list[Floats] = []
        places: list[NDArray[np.float64]] = []
        for block in blocks:
            frames = self._kept[block]
            place = (block * BLOCK - chunk * STEP + (np.arange(frames.shape[1]) + 0.5) * BLOCK / frames.shape[1]) / WINDOW
            inside = slice(*np.searchsorted(place, (0, 1)))
            parts.append(frames[:, inside])
            places.append(place[inside])
        activity = self._segmentation.activity[chunk]
        speakers, own = _speakers(activity, self._segmentation.frame_step)
        # Nearest segmentation frame of each frame of the trunk, as `F.interpolate(mode="nearest")` in pyannote's pooling.
        frames, place = np.concatenate(parts, axis=1), np.concatenate(places)
        weights = own[(place * len(activity)).astype(np.int64)].T
        self._vectors[chunk, speakers] = self._embedder.embed(frames, weights)
        for piece in range(*np.searchsorted(self._nearest, (chunk, chunk + 1))):
            inside = slice(*np.searchsorted(place, (self._pieces.spans[piece] * SAMPLE_RATE - chunk * STEP) / WINDOW))
            ones = np.ones((1, inside.stop - inside.start), dtype=np.float32)
            self._pieces.vectors[piece] = self._embedder.embed(frames[:, inside], ones)[0]


def _speakers(activity: NDArray[np.bool_], frame_step: float) -> tuple[NDArray[np.int64], Floats]:
    """The active speakers of a chunk, and (frames, speakers) weights: their speech without overlap, where there is enough of it."""
    speakers = np.flatnonzero(activity.any(axis=0))
    alone = activity & (activity.sum(axis=1, keepdims=True) == 1)
    enough = alone.sum(axis=0) * frame_step >= MIN_CLEAN_SECONDS
    return speakers, np.where(enough, alone, activity)[:, speakers].astype(np.float32)


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
        np.savez(
            file,
            shape=shape,
            rows=rows,
            vectors=embeddings.vectors[rows],
            model=embeddings.model,
            spans=embeddings.pieces.spans,
            pieces=embeddings.pieces.vectors,
        )
    return facts


def combine(
    inputs: Mapping[str, Path], params: EmbedParams, runtime: RuntimeOptions, parts: Sequence[Path], output: Path
) -> dict[str, Any]:
    """The embeddings of all shards' chunks."""
    vectors, model, pieces = np.zeros((0, 0, 0), dtype=np.float32), "", NO_PIECES
    for part in parts:
        with reading(part), np.load(part, allow_pickle=False) as file:
            if not model:
                vectors, model = np.full(file["shape"], np.nan, dtype=np.float32), str(file["model"])
                pieces = SpeechPieces(file["spans"], file["pieces"])
            vectors[file["rows"]] = file["vectors"]
            found = ~np.isnan(file["pieces"]).any(axis=1)
            pieces.vectors[found] = file["pieces"][found]
    return _keep(Embeddings(vectors, model, pieces), output)


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
        vectors, pieces = embed(recording, segmentation, embedder, progress, shard)
    return Embeddings(vectors, model.name, pieces), {"load_seconds": round(loaded, 3), "device": embedder.network.device}


def _keep(embeddings: Embeddings, output: Path) -> dict[str, Any]:
    embeddings.save(output)
    return {"embeddings": int((~np.isnan(embeddings.vectors[..., 0])).sum())}
