"""From embeddings to speakers: agglomerative clustering, and VBx for models that come with a PLDA.

Follows `pyannote/audio/pipelines/clustering.py` (4.0.7) in what it does; importing it would cost ten seconds. Distances are
Euclidean between unit vectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from speech.diarize.pieces import NO_PIECES, SpeechPieces
from speech.diarize.vbx import Plda, vbx
from speech.schema import ClusterParams

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

MIN_CLEAN_RATIO = 0.2
"""Share of a chunk that a speaker must hold alone for the embedding to shape the clusters."""
MAX_TRAIN = 8_000
"""Embeddings that shape clusters: about four hours of talk. Linkage holds all their distances, 8 n² / 2 bytes: 256 MB for these,
2.7 GB for twelve hours. Of more, as many are taken, evenly over time, and the others join the nearest cluster."""


BASE_CONFIDENCE = 0.2
"""What a chunk's vote on a speaker counts however unclear the voice is. Of 0 to 1, the value that no recording at hand loses
more than 0.3 points of DER with, against votes that count alike: two to seven speakers, half a minute to ten."""


VBX_FA, VBX_FB = 0.07 * 2.5, 0.8
"""community-1's 0.07 and 0.8 are for chunks at a tenth of a window. At a quarter there are 2.5 times fewer embeddings to tell a speaker
by, and these overlap less: unscaled, VBx takes similar voices for one (docs/decisions/engine.md)."""


SHAPING = 1.0
"""Seconds of a piece that may shape the clusters; shorter ones only join them."""
PIECE_VOTES = 4.0
"""What a piece's vote counts against a chunk's: a frame lies in four chunks and one piece."""
CLEAR = 0.1
"""How much more similar a piece must be to one speaker than to the next to have a say: the chunks hear more of a voice."""


class Agglomerative(NamedTuple):
    """Linkage cut at a distance; measured on the packaged CAM++ embeddings (docs/accuracy.md)."""

    threshold: float = 0.7
    min_cluster_size: int = 5
    """Smaller clusters join the nearest large one: pyannote's 12 at a tenth stride, scaled to a quarter."""
    min_share: float = 0.1
    """Or this share of the embeddings, if that is fewer: in short recordings there are few of anybody."""
    method: str = "centroid"
    same_voice: float = 0.0
    """Clusters whose true centres are nearer than this are one voice after all."""


OF_PIECES = Agglomerative(threshold=0.95, min_cluster_size=2, min_share=0.2, method="average", same_voice=0.5)
"""Pieces are short, and their embeddings scatter: two of one voice are about 0.85 apart, two of different voices 1.0 to 1.4. The mean of
all pairs tells these apart; centroids come nearer as clusters grow. One piece alone is nobody, except in a few seconds of speech."""


class Votes(NamedTuple):
    """What the pieces say on who speaks."""

    spans: NDArray[np.float64]
    """(votes, 2): seconds."""
    labels: Labels
    """(votes,) clusters."""
    weights: Floats
    """(votes,): as a chunk's confidence."""


class Clusters(NamedTuple):
    labels: Labels
    """(chunks, speakers): the cluster of each chunk's speaker, -1 where the speaker is silent."""
    centroids: Floats
    """(clusters, dimension), unit length."""
    confidence: Floats
    """(chunks, speakers): how much a chunk's word counts on whether its speaker is that cluster."""
    votes: Votes | None = None


def trainable(activity: NDArray[np.bool_], vectors: Floats) -> NDArray[np.bool_]:
    """(chunks, speakers): embeddings that may shape clusters: valid, and from enough speech without overlap."""
    alone: NDArray[np.bool_] = activity & (activity.sum(axis=2, keepdims=True) == 1)
    enough: NDArray[np.bool_] = alone.sum(axis=1) >= MIN_CLEAN_RATIO * activity.shape[1]
    train: NDArray[np.bool_] = enough & ~np.isnan(vectors).any(axis=2)
    return train


