"""Who is active when: the same as pyannote.audio says, from half a sample of silence to real speech."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from speech.audio import Recording
from speech.diarize import _frame_support
from speech.diarize import segmentation as segmenting
from speech.diarize.networks import WINDOW, Segmenter, diarization_weights
from speech.diarize.segmentation import STEP, Segmentation, chunk_count, segment
from speech.models import resolve_diarization
from tests import call as call_truth
from tests import media

RATE = 16_000


class Unasked:
    """A network that must not be run."""

    device = "cpu"

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        raise AssertionError("the network was run")


@pytest.mark.parametrize(
    ("samples", "chunks"),
    [
        (1, 1),
        (WINDOW - 1, 1),
        (WINDOW, 1),
        (WINDOW + 1, 2),
        (WINDOW + STEP, 2),
        (WINDOW + STEP + 1, 3),
        (30 * RATE, 9),
    ],
)
def test_chunks_cover_the_recording(samples: int, chunks: int) -> None:
    assert chunk_count(samples) == chunks
    assert (chunks - 1) * STEP + WINDOW >= samples


@pytest.mark.slow
def test_equals_pyannotes_inference(models_dir: Path, segmenter: Segmenter, segmented_call: Segmentation) -> None:
    import torch
    from pyannote.audio import Inference, Model
    from pyannote.audio.pipelines.speaker_diarization import SpeakerDiarization
    from pyannote.audio.utils.powerset import Powerset

    files = diarization_weights(
        resolve_diarization("segmentation-3.0+campplus", models_dir=models_dir, offline=True), models_dir
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Model.from_pretrained(str(files.segmentation)).eval()
        inference = Inference(model, duration=10.0, step=STEP / RATE, skip_aggregation=True, skip_conversion=True)
        scores = inference({"waveform": torch.from_numpy(media.speech())[None], "sample_rate": RATE})
    powerset = Powerset(len(model.specifications.classes), model.specifications.powerset_max_classes)
    theirs = powerset.to_multilabel(torch.from_numpy(scores.data)).numpy() > 0.5
    ours = segmented_call.activity
    assert ours.shape == theirs.shape
    assert (ours == theirs).mean() > 0.99
    scores.data = theirs.astype(np.float32)
    counted = SpeakerDiarization.speaker_count(scores, model.receptive_field, warm_up=(0.0, 0.0)).data[:, 0]
    labels = np.where(ours.any(axis=1), 0, -1)
    _, count = _frame_support(segmented_call, labels, 1, np.ones(labels.shape, dtype=np.float32))
    frames = len(count)
    assert (count[:frames] == counted[:frames]).mean() > 0.99


def test_finds_the_call_where_its_truth_has_it(segmented_call: Segmentation) -> None:
    truth = np.zeros(len(segmented_call.speech), dtype=bool)
    times = segmented_call.frame_time(np.arange(len(truth)))
    for turn in call_truth.turns():
        truth |= (times >= turn.start) & (times < turn.end)
    inside = times < segmented_call.duration
    assert ((segmented_call.speech > 0.5) == truth)[inside].mean() > 0.95


def test_saved_and_loaded_it_is_the_same(segmented_call: Segmentation, tmp_path: Path) -> None:
    segmented_call.save(tmp_path / "segmentation")
    loaded = Segmentation.load(tmp_path / "segmentation")
    assert np.array_equal(loaded.activity, segmented_call.activity)
    assert loaded.activity.dtype == np.bool_
    assert np.abs(loaded.speech - segmented_call.speech).max() < 1e-3
    assert loaded[2:] == segmented_call[2:]


def test_digital_silence_has_no_activity_and_costs_nothing(recorded: Callable[..., Path], segmenter: Segmenter) -> None:
    quiet = segmenter._replace(network=Unasked())
    with Recording(recorded(np.zeros(25 * RATE, dtype=np.float32))) as recording:
        found = segment(recording, quiet, lambda fraction: None)
    assert not found.activity.any()
    assert found.speech.max() == 0.0


def test_silent_chunks_do_not_change_the_others(
    recorded: Callable[..., Path], segmenter: Segmenter, segmented_call: Segmentation
) -> None:
    """The call, then a minute of nothing: chunks of both kinds in one batch."""
    with Recording(recorded(np.concatenate([media.speech(), np.zeros(60 * RATE, dtype=np.float32)]))) as recording:
        found = segment(recording, segmenter, lambda fraction: None)
    whole = chunk_count(30 * RATE)
    assert np.array_equal(found.activity[:whole], segmented_call.activity)
    assert not found.activity[30 * RATE // STEP + 1 :].any()


@pytest.mark.parametrize("samples", [1, RATE // 10, RATE // 2])
def test_short_recordings_are_one_padded_chunk(recorded: Callable[..., Path], segmenter: Segmenter, samples: int) -> None:
    with Recording(recorded(media.speech()[8 * RATE : 8 * RATE + samples])) as recording:
        found = segment(recording, segmenter, lambda fraction: None)
    assert found.activity.shape == (1, 589, 3)
    assert found.samples == samples


def test_progress_is_told_and_can_end_it(call: Path, segmenter: Segmenter) -> None:
    told: list[float] = []
    with Recording(call) as recording:
        segment(recording, segmenter, told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0

    class Stop(Exception):
        pass

    def stop(fraction: float) -> None:
        raise Stop

    with Recording(call) as recording, pytest.raises(Stop):
        segment(recording, segmenter, stop)


def test_a_bigger_batch_gives_the_same(
    call: Path, segmenter: Segmenter, segmented_call: Segmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(segmenting._BATCH, "cpu", 2)
    with Recording(call) as recording:
        found = segment(recording, segmenter, lambda fraction: None)
    assert np.array_equal(found.activity, segmented_call.activity)
