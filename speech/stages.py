"""The stages by name: what each reads, what it writes, and the function that does it.

This is the one door through which stages are run, here or in a remote container: files in, one file out.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from speech.schema import (
    AlignParams,
    AsrParams,
    ClusterParams,
    EmbedParams,
    Frozen,
    MergeParams,
    RuntimeOptions,
    SegmentParams,
    StageName,
)

Progress = Callable[[float], None]
"""Told the fraction done, 0…1, at every batch. It may raise StageCancelled, which ends the stage."""


class StageRun(Protocol):
    def __call__(
        self, inputs: Mapping[str, Path], params: Any, runtime: RuntimeOptions, output: Path, progress: Progress
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


STAGES: dict[StageName, StageSpec] = {
    "segment": StageSpec(1, ("audio",), "segmentation", SegmentParams, "speech.segmentation:run"),
    "asr": StageSpec(1, ("audio", "segmentation"), "asr", AsrParams, "speech.asr:run"),
    "align": StageSpec(1, ("audio", "asr"), "alignment", AlignParams, "speech.align:run"),
    "embed": StageSpec(1, ("audio", "segmentation"), "embeddings", EmbedParams, "speech.embedding:run"),
    "cluster": StageSpec(1, ("segmentation", "embeddings"), "diarization", ClusterParams, "speech.diarize:run"),
    "merge": StageSpec(1, ("audio", "asr", "alignment", "diarization"), "transcript", MergeParams, "speech.merge:run"),
}


def run_stage(
    stage: StageName,
    inputs: Mapping[str, Path],
    params: Mapping[str, Any],
    runtime: RuntimeOptions,
    output: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Run one stage on local files, write `output`, and return its small facts (the artifact's `meta`).

    `meta` may carry `load_seconds`, `device` and `batch_size`, which describe the run rather than the result. Raises
    the errors of `speech.errors`; running out of memory arrives as OutOfMemory whatever library noticed it.
    """
    from speech.runtime import memory_errors_translated

    spec = STAGES[stage]
    module, function = spec.entry.split(":")
    run: StageRun = getattr(importlib.import_module(module), function)
    with memory_errors_translated(stage):
        return run(inputs, spec.params.model_validate(dict(params)), runtime, output, progress)
