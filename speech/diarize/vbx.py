"""VBx clustering of speaker embeddings on a PLDA, as pyannote's community-1 pipeline does it.

Landini, Profant, Diez, Burget, "Bayesian HMM clustering of x-vector sequences (VBx) in speaker diarization", Computer Speech &
Language, 2022; equations by their numbers there. As in `pyannote.audio.utils.vbx`, speakers change without a Markov chain.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_DIMENSION = 128
"""Of the PLDA space, the most telling dimensions first."""
_SMOOTHING = 7.0
"""How much more an embedding belongs to its first cluster than to the others, as the exponent of a softmax."""
_ROUNDS = 20
_ENOUGH = 1e-4
"""The evidence lower bound has to grow by more than this, or the rounds end."""


class Plda(NamedTuple):
    """How embeddings of one speaker and of several differ, learnt from many speakers."""

    embedding_mean: Floats
    lda: Floats
    """(dimension, reduced)"""
    lda_mean: Floats
    mean: Floats
    transform: Floats
    """(reduced, reduced), to a space where within-speaker covariance is the identity."""
    between: Floats
    """(reduced,) between-speaker variances in that space, the greatest first."""

    @classmethod
    def load(cls, folder: Path) -> Plda:
        """`xvec_transform.npz` and `plda.npz` of a pyannote pipeline."""
        from scipy.linalg import eigh

        with np.load(folder / "xvec_transform.npz", allow_pickle=False) as file:
            embedding_mean, lda_mean, lda = file["mean1"], file["mean2"], file["lda"]
        with np.load(folder / "plda.npz", allow_pickle=False) as file:
            mean, transform, variances = file["mu"], file["tr"], file["psi"]
        within = np.linalg.inv(transform.T @ transform)
        between = np.linalg.inv((transform.T / variances) @ transform)
        values, vectors = eigh(between, within)
        return cls(embedding_mean, lda, lda_mean, mean, vectors.T[::-1], values[::-1])

    def __call__(self, embeddings: Floats) -> Floats:
        """(n, dimension) → (n, at most 128): centred, whitened, reduced, and in the PLDA's space."""
        dimension, reduced = self.lda.shape
        centred = np.sqrt(dimension) * _unit(embeddings - self.embedding_mean)
        projected = np.sqrt(reduced) * _unit(centred @ self.lda - self.lda_mean)
        out: Floats = ((projected - self.mean) @ self.transform.T)[:, :_DIMENSION]
        return out


def vbx(start: NDArray[np.int64], vectors: Floats, between: Floats, *, fa: float, fb: float) -> tuple[Floats, Floats]:
    """(n, clusters) responsibilities and (clusters,) speaker priors, from (n,) first labels and (n, d) vectors in the PLDA's space.

    `between` are the (d,) between-speaker variances; `fa` and `fb` scale the statistics and keep the number of speakers low.
    """
    from scipy.special import logsumexp, softmax

    clusters = int(start.max()) + 1
    responsibilities: Floats = softmax(_SMOOTHING * np.eye(clusters)[start], axis=1)
    priors = np.full(clusters, 1 / clusters)
    constant = -0.5 * (np.sum(vectors**2, axis=1, keepdims=True) + vectors.shape[1] * np.log(2 * np.pi))
    scaled = vectors * np.sqrt(between)  # (18)
    bound = -np.inf
    for _ in range(_ROUNDS):
        inverse = 1 / (1 + fa / fb * responsibilities.sum(axis=0)[:, None] * between)  # (17)
        alpha = fa / fb * inverse * (responsibilities.T @ scaled)  # (16)
        likelihood = fa * (scaled @ alpha.T - 0.5 * (inverse + alpha**2) @ between + constant)  # (23)
        weighted = likelihood + np.log(priors + 1e-8)
        evidence = logsumexp(weighted, axis=1)
        responsibilities = np.exp(weighted - evidence[:, None])
        priors = responsibilities.sum(axis=0) / responsibilities.sum()
        before, bound = bound, float(evidence.sum() + fb * 0.5 * np.sum(np.log(inverse) - inverse - alpha**2 + 1))  # (25)
        if bound - before < _ENOUGH:
            break
    return responsibilities, priors


def _unit(vectors: Floats) -> Floats:
    out: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return out
