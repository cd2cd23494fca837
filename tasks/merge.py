"""The transcript: words and speaker turns put together."""

from __future__ import annotations

from typing import Any

from infra.artifacts import ArtifactRef, StageOutcome
from speech.schema import MergeParams
from tasks.calls import StageCall
from tasks.recording import Recording
from tasks.report import RunLog
from tasks.stage import run_stage, stage_task

merge_task = stage_task("merge")


async def merge(
    log: RunLog,
    recording: Recording,
    text: ArtifactRef,
    *,
    alignment: ArtifactRef | None,
    diarization: ArtifactRef | None,
    options: dict[str, Any],
) -> StageOutcome:
    """Segments with one speaker each; without `diarization`, without speakers; without `alignment`, without word times."""
    inputs = {"audio": recording.audio, "asr": text, "alignment": alignment, "diarization": diarization}
    call = StageCall(
        stage="merge",
        inputs={kind: ref for kind, ref in inputs.items() if ref is not None},
        params=MergeParams(options=options).model_dump(mode="json"),
        models={},
        duration=recording.duration,
        label="with speakers" if diarization else "without speakers",
    )
    return await run_stage(log, merge_task, call)
