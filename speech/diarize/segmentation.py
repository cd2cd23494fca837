"""One pass of the segmentation model over a recording: who is active when, per frame.

The result serves twice: as voice activity for ASR, and as the first half of diarization.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from speech.audio import Recording
from speech.diarize.networks import WINDOW, Floats, Segmenter, load_segmenter
from speech.models import resolve_diarization
from speech.schema import SAMPLE_RATE, WHOLE, RuntimeOptions, SegmentParams, Shard, part_of
from speech.stages import Progress
from speech.stored import reading

STEP = WINDOW // 4
"""Samples between chunks. A stride of a quarter window gives the DER of pyannote's tenth (measured) at 2/5 of the cost."""
SILENCE = 2 / 32768
"""A chunk without a sample above this (two 16-bit steps) is silence; the network is not asked."""
_BATCH = {"cpu": 8, "cuda": 64}


class Windows(NamedTuple):
    """The network's answers for some of a recording's chunks: a shard of its segmentation."""

    activity: NDArray[np.bool_]
    """(chunks, frames, speakers)"""
    speech: Floats
    """(chunks, frames): probability that anyone speaks."""
    frame_step: float
    frame_duration: float
    samples: int

    def save(self, path: Path) -> None:
        with open(path, "wb") as file:
            np.savez(file, **self._asdict())

    @classmethod
    def load(cls, path: Path) -> Windows:
        with reading(path), np.load(path, allow_pickle=False) as file:
            return cls(
                file["activity"],
                file["speech"],
                float(file["frame_step"]),
                float(file["frame_duration"]),
                int(file["samples"]),
            )


class Segmentation(NamedTuple):
    """A segmented recording."""

    activity: NDArray[np.bool_]
    """(chunks, frames, speakers): which of the chunk's own speakers is active in each frame."""
    speech: Floats
    """(total frames,): probability that anyone speaks, averaged over the chunks that see the frame."""
    frame_step: float
    """Seconds between frames."""
    frame_duration: float
    """Seconds of audio one frame sees."""
    samples: int
    """Of the recording."""

    @property
    def duration(self) -> float:
        return self.samples / SAMPLE_RATE

    @property
    def last_millisecond(self) -> float:
        """Seconds: the latest time in whole milliseconds that is not behind the last sample."""
        return self.samples * 1000 // SAMPLE_RATE / 1000

    def chunk_frame(self, chunk: int) -> int:
        """The recording's frame at which a chunk begins."""
        return chunk_frame(chunk, self.frame_step)

    def frame_time(self, frame: int | NDArray[np.int64]) -> Any:
        """Seconds at the middle of a frame."""
        return frame * self.frame_step + self.frame_duration / 2

    def save(self, path: Path) -> None:
        with open(path, "wb") as file:
            np.savez_compressed(
                file,
                activity=np.packbits(self.activity, axis=1),
                frames=self.activity.shape[1],
                speech=self.speech.astype(np.float16),
                frame_step=self.frame_step,
                frame_duration=self.frame_duration,
                samples=self.samples,
            )

    @classmethod
    def load(cls, path: Path) -> Segmentation:
        with reading(path), np.load(path, allow_pickle=False) as file:
            activity = np.unpackbits(file["activity"], axis=1, count=int(file["frames"])).astype(bool)
            return cls(
                activity,
                file["speech"].astype(np.float32),
                float(file["frame_step"]),
                float(file["frame_duration"]),
                int(file["samples"]),
            )


def chunk_frame(chunk: int, frame_step: float) -> int:
    """As `pyannote.core.SlidingWindow.closest_frame` rounds a chunk's start."""
    return round(chunk * STEP / SAMPLE_RATE / frame_step)


