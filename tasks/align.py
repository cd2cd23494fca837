"""A time and a score for every word."""

from __future__ import annotations

from infra.artifacts import ArtifactRef, StageOutcome
from speech.models import Resolved
from speech.schema import AlignParams
from tasks.models import Models, argument, pinned
from tasks.recording import Recording
from tasks.report import RunLog
from tasks.stage import StageCall, run_stage, stage_task

align_task = stage_task("align")


async def align(
    log: RunLog, recording: Recording, text: ArtifactRef, models: Models, aligner: Resolved, *, batch_size: int
) -> StageOutcome:
    """The words of `text` with their times, from wav2vec2 or from Whisper's own cross-attention."""
    params = AlignParams(model=argument(aligner), asr_model=argument(models.asr))
    call = StageCall(
        stage="align",
        inputs={"audio": recording.audio, "asr": text},
        params=params.model_dump(mode="json"),
        # Attention is also what a wav2vec2 model falls back to, so the text's model is always part of the key.
        models={"align": pinned(aligner), "asr": pinned(models.asr)},
        duration=recording.duration,
        batch_size=batch_size,
        label=aligner.name,
    )
    return await run_stage(log, align_task, call)
