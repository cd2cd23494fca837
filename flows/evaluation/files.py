"""Where an evaluation goes: files for spreadsheets and programs, and Prefect's artifacts. Never transcript text."""

from __future__ import annotations

import asyncio
import csv
import io
from typing import Any

from flows.artifacts import flow_run_here
from flows.evaluation.report import markdown, summary
from flows.evaluation.result import Evaluation, Row
from infra import outputs
from infra.settings import get_settings
from speech.scoring import WordErrors
from stenoflow.errors import OutputNotWritable

ARTIFACT = "evaluation"
"""What the artifacts' keys begin with; the evaluation's name follows, so that Prefect keeps their history."""


async def write_files(evaluation: Evaluation, folder: str) -> Evaluation:
    """`<name>.csv`, `.md` and `.json` in the folder; the evaluation with their places. Raises OutputNotWritable."""
    files = {kind: outputs.joined(folder, f"{evaluation.name}.{kind}") for kind in ("csv", "md", "json")}
    evaluation = evaluation.model_copy(update={"files": files})
    contents = {"csv": table_of(evaluation), "md": markdown(evaluation), "json": evaluation.model_dump_json(indent=1) + "\n"}
    await asyncio.to_thread(_write, {files[kind]: text for kind, text in contents.items()}, folder)
    return evaluation


def _write(files: dict[str, str], folder: str) -> None:
    for target, text in files.items():
        try:
            outputs.write(target, text.encode(), get_settings())
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise OutputNotWritable(
                f"The evaluation cannot be written to {folder} ({why}); choose another --output-dir."
            ) from error


async def publish(evaluation: Evaluation) -> None:
    """Attach report and table to the flow run. A server that refuses them does not fail the evaluation."""
    from prefect import get_run_logger
    from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact

    if flow_run_here() is None:
        return
    key = f"{ARTIFACT}-{evaluation.name}".replace("_", "-").replace(".", "-")
    rows = [{name: value for name, value in flat(row).items() if value is not None} for row in evaluation.rows]
    try:
        description = "; ".join(summary(one) for one in evaluation.overall)
        await acreate_markdown_artifact(markdown=markdown(evaluation), key=key, description=description)
        await acreate_table_artifact(table=rows, key=f"{key}-rows", description="Every recording and system")
    except Exception as error:
        get_run_logger().warning("Could not store the report: %s", type(error).__name__)


def flat(row: Row) -> dict[str, Any]:
    """The row as a spreadsheet has it: numbers, not formatted; None where nothing is known."""
    scores = row.scores
    words = scores.words if scores else None
    turns = scores.diarization if scores else None
    count = scores.speakers if scores else None
    times = scores.times if scores else None
    return {
        "recording": row.recording,
        "system": row.system,
        "model": row.model,
        "duration": _rounded(row.duration, 3),
        "language": scores.language if scores else None,
        "unit": None if scores is None else "characters" if scores.in_characters else "words",
        "wer": _rate(words),
        "substitutions": words.substitutions if words else None,
        "deletions": words.deletions if words else None,
        "insertions": words.insertions if words else None,
        "reference_words": words.reference_words if words else None,
        "wer_whisper": _rate(scores.whisper_words if scores else None),
        "cpwer": _rate(scores.speaker_words if scores else None),
        "tcpwer": _rate(scores.timed_words if scores else None),
        "der": _rounded(turns.rate if turns else None),
        "missed": _rounded(turns.missed if turns else None, 3),
        "false_alarm": _rounded(turns.false_alarm if turns else None, 3),
        "confusion": _rounded(turns.confusion if turns else None, 3),
        "reference_speech": _rounded(turns.total if turns else None, 3),
        "speakers_true": count.true if count else None,
        "speakers_found": count.found if count else None,
        "words_timed": times.matched if times else None,
        "word_start_mae": _rounded(times.start_mae if times else None),
        "word_start_median": _rounded(times.start_median if times else None),
        "word_start_bias": _rounded(times.start_bias if times else None),
        "word_end_mae": _rounded(times.end_mae if times else None),
        "within_200ms": _rounded(times.within_200ms / times.matched if times else None),
        "compute_seconds": _rounded(row.compute_seconds, 3),
        "times_real_time": _rounded(row.times_real_time, 2),
        "devices": " + ".join(row.devices) or None,
        "cost": row.cost,
        "run": row.run or None,
        "error": row.error or None,
    }


def table_of(evaluation: Evaluation) -> str:
    """CSV: a line per recording and system; what could begin a formula is quoted, for spreadsheets run those."""
    text = io.StringIO()
    rows = [flat(row) for row in evaluation.rows]
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["recording"], lineterminator="\n")
    writer.writeheader()
    writer.writerows([{name: _harmless(value) for name, value in row.items()} for row in rows])
    return text.getvalue()


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _rate(errors: WordErrors | None) -> float | None:
    return _rounded(None if errors is None else errors.rate)


def _rounded(value: float | None, digits: int = 6) -> float | None:
    return None if value is None else round(value, digits)