def chunk_count(samples: int) -> int:
    """Chunks that cover a recording; the last one is padded with silence."""
    return max(0, -(-(samples - WINDOW) // STEP)) + 1


def segment(recording: Recording, segmenter: Segmenter, progress: Progress) -> Segmentation:
    """Segment a recording, a batch of chunks at a time; memory grows by a few hundred bytes per second of audio."""
    return overlapped([windows(recording, segmenter, progress)])


def windows(recording: Recording, segmenter: Segmenter, progress: Progress, shard: Shard = WHOLE) -> Windows:
    """The network's answers for the shard's chunks."""
    begin, end = part_of(chunk_count(recording.samples), shard, max(_BATCH.values()))
    size = _BATCH[segmenter.network.device]
    activity: list[NDArray[np.bool_]] = []
    speech: list[Floats] = []
    for first in range(begin, end, size):
        batch = np.stack([recording.read(c * STEP, c * STEP + WINDOW, pad=True) for c in range(first, min(first + size, end))])
        probabilities = _probabilities(batch, segmenter)
        activity.append(segmenter.mapping[probabilities.argmax(axis=-1)] > 0.5)
        speech.append(1.0 - probabilities[..., 0])
        progress((min(first + size, end) - begin) / (end - begin))
    facts = segmenter.frame_step, segmenter.frame_duration, recording.samples
    if begin == end:
        return Windows(np.zeros((0, 0, 0), dtype=bool), np.zeros((0, 0), dtype=np.float32), *facts)
    return Windows(np.concatenate(activity), np.concatenate(speech), *facts)


def overlapped(parts: Sequence[Windows]) -> Segmentation:
    """The segmentation that all of a recording's chunks make, in order."""
    filled = [part for part in parts if len(part.activity)]
    one = filled[0]
    return Segmentation(
        np.concatenate([part.activity for part in filled]),
        _overlap_average(np.concatenate([part.speech for part in filled]), one.frame_step),
        one.frame_step,
        one.frame_duration,
        one.samples,
    )


def _probabilities(batch: Floats, segmenter: Segmenter) -> Floats:
    """(batch, samples) → (batch, frames, classes); silent chunks get the non-speech class."""
    heard = np.abs(batch).max(axis=1) > SILENCE
    if not heard.any():
        frames = int((WINDOW / SAMPLE_RATE - segmenter.frame_duration) / segmenter.frame_step) + 1
        out = np.zeros((len(batch), frames, len(segmenter.mapping)), dtype=np.float32)
    else:
        scores = np.exp(segmenter.network(batch[heard]))
        out = np.zeros((len(batch), *scores.shape[1:]), dtype=np.float32)
        out[heard] = scores
    out[~heard, :, 0] = 1.0
    return out


def _overlap_average(scores: Floats, frame_step: float) -> Floats:
    """(chunks, frames) → (total frames,): the mean over chunks, weighted by a Hamming window for the chunks' edges."""
    chunks, frames = scores.shape
    window = np.hamming(frames).astype(np.float32)
    total = np.zeros(chunk_frame(chunks - 1, frame_step) + frames, dtype=np.float32)
    weight = np.zeros_like(total)
    for chunk in range(chunks):
        start = chunk_frame(chunk, frame_step)
        total[start : start + frames] += scores[chunk] * window
        weight[start : start + frames] += window
    out: Floats = (total / np.maximum(weight, 1e-6)).astype(np.float32)
    return out


def run(
    inputs: Mapping[str, Path], params: SegmentParams, runtime: RuntimeOptions, output: Path, progress: Progress
) -> dict[str, Any]:
    """The `segment` stage: audio → segmentation."""
    answers, facts = _windows(inputs, params, runtime, progress, WHOLE)
    return _keep(overlapped([answers]), output) | facts


def run_shard(
    inputs: Mapping[str, Path],
    params: SegmentParams,
    runtime: RuntimeOptions,
    output: Path,
    progress: Progress,
    shard: Shard,
) -> dict[str, Any]:
    """The network's answers for a shard's chunks."""
    answers, facts = _windows(inputs, params, runtime, progress, shard)
    answers.save(output)
    return facts


def combine(
    inputs: Mapping[str, Path], params: SegmentParams, runtime: RuntimeOptions, parts: Sequence[Path], output: Path
) -> dict[str, Any]:
    """The segmentation of all shards' chunks."""
    return _keep(overlapped([Windows.load(part) for part in parts]), output)


def _windows(
    inputs: Mapping[str, Path], params: SegmentParams, runtime: RuntimeOptions, progress: Progress, shard: Shard
) -> tuple[Windows, dict[str, Any]]:
    began = time.perf_counter()
    models_dir = runtime.models_path
    model = resolve_diarization(params.model, models_dir=models_dir, offline=runtime.offline)
    segmenter = load_segmenter(model, models_dir, runtime)
    loaded = time.perf_counter() - began
    with Recording(inputs["audio"]) as recording:
        answers = windows(recording, segmenter, progress, shard)
    return answers, {"load_seconds": round(loaded, 3), "device": segmenter.network.device}


def _keep(result: Segmentation, output: Path) -> dict[str, Any]:
    result.save(output)
    spoken = float((result.speech > 0.5).sum() * result.frame_step)
    return {"duration": result.duration, "speech_seconds": round(min(spoken, result.duration), 3)}