def cluster(
    activity: NDArray[np.bool_],
    vectors: Floats,
    params: ClusterParams,
    plda: Path | None,
    pieces: SpeechPieces = NO_PIECES,
) -> Clusters:
    """Assign every active (chunk, speaker) to a speaker of the recording.

    Pieces shape the clusters where there are long enough ones, else the chunks' embeddings do; VBx, whose parameters are for chunks, always
    takes those.

    With `num_speakers`, or bounds, the number of clusters is forced into them as far as there are embeddings. Two speakers
    of one chunk are never the same speaker of the recording unless there are fewer clusters than speakers in it.

    Memory is bounded: of more than MAX_TRAIN embeddings, that many shape the clusters, evenly over the recording, so that a
    speaker's share of them is their share of the talk. All are then assigned to the nearest centroid, as the rest always is.
    """
    present: NDArray[np.bool_] = np.asarray(activity.any(axis=1))
    usable: NDArray[np.bool_] = present & ~np.isnan(vectors).any(axis=2)
    train = trainable(activity, vectors)
    if not train.any():
        train = usable
    if not train.any():
        nobody = np.zeros((int(present.any()), vectors.shape[2]), dtype=np.float32)
        return Clusters(np.where(present, 0, -1), nobody, np.ones(present.shape, dtype=np.float32))
    train = _evenly(train, MAX_TRAIN)
    units = _unit(vectors[train])
    if plda is not None:
        centroids = _vbx_centroids(vectors[train], units, params, plda)
    elif (shaping := _shaping(pieces)).any():
        units = _unit(pieces.vectors[shaping])
        centroids = _centroids(units, agglomerate(units, params, OF_PIECES))
        labels = _assign(present, usable, vectors, centroids)
        return Clusters(labels, centroids, _confidence(usable, vectors, labels, centroids), _votes(pieces, centroids))
    else:
        groups = agglomerate(units, params, Agglomerative())
        centroids = _centroids(units, groups)
    labels, centroids = _used(_assign(present, usable, vectors, centroids), centroids)
    return Clusters(labels, centroids, _confidence(usable, vectors, labels, centroids))


def _shaping(pieces: SpeechPieces) -> NDArray[np.bool_]:
    """(pieces,): those that shape the clusters."""
    long: NDArray[np.bool_] = np.asarray(pieces.spans[:, 1] - pieces.spans[:, 0] >= SHAPING)
    return _evenly(long & ~np.isnan(pieces.vectors).any(axis=1), MAX_TRAIN)


def _votes(pieces: SpeechPieces, centroids: Floats) -> Votes:
    """Each piece's vote for the nearest speaker, weighted as `_confidence` weighs a chunk's."""
    there = ~np.isnan(pieces.vectors).any(axis=1)
    scores = _unit(pieces.vectors[there]) @ centroids.T
    labels: Labels = scores.argmax(axis=1)
    nearest = np.sort(scores, axis=1)
    margin = nearest[:, -1] - nearest[:, -2] if len(centroids) > 1 else np.ones(len(scores), dtype=np.float32)
    weights = np.where(margin >= CLEAR, PIECE_VOTES * (BASE_CONFIDENCE + np.square(margin)), 0.0)
    return Votes(pieces.spans[there], labels, weights.astype(np.float32))


