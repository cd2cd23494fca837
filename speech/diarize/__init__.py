"""Speaker turns: from a segmentation and its clustered embeddings, or straight from the audio by a diarizer that is end to end.

A diarizer is a module here and an entry of `speech.registry.ENGINES`. With `load_segmenter` and `load_embedder` (as
`speech.diarize.networks`) it tells voices apart on a segmentation, and another number of speakers only clusters again; with a
`load` that gives an `EndToEnd` it takes the audio alone.
"""

from __future__ import annotations

import importlib
import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from speech.audio import Recording
from speech.diarize.clustering import Votes, cluster
from speech.diarize.embedding import Embeddings
from speech.diarize.networks import diarization_weights
from speech.diarize.pieces import NO_PIECES, SpeechPieces
from speech.diarize.segmentation import Segmentation
from speech.models import require, resolve_diarization
from speech.registry import Resolved
from speech.schema import ClusterParams, Diarization, DiarizeParams, RuntimeOptions
from speech.stages import Progress
from stenoflow.types import ModelInfo, Turn


class EndToEnd(Protocol):
    """A loaded diarizer that takes the audio alone."""

    device: str
    """`cpu` or `cuda`."""

    def turns(self, recording: Recording, params: ClusterParams, progress: Progress) -> list[tuple[float, float, int]]:
        """(start, end, voice) of every turn in seconds; those of different voices may overlap."""


def load(model: Resolved, runtime: RuntimeOptions) -> EndToEnd:
    """The diarizer, loaded once per process. Raises as `speech.asr.load` does."""
    require(model.engine)
    diarizer: EndToEnd = importlib.import_module(model.engine.module).load(model, runtime)
    return diarizer


MAX_GAP = 0.1
"""Pauses of one speaker up to this many seconds do not end a turn."""
MIN_TURN = 0.05
"""Turns shorter than this many seconds (three frames) are segmentation noise."""
_BLOCK = 1 << 14
"""Frames worked on at once, about five minutes: ten hours and sixty clusters took 2.4 GB when they were all."""


def diarize(
    segmentation: Segmentation,
    vectors: NDArray[np.float32],
    params: ClusterParams,
    plda: Path | None,
    pieces: SpeechPieces = NO_PIECES,
) -> Diarization:
    """Turns of named speakers, `SPEAKER_00` being who speaks first.

    `turns` may overlap where several speak at once; `exclusive_turns` never do.
    """
    if not segmentation.activity.any():
        return Diarization(
            turns=(), exclusive_turns=(), speakers=(), warnings=("No speech was found, so there are no speakers.",)
        )
    clusters = cluster(segmentation.activity, vectors, params, plda, pieces)
    found = clusters.labels, len(clusters.centroids), params, clusters.confidence, clusters.votes
    turns, exclusive = labelled_turns(segmentation, *found)
    return _diarization(turns, exclusive, clusters.centroids, params)


def _diarization(
    turns: list[tuple[float, float, int]],
    exclusive: list[tuple[float, float, int]],
    centroids: NDArray[np.float32] | None,
    params: ClusterParams,
) -> Diarization:
    order = list(dict.fromkeys(speaker for _, _, speaker in sorted(turns)))
    names = {speaker: f"SPEAKER_{i:02d}" for i, speaker in enumerate(order)}
    centroids = centroids if centroids is not None else np.zeros((0, 0), dtype=np.float32)
    return Diarization(
        turns=_named(turns, names),
        exclusive_turns=_named([turn for turn in exclusive if turn[2] in names], names),
        speakers=tuple(names.values()),
        speaker_embeddings={names[k]: tuple(round(float(v), 6) for v in centroids[k]) for k in order if k < len(centroids)},
        warnings=_warnings(len(order), params),
    )


def without_overlap(turns: list[tuple[float, float, int]]) -> list[tuple[float, float, int]]:
    """The turns cut so that no two overlap: where several speak, whoever began last does."""
    cuts = sorted({time for start, end, _ in turns for time in (start, end)})
    parts: list[tuple[float, float, int]] = []
    for start, end in itertools.pairwise(cuts):
        speaking = [turn for turn in turns if turn[0] <= start and turn[1] >= end]
        if not speaking:
            continue
        voice = max(speaking)[2]
        if parts and parts[-1][1:] == (start, voice):
            parts[-1] = (parts[-1][0], end, voice)
        else:
            parts.append((start, end, voice))
    return parts


