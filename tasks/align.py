"""A time and a score for every word."""

from __future__ import annotations

from infra.artifacts import ArtifactRef, StageOutcome
from speech.registry import Resolved
from speech.schema import AlignParams
from tasks.calls import StageCall
from tasks.models import argument, pinned
from tasks.recording import Recording
from tasks.report import RunLog
from tasks.stage import run_stage, stage_task

align_task = stage_task("align")


async def align(
    log: RunLog, recording: Recording, text: ArtifactRef, aligner: Resolved, *, batch_size: int | None
) -> StageOutcome:
    """The words of `text` with their times, from wav2vec2 or from Whisper's own cross-attention."""
    params = AlignParams(model=argument(aligner))
    call = StageCall(
        stage="align",
        inputs={"audio": recording.audio, "asr": text},
        params=params.model_dump(mode="json"),
        models={"align": pinned(aligner)},
        duration=recording.duration,
        batch_size=batch_size,
        label=aligner.name,
    )
    return await run_stage(log, align_task, call)