def _evenly(chosen: NDArray[np.bool_], most: int) -> NDArray[np.bool_]:
    """At most `most` of the chosen, evenly spread in their order, which is that of time."""
    places = np.flatnonzero(chosen)
    if len(places) <= most:
        return chosen
    kept = np.zeros(chosen.size, dtype=np.bool_)
    kept[places[np.arange(most) * len(places) // most]] = True
    return kept.reshape(chosen.shape)


def agglomerate(units: Floats, params: ClusterParams, options: Agglomerative) -> Labels:
    """(embeddings, dimension) unit vectors → (embeddings,) cluster numbers from 0."""
    from scipy.cluster.hierarchy import fcluster, linkage

    count = len(units)
    least = min(count, params.num_speakers or params.min_speakers or 1)
    most = min(count, params.num_speakers or params.max_speakers or count)
    if count == 1 or most == 1:
        return np.zeros(count, dtype=np.int64)
    size = min(options.min_cluster_size, max(1, round(options.min_share * count)))
    tree = linkage(units, method=options.method, metric="euclidean")
    found: Labels = np.asarray(fcluster(tree, options.threshold, criterion="distance"), dtype=np.int64) - 1
    large = _large(found, size)
    target = max(least, min(most, len(large)))
    # Where no cut gives that many speakers of a decent size, smaller ones are speakers too.
    while len(large) != target and size > 0:
        found, large = _cut_for(tree, target, size, options.threshold)
        size -= 1
    if len(large) == 0:
        return np.zeros(count, dtype=np.int64)
    labels = _absorb_small(units, found, large)
    return _one_voice(units, labels, options.same_voice, least) if options.same_voice else labels


def _one_voice(units: Floats, labels: Labels, nearest: float, least: int) -> Labels:
    """Join the clusters whose centres are the nearest, while they are nearer than `nearest` and more than `least` are left.

    The mean of few embeddings lies off its voice's centre by their scatter. Squared distances within the clusters say how far, and are
    subtracted: what is left is an unbiased estimate, as in Székely and Rizzo's energy statistics.
    """
    sizes = np.bincount(labels)
    sums = np.stack([units[labels == value].sum(axis=0, dtype=np.float64) for value in range(len(sizes))])
    while len(sizes) > max(least, 1):
        means = sums / sizes[:, None]
        squares = np.square(means).sum(axis=1)
        # Of unit vectors, the variance of the mean follows from its length.
        error = np.where(sizes > 1, (1 - squares) / np.maximum(sizes - 1, 1), 0.0)
        apart = squares[:, None] + squares - 2 * means @ means.T - error[:, None] - error
        apart[np.tril_indices(len(sizes))] = np.inf
        one, other = np.unravel_index(int(apart.argmin()), apart.shape)
        if apart[one, other] >= nearest**2:
            break
        labels = np.where(labels == other, one, labels)
        labels -= labels > other
        sums[one] += sums[other]
        sizes[one] += sizes[other]
        sums, sizes = np.delete(sums, other, axis=0), np.delete(sizes, other)
    return labels


def _cut_for(tree: NDArray[np.float64], target: int, size: int, threshold: float) -> tuple[Labels, Labels]:
    """The cut nearest to the threshold that gives `target` clusters of at least `size`, or the closest number to it.

    Returns the labels, and those of them whose clusters are that large.
    """
    from scipy.cluster.hierarchy import fcluster

    # Centroid linkage is not monotone: cut by merge order rather than by height.
    order = tree.copy()
    order[:, 2] = np.arange(1, len(tree) + 1)
    heights = np.concatenate([[0.0], tree[:, 2]])
    errors = np.abs(_large_after_each_merge(tree, size) - target)
    step = np.lexsort((np.abs(heights - threshold), errors))[0]
    found: Labels = np.asarray(fcluster(order, step, criterion="distance"), dtype=np.int64) - 1
    return found, _large(found, size)


def _large_after_each_merge(tree: NDArray[np.float64], size: int) -> Labels:
    """(merges + 1,): how many clusters of at least `size` there are after so many merges."""
    leaves = len(tree) + 1
    sizes = np.concatenate([np.ones(leaves), tree[:, 3]])
    large = (sizes >= size).astype(np.int64)
    merged = large[tree[:, 0].astype(int)] + large[tree[:, 1].astype(int)]
    return np.concatenate([[large[:leaves].sum()], large[:leaves].sum() + np.cumsum(large[leaves:] - merged)])


def _large(labels: Labels, size: int) -> Labels:
    values, counts = np.unique(labels, return_counts=True)
    return np.asarray(values[counts >= size], dtype=np.int64)


def _absorb_small(units: Floats, labels: Labels, large: Labels) -> Labels:
    """Give each small cluster to the large one whose centroid is nearest, and number clusters from 0."""
    centroids = np.stack([units[labels == value].mean(axis=0) for value in large])
    out = np.searchsorted(large, labels)
    for value in np.setdiff1d(labels, large):
        mean = units[labels == value].mean(axis=0)
        out[labels == value] = int(np.argmax(_unit(centroids) @ mean))
    return out.astype(np.int64)


def _assign(present: NDArray[np.bool_], usable: NDArray[np.bool_], vectors: Floats, centroids: Floats) -> Labels:
    """Nearest centroid for every active speaker; within a chunk, one-to-one."""
    from scipy.optimize import linear_sum_assignment

    labels = np.where(present, 0, -1).astype(np.int64)
    scores = np.full((*present.shape, len(centroids)), -2.0, dtype=np.float32)
    scores[usable] = _unit(vectors[usable]) @ centroids.T
    labels[usable] = scores[usable].argmax(axis=-1)
    for chunk in np.flatnonzero(present.sum(axis=1) > 1):
        speakers = np.flatnonzero(present[chunk])
        rows, columns = linear_sum_assignment(scores[chunk, speakers], maximize=True)
        labels[chunk, speakers[rows]] = columns
    return labels


def _vbx_centroids(raw: Floats, units: Floats, params: ClusterParams, plda: Path) -> Floats:
    """Centroids by VBx on the PLDA of pyannote's community-1 pipeline, with its parameters (config.yaml at the pinned revision), scaled to our stride."""
    from scipy.cluster.hierarchy import fcluster, linkage

    if len(units) < 2:
        return units
    start = np.unique(fcluster(linkage(units, "centroid"), 0.6, criterion="distance"), return_inverse=True)[1]
    model = Plda.load(plda)
    projected = model(raw.astype(np.float64))
    posteriors, priors = vbx(start, projected, model.between[: projected.shape[1]], fa=VBX_FA, fb=VBX_FB)
    weights = posteriors[:, priors > 1e-7]
    centroids = _unit((weights.T @ raw) / weights.sum(0, keepdims=True).T)
    least, most = params.num_speakers or params.min_speakers or 1, params.num_speakers or params.max_speakers or len(units)
    if least <= len(centroids) <= most:
        return centroids
    target = least if len(centroids) < least else most
    return _centroids(units, agglomerate(units, ClusterParams(num_speakers=target), Agglomerative()))


def _centroids(units: Floats, labels: Labels) -> Floats:
    return _unit(np.stack([units[labels == value].mean(axis=0) for value in range(int(labels.max()) + 1)]))


def _unit(vectors: Floats) -> Floats:
    out: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-8)
    return out


def _used(labels: Labels, centroids: Floats) -> tuple[Labels, Floats]:
    """Labels and centroids without empty clusters."""
    used = np.unique(labels[labels >= 0])
    renumbered = np.where(labels >= 0, np.searchsorted(used, labels), -1)
    return renumbered.astype(np.int64), centroids[used]


def _confidence(usable: NDArray[np.bool_], vectors: Floats, labels: Labels, centroids: Floats) -> Floats:
    """(chunks, speakers): the square of how much more similar an embedding is to its own cluster than to the next, and a base.

    Where a chunk takes two people for one speaker, their common embedding lies between the clusters and says little; chunks
    that tell them apart must not be outvoted by it. Counting every chunk alike leaves such frames to the order of the clusters
    (measured: 16 % or 10 % DER on one conversation).
    """
    out = np.full(labels.shape, BASE_CONFIDENCE, dtype=np.float32)
    if len(centroids) > 1 and usable.any():
        scores = _unit(vectors[usable]) @ centroids.T
        own = (np.arange(len(scores)), labels[usable])
        similar = scores[own].copy()
        scores[own] = -np.inf
        out[usable] += np.square(np.maximum(similar - scores.max(axis=1), 0.0))
    return out