def labelled_turns(
    segmentation: Segmentation,
    labels: NDArray[np.int64],
    clusters: int,
    params: ClusterParams,
    confidence: NDArray[np.float32] | None = None,
    votes: Votes | None = None,
) -> tuple[list[tuple[float, float, int]], list[tuple[float, float, int]]]:
    """(start, end, cluster) of every turn, and of those of the likelier speaker only.

    `labels` is (chunks, speakers), and so is `confidence`: how much each chunk's word counts, all alike by default. `votes`
    are the pieces'.
    """
    if confidence is None:
        confidence = np.ones(labels.shape, dtype=np.float32)
    most = params.num_speakers or params.max_speakers or None
    active, exclusive = _active(segmentation, labels, clusters, confidence, most, votes)
    return _turns(segmentation, active), _turns(segmentation, exclusive, exclusive=True)


def _active(
    segmentation: Segmentation,
    labels: NDArray[np.int64],
    clusters: int,
    confidence: NDArray[np.float32],
    most: int | None,
    votes: Votes | None,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(frames, clusters) in the recording's frames: who is active, and who alone is where only one may be.

    At most `most` speak at once. Computed in blocks of frames, so that what is held of a long recording is one bit of
    information per frame and cluster rather than several numbers.
    """
    chunks, frames, _ = segmentation.activity.shape
    total = segmentation.chunk_frame(chunks - 1) + frames
    active = np.zeros((total, clusters), dtype=np.bool_)
    exclusive = np.zeros((total, clusters), dtype=np.bool_)
    for first in range(0, total, _BLOCK):
        block = slice(first, min(first + _BLOCK, total))
        support, count = _frame_support(segmentation, labels, clusters, confidence, block)
        if votes is not None:
            _count_votes(support, votes, segmentation, block)
        if most is not None:
            count = np.minimum(count, most)
        rank = _rank(support)
        active[block] = (rank < count[:, None]) & (support > 0)
        exclusive[block] = (rank < np.minimum(count, 1)[:, None]) & (support > 0)
    return active, exclusive


def _frame_support(
    segmentation: Segmentation,
    labels: NDArray[np.int64],
    clusters: int,
    confidence: NDArray[np.float32],
    block: slice | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """In the recording's frames, or a block of them, (frames, clusters) the confidence of the chunks that hear each speaker,
    and (frames,) how many speak at once."""
    chunks, frames, _ = segmentation.activity.shape
    starts = np.array([segmentation.chunk_frame(chunk) for chunk in range(chunks)])
    block = block or slice(0, int(starts[-1]) + frames)
    length = block.stop - block.start
    support = np.zeros((length, clusters), dtype=np.float32)
    speakers = np.zeros(length, dtype=np.float32)
    seen = np.zeros(length, dtype=np.float32)
    for chunk in range(*np.searchsorted(starts, (block.start - frames + 1, block.stop))):
        start = int(starts[chunk])
        first, last = max(start, block.start), min(start + frames, block.stop)
        window, heard = slice(first - block.start, last - block.start), slice(first - start, last - start)
        activity = segmentation.activity[chunk, heard]
        seen[window] += 1
        speakers[window] += activity.sum(axis=1)
        for k in np.unique(labels[chunk][labels[chunk] >= 0]):
            own = labels[chunk] == k
            support[window, k] += (activity[:, own] * confidence[chunk, own]).max(axis=1)
    return support, np.rint(speakers / np.maximum(seen, 1)).astype(np.int64)


def _count_votes(support: NDArray[np.float32], votes: Votes, segmentation: Segmentation, block: slice) -> None:
    """Add the pieces' votes to the block's (frames, clusters) support."""
    frames = np.rint((votes.spans - segmentation.frame_duration / 2) / segmentation.frame_step).astype(np.int64) - block.start
    for piece in range(*np.searchsorted(frames.mean(axis=1), (-_BLOCK, 2 * _BLOCK))):
        first, last = np.clip(frames[piece], 0, len(support))
        support[first:last, votes.labels[piece]] += votes.weights[piece]


def _rank(support: NDArray[np.float32]) -> NDArray[np.int64]:
    """(frames, clusters): the place of each cluster among those of its frame, 0 for the one with most support."""
    rank: NDArray[np.int64] = np.argsort(np.argsort(-support, axis=1, kind="stable"), axis=1)
    return rank


def _turns(segmentation: Segmentation, active: NDArray[np.bool_], *, exclusive: bool = False) -> list[tuple[float, float, int]]:
    """(start, end, cluster) of every stretch of activity; short gaps are closed, then short turns dropped.

    `exclusive`: a gap in which another speaks is not closed, so that no two turns overlap.
    """
    turns: list[tuple[float, float, int]] = []
    taken = np.concatenate([[0], np.cumsum(active.any(axis=1))]) if exclusive else np.zeros(len(active) + 1, dtype=np.int64)
    for k in range(active.shape[1]):
        edges = np.diff(np.concatenate([[0], active[:, k].astype(np.int8), [0]]))
        for first, last in _close_gaps(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), segmentation.frame_step, taken):
            start = segmentation.frame_time(first)
            end = min(segmentation.frame_time(last), segmentation.duration)
            if end - start >= MIN_TURN:
                turns.append((round(float(start), 3), round(float(end), 3), k))
    return sorted(turns)


def _close_gaps(firsts: Any, lasts: Any, frame_step: float, taken: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Stretches of frames, those less than MAX_GAP apart joined; `taken` counts the frames before each that keep a gap open."""
    closed: list[tuple[int, int]] = []
    for first, last in zip(firsts, lasts, strict=True):
        before = closed[-1][1] if closed else 0
        if closed and (first - before) * frame_step <= MAX_GAP and taken[first] == taken[before]:
            closed[-1] = (closed[-1][0], int(last))
        else:
            closed.append((int(first), int(last)))
    return closed


def _named(turns: list[tuple[float, float, int]], names: dict[int, str]) -> tuple[Turn, ...]:
    return tuple(Turn(start=start, end=end, speaker=names[speaker]) for start, end, speaker in turns)


def _warnings(found: int, params: ClusterParams) -> tuple[str, ...]:
    least = params.num_speakers or params.min_speakers
    if least and found < least:
        return (f"Only {found} of the {least} requested speakers could be identified; the others speak too little.",)
    return ()


def run(
    inputs: Mapping[str, Path], params: ClusterParams, runtime: RuntimeOptions, output: Path, progress: Progress
) -> dict[str, Any]:
    """The `cluster` stage: segmentation and embeddings → diarization. No model runs."""
    segmentation = Segmentation.load(inputs["segmentation"])
    embeddings = Embeddings.load(inputs["embeddings"])
    model = resolve_diarization(embeddings.model, models_dir=runtime.models_path, offline=runtime.offline)
    plda = diarization_weights(model, runtime.models_path).plda
    result = diarize(segmentation, embeddings.vectors, params, plda, embeddings.pieces)
    info: dict[str, ModelInfo] = {"diarization": model.info}
    output.write_text(result.model_copy(update={"models": info}).model_dump_json(), encoding="utf-8")
    progress(1.0)
    return {"speakers": len(result.speakers), "turns": len(result.turns)}


def run_end_to_end(
    inputs: Mapping[str, Path], params: DiarizeParams, runtime: RuntimeOptions, output: Path, progress: Progress
) -> dict[str, Any]:
    """The `diarize` stage: audio → diarization."""
    model = resolve_diarization(params.model, models_dir=runtime.models_path, offline=runtime.offline)
    began = time.perf_counter()
    diarizer = load(model, runtime)
    loaded = time.perf_counter() - began
    with Recording(inputs["audio"]) as recording:
        turns = sorted(
            (round(start, 3), round(end, 3), voice) for start, end, voice in diarizer.turns(recording, params, progress)
        )
    result = _diarization(turns, without_overlap(turns), None, params)
    output.write_text(result.model_copy(update={"models": {"diarization": model.info}}).model_dump_json(), encoding="utf-8")
    progress(1.0)
    facts = {"load_seconds": round(loaded, 3), "device": diarizer.device}
    return {"speakers": len(result.speakers), "turns": len(result.turns)} | facts
