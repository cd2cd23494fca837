"""The stages by name: what each reads, what it writes, and the function that does it.

This is the one door through which stages are run, here or in a remote container: files in, one file out. All that shows, repeats
or places stages reads `STAGES`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from speech.schema import (
    WHOLE,
    AlignParams,
    AsrParams,
    AsrSegment,
    ClusterParams,
    DiarizeParams,
    EmbedParams,
    JoinParams,
    MergeParams,
    RuntimeOptions,
    SegmentParams,
    Shard,
)
from stenoflow.types import Frozen

Progress = Callable[[float], None]
"""Receives the fraction done, 0…1, after every batch. It may raise StageCancelled, which ends the stage."""


def said(progress: Progress, segments: Sequence[AsrSegment], language: str = "") -> None:
    """Hand text that is final to whoever runs the stage, where they take it (`infra.drafts`): in order, each segment once."""
    take = getattr(progress, "said", None)
    if take is not None:
        take(segments, language)


class StageRun(Protocol):
    def __call__(
        self, inputs: Mapping[str, Path], params: Any, runtime: RuntimeOptions, output: Path, progress: Progress
    ) -> dict[str, Any]: ...


class ShardRun(Protocol):
    def __call__(
        self,
        inputs: Mapping[str, Path],
        params: Any,
        runtime: RuntimeOptions,
        output: Path,
        progress: Progress,
        shard: Shard,
    ) -> dict[str, Any]: ...


class Combine(Protocol):
    def __call__(
        self, inputs: Mapping[str, Path], params: Any, runtime: RuntimeOptions, parts: Sequence[Path], output: Path
    ) -> dict[str, Any]: ...


class StageSpec(NamedTuple):
    version: int
    """Raised whenever the same inputs and parameters give another output."""
    inputs: tuple[str, ...]
    """Kinds of the artifacts it reads; it follows the stages that write them. `join` reads them of each channel or track, numbered from 1."""
    output: str
    """Kind of the artifact it writes."""
    params: type[Frozen]
    entry: str
    """`module:function`, imported when the stage is first run."""
    share: float
    """Its part of the progress bar: about its seconds per 100 s of audio.

    Measured on two CPU cores with `base`, a meeting of 560 s and a talk of 124 s: segment 2.3–5.8, asr 29, align by attention 0.05,
    embed 17–21, diarize 0.2–1, merge below 0.1. Aligning is given more because wav2vec2 takes longer than attention. On a GPU the
    whole is shorter, its parts are much alike.
    """
    machine: Literal["Speech", "Voices"] | None = None
    """The class that computes it on Modal. What runs no model has none, and stays with the orchestrator."""
    divisible: bool = False
    """Whether it can be done in shards: the entry's module then has `run_shard` and `combine`."""
    suffix: str = ".json"
    """Of the artifact's file."""
    step: str = ""
    """What runs show it as, where that is not its name."""


STAGES: dict[str, StageSpec] = {
    "segment": StageSpec(
        version=1,
        inputs=("audio",),
        output="segmentation",
        params=SegmentParams,
        entry="speech.diarize.segmentation:run",
        share=5.0,
        machine="Voices",
        divisible=True,
        suffix=".npz",
    ),
    "asr": StageSpec(
        version=5,
        inputs=("audio", "segmentation"),
        output="asr",
        params=AsrParams,
        entry="speech.asr:run",
        share=29.0,
        machine="Speech",
        divisible=True,
    ),
    "align": StageSpec(
        version=3,
        inputs=("audio", "asr"),
        output="alignment",
        params=AlignParams,
        entry="speech.align:run",
        share=3.0,
        machine="Speech",
        divisible=True,
    ),
    "embed": StageSpec(
        version=3,
        inputs=("audio", "segmentation"),
        output="embeddings",
        params=EmbedParams,
        entry="speech.diarize.embedding:run",
        share=20.0,
        machine="Voices",
        divisible=True,
        suffix=".npz",
    ),
    "cluster": StageSpec(
        version=4,
        inputs=("segmentation", "embeddings"),
        output="diarization",
        params=ClusterParams,
        entry="speech.diarize:run",
        share=1.0,
        step="diarize",
    ),
    "diarize": StageSpec(
        version=1,
        inputs=("audio",),
        output="diarization",
        params=DiarizeParams,
        entry="speech.diarize:run_end_to_end",
        share=1.0,
        machine="Voices",
    ),
    "merge": StageSpec(
        version=2,
        inputs=("audio", "asr", "alignment", "diarization"),
        output="transcript",
        params=MergeParams,
        entry="speech.merge:run",
        share=0.5,
    ),
    "join": StageSpec(
        version=1,
        inputs=("audio", "asr", "alignment", "diarization"),
        output="transcript",
        params=JoinParams,
        entry="speech.join:run",
        share=0.5,
        step="merge",
    ),
}
"""In the order in which runs show them."""

if TYPE_CHECKING:
    StageName = str
else:
    StageName = Literal[tuple(STAGES)]


def step_of(stage: StageName) -> str:
    """What runs show the stage as: both ways to tell speakers apart are `diarize`."""
    return STAGES[stage].step or stage


AROUND = ("fetch", "export")
"""The first step of a run and the last: they compute no artifact of a stage, and always run."""
STEPS = (AROUND[0], *dict.fromkeys(step_of(stage) for stage in STAGES), AROUND[1])
"""What a run does, as people and programs see it."""


def run_stage(
    stage: StageName,
    inputs: Mapping[str, Path],
    params: Mapping[str, Any],
    runtime: RuntimeOptions,
    output: Path,
    progress: Progress,
    shard: Shard = WHOLE,
) -> dict[str, Any]:
    """Run one stage, or one shard of it, on local files, write `output`, and return its small facts (the artifact's `meta`).

    `meta` may carry `load_seconds`, `device` and `batch_size`, which describe the run rather than the result. Raises
    the errors of `stenoflow.errors`; running out of memory arrives as OutOfMemory whatever library noticed it.
    """
    from speech.loaded import using_models

    spec = STAGES[stage]
    options = spec.params.model_validate(dict(params))
    with using_models(stage):
        if shard.count > 1:
            run_shard: ShardRun = _function(spec, "run_shard")
            return run_shard(inputs, options, runtime, output, progress, shard)
        run: StageRun = _function(spec)
        return run(inputs, options, runtime, output, progress)


def combine_shards(
    stage: StageName,
    inputs: Mapping[str, Path],
    params: Mapping[str, Any],
    runtime: RuntimeOptions,
    parts: Sequence[Path],
    output: Path,
) -> dict[str, Any]:
    """Write `output` from the outputs of all shards, in order: the bytes and the `meta` of the undivided stage. No model runs."""
    from speech.runtime import memory_errors_translated

    spec = STAGES[stage]
    combine: Combine = _function(spec, "combine")
    with memory_errors_translated(stage):
        return combine(inputs, spec.params.model_validate(dict(params)), runtime, parts, output)


def _function(spec: StageSpec, name: str = "") -> Any:
    module, _, entry = spec.entry.partition(":")
    return getattr(importlib.import_module(module), name or entry)
