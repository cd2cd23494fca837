"""A compute backend whose models are stood in for, so that orchestration can be tested without any.

It stands at the one seam there is for that (`infra.jobs.Compute`). Its artifacts are real ones of the engine's
schema, and merging is the engine's own.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from infra import compute
from infra.artifacts import SUFFIXES, StageOutcome
from infra.jobs import ProgressSink, StageJob
from infra.local import LocalCompute
from speech.schema import AlignResult, AsrResult, AsrSegment, AsrWord, Diarization, Region
from speech.stages import STAGES
from stenoflow.types import ModelInfo, Segment, Turn, Word

MODEL = ModelInfo(name="double", revision="1", origin="folder")
TEXT = "good morning everyone"


class ComputeDouble:
    """Counts executions, and fails or waits where it is told to."""

    def __init__(self) -> None:
        self.jobs: list[StageJob] = []
        self.failures: dict[str, list[Exception]] = defaultdict(list)
        """By stage: raised one after the other, before the stage succeeds."""
        self.before: dict[str, Callable[[], Any]] = {}
        """By stage: awaited before the stage succeeds."""
        self.stopped: list[str] = []
        """Stages that were cancelled while at work."""

    @property
    def ran(self) -> list[str]:
        return [job.stage for job in self.jobs]

    def forget(self) -> None:
        self.jobs.clear()

    async def run(self, job: StageJob, progress: ProgressSink) -> StageOutcome:
        self.jobs.append(job)
        progress(0.5)
        if self.failures[job.stage]:
            raise self.failures[job.stage].pop(0)
        if job.stage in self.before:
            try:
                await self.before[job.stage]()
            except asyncio.CancelledError:
                self.stopped.append(job.stage)
                raise
        if job.stage in ("merge", "join"):
            return await LocalCompute(compute.get_store()).run(job, progress)
        return await asyncio.to_thread(stand_in, job)


def stand_in(job: StageJob, bytes_more: int = 0) -> StageOutcome:
    """What the stage leaves when no model is run; with blanks behind it, for an artifact of some size."""
    return leave(job, content(job) + " " * bytes_more)


def leave(job: StageJob, content: str) -> StageOutcome:
    """The outcome of a stage whose artifact has that content."""
    store = compute.get_store()
    store.scratch.mkdir(parents=True, exist_ok=True)
    kind: Any = STAGES[job.stage].output
    path = store.scratch / f"double-{uuid.uuid4().hex}{SUFFIXES[kind]}"
    path.write_text(content)
    try:
        return StageOutcome(artifact=store.put(path, kind, meta={"language": "en"}, by=job.key), seconds=0.5, key=job.key)
    finally:
        path.unlink()


def content(job: StageJob) -> str:
    words = tuple(
        Word(word=word, start=0.5 + place, end=1.0 + place, score=0.9, timing="attention")
        for place, word in enumerate(TEXT.split())
    )
    if job.stage == "asr":
        segment = AsrSegment(
            start=0.5,
            end=3.0,
            text=TEXT,
            words=tuple(AsrWord(word=word.word, start=word.start, end=word.end, score=word.score) for word in words),
            regions=(Region(start=0.5, end=3.0),),
            avg_logprob=-0.2,
            no_speech_prob=0.0,
        )
        return AsrResult(language="en", segments=(segment,), model=MODEL).model_dump_json()
    if job.stage == "align":
        segments = (Segment(start=0.5, end=3.0, text=TEXT, words=words),)
        return AlignResult(segments=segments, model=MODEL, method="attention").model_dump_json()
    if job.stage == "cluster":
        turn = Turn(start=0.0, end=4.0, speaker=f"SPEAKER_0{job.params['max_speakers'] or 0}")
        return Diarization(
            turns=(turn,),
            exclusive_turns=(turn,),
            speakers=(turn.speaker,),
            speaker_embeddings={turn.speaker: (1.0, 0.0)},
            models={"diarization": MODEL},
        ).model_dump_json()
    return json.dumps({"of": job.stage, "from": {kind: ref.sha256 for kind, ref in job.inputs.items()}})


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> ComputeDouble:
    backend = ComputeDouble()
    monkeypatch.setattr(compute, "get_compute", lambda settings=None, asked=None: backend)
    return backend


def recording(path: Path, *, seed: int = 0, seconds: float = 4.0, container: str | None = None) -> Path:
    """A real audio file of noise; the same seed gives the same samples in any lossless container."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).integers(-3000, 3000, int(16_000 * seconds)).astype("int16")
    soundfile.write(path, samples, 16_000, format=container, subtype="PCM_16")
    return path
