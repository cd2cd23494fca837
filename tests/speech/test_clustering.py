"""Embeddings of known speakers come out as those speakers, however many are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from speech.diarize import clustering
from speech.diarize.clustering import Clusters, cluster
from speech.diarize.vbx import Plda, vbx
from speech.schema import ClusterParams

FRAMES = 100
DIMENSION = 64


class Meeting:
    """Chunks in which known speakers talk: `rows` names the speakers of each chunk, in the order of its columns."""

    def __init__(self, rows: list[list[int]], spread: float = 0.3, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        people = max((who for row in rows for who in row), default=0) + 1
        voices = np.linalg.qr(generator.normal(size=(DIMENSION, people)))[0].T
        self.truth = np.full((len(rows), 3), -1)
        self.activity = np.zeros((len(rows), FRAMES, 3), dtype=np.bool_)
        self.vectors = np.full((len(rows), 3, DIMENSION), np.nan, dtype=np.float32)
        for chunk, row in enumerate(rows):
            share = FRAMES // max(1, len(row))
            for column, who in enumerate(row):
                self.truth[chunk, column] = who
                self.activity[chunk, column * share : (column + 1) * share, column] = True
                noise = generator.normal(size=DIMENSION) * spread / np.sqrt(DIMENSION)
                self.vectors[chunk, column] = 20 * (voices[who] + noise)

    def clustered(self, plda: Path | None = None, **params: int) -> Clusters:
        return cluster(self.activity, self.vectors, ClusterParams(**params), plda)

    def errors(self, found: Clusters) -> int:
        """How many are given to another speaker than most of theirs."""
        wrong = 0
        for who in np.unique(self.truth[self.truth >= 0]):
            counts = np.bincount(found.labels[self.truth == who])
            wrong += int(counts.sum() - counts.max())
        return wrong


def talk(people: int, chunks: int = 60, seed: int = 0) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return [
        list(generator.choice(people, size=generator.integers(1, min(3, people) + 1), replace=False)) for _ in range(chunks)
    ]


@pytest.mark.parametrize("people", [1, 2, 4, 9])
def test_finds_the_number_of_speakers(people: int) -> None:
    meeting = Meeting(talk(people, chunks=40 * people))
    found = meeting.clustered()
    assert len(found.centroids) == people
    assert meeting.errors(found) == 0
    assert np.array_equal(found.labels >= 0, meeting.truth >= 0)
    assert np.allclose(np.linalg.norm(found.centroids, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("wanted", [1, 2, 3, 5, 6])
def test_gives_as_many_as_are_asked_for(wanted: int) -> None:
    found = Meeting(talk(3)).clustered(num_speakers=wanted)
    assert len(found.centroids) == wanted


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"min_speakers": 5}, 5),
        ({"max_speakers": 2}, 2),
        ({"min_speakers": 2, "max_speakers": 6}, 4),
        ({"min_speakers": 6, "max_speakers": 8}, 6),
        ({"min_speakers": 1, "max_speakers": 3}, 3),
    ],
)
def test_stays_within_bounds(bounds: dict[str, int], expected: int) -> None:
    found = Meeting(talk(4, chunks=120)).clustered(**bounds)
    assert len(found.centroids) == expected


def test_someone_who_speaks_little_is_found_when_the_number_is_given() -> None:
    """Two of three hold the floor; the third has two chunks, fewer than make a speaker unasked."""
    meeting = Meeting([[0], [1]] * 40 + [[2], [2]])
    assert len(meeting.clustered().centroids) == 2
    found = meeting.clustered(num_speakers=3)
    assert len(found.centroids) == 3
    assert meeting.errors(found) == 0


def test_more_speakers_than_embeddings_are_not_invented() -> None:
    assert len(Meeting([[0], [1]]).clustered(num_speakers=5).centroids) == 2


def test_one_embedding_is_one_speaker() -> None:
    found = Meeting([[0]]).clustered()
    assert found.labels.tolist() == [[0, -1, -1]]
    assert len(found.centroids) == 1


def test_speakers_without_any_embedding_are_one() -> None:
    meeting = Meeting([[0], [1]])
    meeting.vectors[:] = np.nan
    found = meeting.clustered()
    assert found.labels.tolist() == [[0, -1, -1], [0, -1, -1]]
    assert len(found.centroids) == 1


def test_a_speaker_without_embedding_gets_one_of_the_others() -> None:
    meeting = Meeting([[0, 1]] * 10 + [[1, 0]] * 10)
    meeting.vectors[3, 1] = np.nan
    found = meeting.clustered()
    assert sorted(found.labels[3, :2]) == [0, 1]


def test_small_clusters_join_the_nearest_large_one() -> None:
    """An odd chunk, half way from one speaker to nobody, is not a speaker of its own."""
    meeting = Meeting([[0]] * 40 + [[1]] * 40 + [[0]])
    odd = np.random.default_rng(5).normal(size=DIMENSION)
    meeting.vectors[-1, 0] = meeting.vectors[0, 0] + 25 * odd / np.linalg.norm(odd)
    found = meeting.clustered()
    assert len(found.centroids) == 2
    assert found.labels[-1, 0] == found.labels[0, 0]


def test_two_speakers_of_a_chunk_are_two_where_there_are_enough() -> None:
    """Even when both sound like the same."""
    meeting = Meeting(talk(3, chunks=80))
    pairs = np.flatnonzero((meeting.truth >= 0).sum(axis=1) == 2)
    meeting.vectors[pairs[0], 1] = meeting.vectors[pairs[0], 0] * 1.01
    found = meeting.clustered()
    for row in found.labels:
        assert len(set(row[row >= 0])) == (row >= 0).sum()
    single = meeting.clustered(num_speakers=1)
    assert set(single.labels.ravel()) == {0, -1}


def test_many_embeddings_are_bounded_and_give_the_same_speakers(monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = Meeting(talk(5, chunks=400))
    everything = meeting.clustered()
    monkeypatch.setattr(clustering, "MAX_TRAIN", 100)
    sizes: list[int] = []
    agglomerate = clustering.agglomerate

    def counted(units: np.ndarray, *rest: object) -> np.ndarray:
        sizes.append(len(units))
        return agglomerate(units, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(clustering, "agglomerate", counted)
    bounded = meeting.clustered()
    assert sizes == [100]
    assert len(bounded.centroids) == len(everything.centroids) == 5
    assert meeting.errors(bounded) == meeting.errors(everything) == 0


@pytest.mark.slow
def test_a_twelve_hour_recording_is_clustered() -> None:
    meeting = Meeting(talk(6, chunks=17_280))
    assert (meeting.truth >= 0).sum() > 26_000
    found = meeting.clustered()
    assert len(found.centroids) == 6
    assert meeting.errors(found) == 0


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.3, 0.6, 0.75])
def test_equals_pyannotes_clustering(spread: float) -> None:
    from pyannote.audio.pipelines.clustering import AgglomerativeClustering
    from pyannote.core import SlidingWindow, SlidingWindowFeature

    meeting = Meeting(talk(4, chunks=150), spread=spread)
    theirs = AgglomerativeClustering(metric="cosine", constrained_assignment=True).instantiate(
        {"method": "centroid", "min_cluster_size": 5, "threshold": 0.7}
    )
    activity = SlidingWindowFeature(meeting.activity.astype(np.float32), SlidingWindow(duration=10, step=2.5))
    expected, _, _ = theirs(embeddings=meeting.vectors, segmentations=activity, min_clusters=1, max_clusters=20)
    found = meeting.clustered()
    ours, others = found.labels[meeting.truth >= 0], expected[meeting.truth >= 0]
    assert len(set(ours)) == len(set(others))
    agreeing = sum(np.bincount(others[ours == k]).max() for k in set(ours))
    assert agreeing >= 0.99 * len(ours)


def test_a_chunk_that_confuses_two_speakers_counts_little() -> None:
    meeting = Meeting([[0], [1]] * 20)
    between = meeting.vectors[0, 0] + meeting.vectors[1, 0]
    meeting.vectors[2, 0] = between
    found = meeting.clustered()
    clear = np.delete(found.confidence[:, 0], 2)
    assert clustering.BASE_CONFIDENCE <= found.confidence[2, 0] < 0.5 * clear.min()


def test_who_has_no_embedding_counts_least() -> None:
    meeting = Meeting([[0], [1]] * 20)
    meeting.vectors[5] = np.nan
    found = meeting.clustered()
    assert found.labels[5, 0] >= 0
    assert found.confidence[5, 0] == np.float32(clustering.BASE_CONFIDENCE) < np.delete(found.confidence[:, 0], 5).min()


# -- VBx ----------------------------------------------------------------------------------------------------------------


def plda(folder: Path, deaf_to: np.ndarray | None = None, mean: float = 0.0) -> Path:
    """A PLDA as community-1 has one, of known statistics: every direction tells voices apart, but for the one it is deaf to."""
    basis = np.eye(DIMENSION)
    if deaf_to is not None:
        basis = np.linalg.svd(basis - np.outer(deaf_to, deaf_to))[0][:, : DIMENSION - 1]
    size = basis.shape[1]
    np.savez(folder / "xvec_transform.npz", mean1=np.full(DIMENSION, mean), mean2=np.zeros(size), lda=basis)
    np.savez(folder / "plda.npz", mu=np.zeros(size), tr=np.eye(size) * 3, psi=np.linspace(3, 1, size))
    return folder


@pytest.mark.parametrize("people", [1, 2, 4, 9])
def test_vbx_finds_the_number_of_speakers(people: int, tmp_path: Path) -> None:
    meeting = Meeting(talk(people, chunks=40 * people))
    found = meeting.clustered(plda(tmp_path))
    assert len(found.centroids) == people
    assert meeting.errors(found) == 0
    assert np.array_equal(found.labels >= 0, meeting.truth >= 0)
    assert np.allclose(np.linalg.norm(found.centroids, axis=1), 1, atol=1e-5)
    ours = meeting.clustered().centroids
    assert np.all((found.centroids @ ours.T).max(axis=1) > 0.999), "each centroid is the mean voice of its speaker"


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"num_speakers": 1}, 1),
        ({"num_speakers": 4}, 4),
        ({"num_speakers": 6}, 6),
        ({"min_speakers": 5}, 5),
        ({"max_speakers": 2}, 2),
        ({"min_speakers": 4, "max_speakers": 4}, 4),
        ({"min_speakers": 6, "max_speakers": 8}, 6),
    ],
)
def test_vbx_stays_within_bounds(bounds: dict[str, int], expected: int, tmp_path: Path) -> None:
    found = Meeting(talk(4, chunks=120)).clustered(plda(tmp_path), **bounds)
    assert len(found.centroids) == expected


def test_vbx_takes_for_one_voice_what_the_plda_does_not_tell_apart(tmp_path: Path) -> None:
    """Two people, each on two microphones: far apart for a distance, the same for a PLDA that is deaf to the microphone."""
    meeting = Meeting(talk(2, chunks=80))
    microphone = np.random.default_rng(9).normal(size=DIMENSION)
    microphone /= np.linalg.norm(microphone)
    meeting.vectors[40:] += 20 * microphone
    meeting.vectors[:40] -= 20 * microphone
    assert len(meeting.clustered().centroids) == 4
    found = meeting.clustered(plda(tmp_path, deaf_to=microphone))
    assert len(found.centroids) == 2
    assert meeting.errors(found) == 0
    assert len(meeting.clustered(plda(tmp_path, deaf_to=microphone), num_speakers=3).centroids) == 3


def test_vbx_of_one_embedding_is_one_speaker(tmp_path: Path) -> None:
    found = Meeting([[0]]).clustered(plda(tmp_path))
    assert found.labels.tolist() == [[0, -1, -1]]
    assert len(found.centroids) == 1


@pytest.mark.slow
def test_vbx_is_pyannotes(tmp_path: Path) -> None:
    from pyannote.audio.core.plda import PLDA
    from pyannote.audio.utils.vbx import cluster_vbx

    generator = np.random.default_rng(3)
    reduced = 32
    lda = np.linalg.qr(generator.normal(size=(DIMENSION, reduced)))[0]
    transform = np.linalg.qr(generator.normal(size=(reduced, reduced)))[0] * generator.uniform(1, 3, size=(reduced, 1))
    np.savez(tmp_path / "xvec_transform.npz", mean1=generator.normal(size=DIMENSION) * 0.1, mean2=np.zeros(reduced), lda=lda)
    np.savez(tmp_path / "plda.npz", mu=np.zeros(reduced), tr=transform, psi=np.geomspace(20, 0.1, reduced))
    meeting = Meeting(talk(5, chunks=80), spread=1.2)
    vectors = meeting.vectors[meeting.truth >= 0].astype(np.float64)
    start = np.random.default_rng(1).integers(0, 9, len(vectors))
    ours, theirs = Plda.load(tmp_path), PLDA(tmp_path / "xvec_transform.npz", tmp_path / "plda.npz")
    projected = ours(vectors)
    assert np.abs(projected - theirs(vectors)).max() < 1e-9
    expected = cluster_vbx(start, projected, theirs.phi, Fa=0.07, Fb=0.8, maxIters=20)
    found = vbx(start, projected, ours.between, fa=0.07, fb=0.8)
    assert np.abs(found[0] - expected[0]).max() < 1e-9
    assert np.abs(found[1] - expected[1]).max() < 1e-9


def similar_voices(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ten minutes of three similar voices a second: who speaks, embeddings in the PLDA's space, variances between speakers. The windows
    of neighbours are nine tenths the same audio, and so is their noise."""
    generator = np.random.default_rng(seed)
    between, seconds = np.geomspace(3, 3 / 80, 128), 600
    turns = [[speaker] * int(generator.integers(3, 15)) for speaker in generator.integers(0, 3, 150)]
    truth = np.concatenate(turns)[:seconds].astype(np.int64)
    voices = generator.standard_normal((3, 128)) * np.sqrt(between)
    raw = generator.standard_normal((seconds + 10, 128))
    noise = np.stack([raw[at : at + 10].mean(axis=0) * np.sqrt(10) for at in range(seconds)])
    return truth, voices[truth] + noise, between


@pytest.mark.parametrize("seed", range(4))
def test_similar_voices_are_told_apart_at_our_stride_as_at_pyannotes(seed: int) -> None:
    from scipy.cluster.hierarchy import fcluster, linkage

    truth, vectors, between = similar_voices(seed)

    def right(every: float, fa: float) -> float:
        """The share of embeddings whose cluster is mostly their speaker's, each cluster taken for one speaker and each speaker once."""
        at = np.unique((np.arange(len(truth) / every) * every).astype(int))
        units = vectors[at] / np.linalg.norm(vectors[at], axis=1, keepdims=True)
        start = np.unique(fcluster(linkage(units, "centroid"), 0.6, criterion="distance"), return_inverse=True)[1]
        posteriors, priors = vbx(start, vectors[at], between, fa=fa, fb=clustering.VBX_FB)
        found = posteriors[:, priors > 1e-7].argmax(axis=1)
        best = [np.bincount(found[truth[at] == speaker], minlength=found.max() + 1) for speaker in range(3)]
        pairs = linear_sum_assignment(np.stack(best), maximize=True)
        return float(np.stack(best)[pairs].sum() / len(at))

    assert right(1, 0.07) > 0.95
    assert right(2.5, clustering.VBX_FA) > 0.95
