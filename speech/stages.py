"""The stages by name: what each reads, what it writes, and the function that does it.

This is the one door through which stages are run, here or in a remote container: files in, one file out.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from speech.schema import (
    AlignParams,
    AsrParams,
    ClusterParams,
    DiarizeParams,
    EmbedParams,
    MergeParams,
    RuntimeOptions,
    SegmentParams,
    Shard,
    StageName,
)
from speech.shards import WHOLE
from stenoflow.types import Frozen

Progress = Callable[[float], None]
"""Told the fraction done, 0…1, at every batch. It may raise StageCancelled, which ends the stage."""


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
    """Kinds of the artifacts it reads."""
    output: str
    """Kind of the artifact it writes."""
    params: type[Frozen]
    entry: str
    """`module:function`, imported when the stage is first run."""
    divisible: bool = False
    """Whether it can be done in shards: the entry's module then has `run_shard` and `combine`."""


STAGES: dict[StageName, StageSpec] = {
    "segment": StageSpec(1, ("audio",), "segmentation", SegmentParams, "speech.diarize.segmentation:run", divisible=True),
    "asr": StageSpec(3, ("audio", "segmentation"), "asr", AsrParams, "speech.asr:run", divisible=True),
    "align": StageSpec(2, ("audio", "asr"), "alignment", AlignParams, "speech.align:run", divisible=True),
    "embed": StageSpec(2, ("audio", "segmentation"), "embeddings", EmbedParams, "speech.diarize.embedding:run", divisible=True),
    "cluster": StageSpec(3, ("segmentation", "embeddings"), "diarization", ClusterParams, "speech.diarize:run"),
    "diarize": StageSpec(1, ("audio",), "diarization", DiarizeParams, "speech.diarize:run_end_to_end"),
    "merge": StageSpec(2, ("audio", "asr", "alignment", "diarization"), "transcript", MergeParams, "speech.merge:run"),
}


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
    from speech.runtime import memory_errors_translated

    spec = STAGES[stage]
    options = spec.params.model_validate(dict(params))
    with memory_errors_translated(stage):
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
