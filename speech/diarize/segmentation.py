"""One pass of the segmentation model over a recording: who is active when, per frame.

The result serves twice: as voice activity for ASR, and as the first half of diarization.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from speech.audio import Recording
from speech.diarize.networks import WINDOW, Floats, Network, Segmenter, load_segmenter
from speech.models import resolve_diarization
from speech.pipelined import pipelined
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
    network = segmenter.network
    activity: list[NDArray[np.bool_]] = []
    speech: list[Floats] = []
    batches = _batches(recording, segmenter, begin, end)
    for active, spoken in pipelined(
        batches, lambda batch: batch.answered(network), lambda batch: batch.finished(segmenter), network.device
    ):
        activity.append(active)
        speech.append(spoken)
        progress(sum(map(len, speech)) / (end - begin))
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


class _Batch(NamedTuple):
    """Chunks beside each other, on their way through the network."""

    heard: NDArray[np.bool_]
    """(chunks,): which of them are not silence."""
    data: Any
    """What the network is given of those, then what it answers; None when all are silence."""

    def answered(self, network: Network) -> _Batch:
        return self._replace(data=network(self.data)) if self.heard.any() else self

    def finished(self, segmenter: Segmenter) -> tuple[NDArray[np.bool_], Floats]:
        """(chunks, frames, speakers) who is active, (chunks, frames) the probability of speech; silence has no speaker."""
        if self.heard.any():
            scores = np.exp(self.data)
        else:
            frames = int((WINDOW / SAMPLE_RATE - segmenter.frame_duration) / segmenter.frame_step) + 1
            scores = np.zeros((0, frames, len(segmenter.mapping)), dtype=np.float32)
        activity = np.zeros((len(self.heard), scores.shape[1], segmenter.mapping.shape[1]), dtype=bool)
        speech = np.zeros((len(self.heard), scores.shape[1]), dtype=np.float32)
        activity[self.heard] = segmenter.mapping[scores.argmax(axis=-1)] > 0.5
        speech[self.heard] = 1.0 - scores[..., 0]
        return activity, speech


def _batches(recording: Recording, segmenter: Segmenter, begin: int, end: int) -> Iterator[_Batch]:
    """The chunks from `begin` to `end`; the recording is read once, though they overlap."""
    size, together = _BATCH[segmenter.network.device], WINDOW // STEP
    samples = np.zeros(0, dtype=np.float32)
    for first in range(begin, end, size):
        last = min(first + size, end)
        kept = samples[len(samples) - (WINDOW - STEP) :] if first > begin else samples
        rest = recording.read(first * STEP + len(kept), (last - 1) * STEP + WINDOW, pad=True)
        samples = np.concatenate([kept, rest]) if len(kept) else rest
        loud = np.abs(samples).reshape(-1, STEP).max(axis=1) > SILENCE
        heard: NDArray[np.bool_] = np.asarray(np.lib.stride_tricks.sliding_window_view(loud, together).any(axis=1))
        chunks = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::STEP]
        yield _Batch(heard, segmenter.network.send(chunks if heard.all() else chunks[heard]) if heard.any() else None)


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
