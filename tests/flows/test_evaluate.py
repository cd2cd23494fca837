"""Evaluations: transcripts held to the truth, pooled, kept, and compared with earlier ones."""

from __future__ import annotations

import asyncio
import csv
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, FlowRunFilterTags
from pydantic import ValidationError

from flows.evaluate import evaluate
from flows.evaluation import history
from flows.evaluation.request import EvaluateRequest
from flows.evaluation.result import Evaluation, EvaluationIncomplete, Row
from infra.settings import StenoSettings, get_settings
from speech.scoring import ScoringOptions
from stenoflow.errors import InvalidOption, InvalidReference, UnknownModel
from tests.stage_double import TEXT, ComputeDouble, recording
from tests.stub_compute import BACKEND, executions

pytestmark = [pytest.mark.usefixtures("prefect_server", "steno"), pytest.mark.slow]

STM = "{name} 1 ann 0.5 3.0 {text}\n"
RTTM = "SPEAKER {name} 1 0.000 {seconds:.3f} <NA> <NA> ann <NA> <NA>\n"


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were just written are not waited for."""
    monkeypatch.setenv("STENO_BATCH__SETTLE_SECONDS", "0")
    monkeypatch.setenv("STENO_MODEL", "tiny.en")
    get_settings.cache_clear()


def reference(folder: Path, name: str, *, seed: int, text: str = TEXT, seconds: float = 4.0) -> None:
    """A recording with its truth: the double hears `TEXT`, one speaker, from 0 s to 4 s."""
    recording(folder / f"{name}.wav", seed=seed)
    (folder / f"{name}.stm").write_text(STM.format(name=name, text=text))
    (folder / f"{name}.rttm").write_text(RTTM.format(name=name, seconds=seconds))


def asked(folder: Path, **options: Any) -> EvaluateRequest:
    return EvaluateRequest(references=str(folder), output_dir=str(folder.parent / "out"), **options)


def rows(evaluation: Evaluation) -> dict[str, Row]:
    return {row.recording: row for row in evaluation.rows}


async def artifacts_of(evaluation: Evaluation) -> dict[str, Any]:
    from uuid import UUID

    async with get_client() as client:
        found = await client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(evaluation.run)]))
        )
    return {str(artifact.key): artifact.data for artifact in found}


async def test_errors_are_pooled_over_words_and_seconds(tmp_path: Path, double: ComputeDouble) -> None:
    """`good morning everyone` against truths of 3 and 6 words, and turns of 4 and 2 s."""
    reference(tmp_path / "calls", "right", seed=1)
    reference(tmp_path / "calls", "longer", seed=2, text="good evening everyone and welcome all", seconds=2.0)
    found = await evaluate(asked(tmp_path / "calls"))
    overall = found.overall[0]
    assert overall.words is not None and overall.diarization is not None
    assert (overall.words.substitutions, overall.words.deletions, overall.words.reference_words) == (1, 3, 9)
    assert overall.words.rate == pytest.approx(4 / 9)
    assert (overall.diarization.false_alarm, overall.diarization.total) == pytest.approx((2.0, 6.0))
    assert (overall.recordings, overall.speakers_right, overall.speakers_counted) == (2, 2, 2)
    assert rows(found)["right"].scores is not None
    assert rows(found)["right"].scores.words.errors == 0  # type: ignore[union-attr]


async def test_tables_are_written_and_shown_in_prefect_without_text(tmp_path: Path, double: ComputeDouble) -> None:
    reference(tmp_path / "calls", "one", seed=1, text="good evening everyone")
    found = await evaluate(asked(tmp_path / "calls", name="Weekly calls"))
    assert {Path(path).name for path in found.files.values()} == {"weekly-calls.csv", "weekly-calls.md", "weekly-calls.json"}
    lines = list(csv.DictReader(Path(found.files["csv"]).read_text().splitlines()))
    assert [(line["recording"], line["substitutions"], line["reference_words"]) for line in lines] == [("one", "1", "3")]
    assert float(lines[0]["der"]) == 0
    assert Evaluation.model_validate_json(Path(found.files["json"]).read_text()) == found
    assert (tmp_path / "out" / "auto" / "one.json").is_file()
    shown = await artifacts_of(found)
    assert set(shown) == {"evaluation-weekly-calls", "evaluation-weekly-calls-rows"}
    assert "| auto | 1 | 33.3 % |" in shown["evaluation-weekly-calls"]
    for text in [*map(str, shown.values()), *(Path(path).read_text() for path in found.files.values())]:
        assert not any(word in text for word in ("morning", "evening", "everyone"))


async def test_speed_is_of_the_work_whenever_it_was_done(tmp_path: Path, double: ComputeDouble) -> None:
    """The double says that each of its five stages works half a second."""
    reference(tmp_path / "calls", "one", seed=1)
    first = await evaluate(asked(tmp_path / "calls"))
    double.forget()
    again = await evaluate(asked(tmp_path / "calls"))
    assert double.ran == []
    assert not again.warnings
    assert first.rows[0].compute_seconds is not None
    assert first.rows[0].compute_seconds >= 2.5
    assert again.rows[0].compute_seconds == first.rows[0].compute_seconds
    assert again.overall[0].times_real_time == pytest.approx(4.0 / first.rows[0].compute_seconds)


async def test_several_models_stand_side_by_side(tmp_path: Path, double: ComputeDouble) -> None:
    for seed in range(2):
        reference(tmp_path / "calls", f"call{seed}", seed=seed)
    found = await evaluate(asked(tmp_path / "calls", models=("tiny.en", "base")))
    assert [one.system for one in found.overall] == ["tiny.en", "base"]
    assert len(found.rows) == 4
    assert [(one.system, one.baseline) for one in found.comparisons] == [("base", "tiny.en")]
    assert {delta.metric: (delta.recordings, delta.verdict) for delta in found.comparisons[0].deltas} == dict.fromkeys(
        ("wer", "cpwer", "der"), (2, "the same")
    )
    # What does not depend on the Whisper model is computed once for both.
    assert double.ran.count("embed") == 2
    assert double.ran.count("asr") == 4


async def test_variants_of_options_are_compared_too(tmp_path: Path, double: ComputeDouble) -> None:
    reference(tmp_path / "calls", "one", seed=1)
    found = await evaluate(asked(tmp_path / "calls", variants={"plain": {}, "without speakers": {"diarize": "false"}}))
    assert [one.system for one in found.overall] == ["plain", "without speakers"]
    assert [one.diarization is None for one in found.overall] == [False, True]


async def test_an_evaluation_is_compared_with_the_one_before_it(tmp_path: Path, double: ComputeDouble) -> None:
    calls = tmp_path / "calls"
    for seed in range(2):
        reference(calls, f"call{seed}", seed=seed, text="good evening everybody")
    first = await evaluate(asked(calls))
    assert first.comparisons == ()
    second = await evaluate(asked(calls, options={"hotwords": "evening"}))
    assert second.previous == first.id
    comparison = second.comparisons[0]
    assert comparison.evaluation == f"calls/{first.id}"
    assert {delta.metric: delta.verdict for delta in comparison.deltas} == {
        "wer": "the same",
        "cpwer": "the same",
        "der": "the same",
    }
    # Corrected truth is no progress of the system: such recordings are left out of the comparison, and it is said.
    reference(calls, "call0", seed=0)
    third = await evaluate(asked(calls, compare_with=f"calls/{first.id}", scoring=ScoringOptions(collar=0.25)))
    comparison = third.comparisons[0]
    assert [(delta.metric, delta.recordings) for delta in comparison.deltas] == [("wer", 1), ("cpwer", 1)]
    assert any("call0 has changed" in note for note in comparison.notes)
    assert any("another collar" in note for note in comparison.notes)
    named = await evaluate(asked(calls, name="renamed", compare_with="calls"))
    assert named.comparisons[0].evaluation == f"calls/{third.id}"
    with pytest.raises(InvalidOption, match="no evaluation 'never'"):
        await evaluate(asked(calls, compare_with="never"))


async def test_a_recording_that_fails_is_a_row_and_not_the_end(tmp_path: Path, double: ComputeDouble) -> None:
    calls = tmp_path / "calls"
    reference(calls, "good", seed=1)
    (calls / "broken.wav").write_bytes(b"this is no recording")
    (calls / "broken.stm").write_text(STM.format(name="broken", text="hello"))
    recording(calls / "odd.wav", seed=2)
    (calls / "odd.stm").write_text("odd 1 ann 0.5\n")
    recording(calls / "untold.wav", seed=3)
    with pytest.raises(EvaluationIncomplete, match="2 of 3 transcripts") as raised:
        await evaluate(asked(calls))
    found = raised.value.evaluation
    assert found is not None
    table = rows(found)
    assert (table["broken"].code, table["broken"].exit_code) == ("unreadable_media", 3)
    assert table["odd"].error.startswith("odd.stm, line 1: 4 fields instead of 5")
    assert table["good"].scores is not None
    assert (found.overall[0].recordings, found.overall[0].failed) == (1, 2)
    assert any("untold" in warning for warning in found.warnings)
    assert "**broken** with auto:" in Path(found.files["md"]).read_text()
    # A recording without truth costs nothing.
    assert sum(stage == "asr" for stage in double.ran) == 1


async def test_failed_diarization_still_scores_the_words(tmp_path: Path, double: ComputeDouble) -> None:
    reference(tmp_path / "calls", "one", seed=1)
    double.failures["cluster"] = [InvalidOption("no")]
    with pytest.raises(EvaluationIncomplete) as raised:
        await evaluate(asked(tmp_path / "calls"))
    assert raised.value.evaluation is not None
    row = raised.value.evaluation.rows[0]
    assert (row.code, row.exit_code) == ("diarization_failed", 7)
    assert row.scores is not None and row.scores.words is not None and row.scores.diarization is None


async def test_what_cannot_work_is_refused_before_anything_is_computed(tmp_path: Path, double: ComputeDouble) -> None:
    recording(tmp_path / "calls" / "one.wav", seed=1)
    with pytest.raises(InvalidReference, match="None of the 1 recordings has a reference"):
        await evaluate(asked(tmp_path / "calls"))
    (tmp_path / "calls" / "one.txt").write_text(TEXT)
    with pytest.raises(UnknownModel):
        await evaluate(asked(tmp_path / "calls", models=("tiny.en", "no-such-model")))
    assert double.jobs == []


async def test_a_manifest_names_truth_and_options_of_its_own(tmp_path: Path, double: ComputeDouble) -> None:
    recording(tmp_path / "audio" / "a.wav", seed=1)
    recording(tmp_path / "audio" / "b.wav", seed=2)
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / "all.stm").write_text(STM.format(name="a", text=TEXT) + STM.format(name="b", text="one two"))
    (tmp_path / "truth" / "all.rttm").write_text(RTTM.format(name="a", seconds=4) + RTTM.format(name="b", seconds=4))
    (tmp_path / "set.csv").write_text(
        "source,reference,num_speakers,_note\n"
        "audio/a.wav,truth/all.stm;truth/all.rttm,1,\n"
        "audio/b.wav,truth/all.stm,many,\n"
        "audio/c.wav,truth/gone.stm,,\n"
    )
    with pytest.raises(EvaluationIncomplete) as raised:
        await evaluate(EvaluateRequest(references=str(tmp_path / "set.csv"), output_dir=str(tmp_path / "out")))
    assert raised.value.evaluation is not None
    table = rows(raised.value.evaluation)
    assert raised.value.evaluation.name == "set"
    assert table["a"].scores is not None and table["a"].scores.words.errors == 0  # type: ignore[union-attr]
    assert table["b"].code == "invalid_option" and table["b"].error.startswith("num_speakers:")
    assert table["c"].code == "source_not_found"
    assert [job.params["num_speakers"] for job in double.jobs if job.stage == "cluster"] == [1]


async def test_a_transcript_left_beside_its_recording_is_noticed(tmp_path: Path, double: ComputeDouble) -> None:
    reference(tmp_path / "calls", "one", seed=1)
    found = await evaluate(asked(tmp_path / "calls"))
    (tmp_path / "calls" / "one.stm").unlink()
    shutil.copy(tmp_path / "out" / "auto" / "one.json", tmp_path / "calls" / "one.json")
    assert not found.warnings
    found = await evaluate(asked(tmp_path / "calls"))
    assert any("The reference is identical to the transcript" in warning for warning in found.warnings)


async def test_an_interrupted_evaluation_takes_up_the_runs_that_it_had_made(tmp_path: Path, double: ComputeDouble) -> None:
    """Cancelled within its second recording, then retried as Prefect's Retry button does it."""
    from prefect.flow_engine import run_flow_async
    from prefect.states import Pending

    for seed in range(3):
        reference(tmp_path / "calls", f"call{seed}", seed=seed)
    waiting = asyncio.Event()
    seen = 0

    async def hold() -> None:
        nonlocal seen
        seen += 1
        if seen == 2:
            waiting.set()
            await asyncio.sleep(60)

    double.before["asr"] = hold
    request = asked(tmp_path / "calls", name="interrupted")
    task = asyncio.create_task(evaluate(request, return_state=True))
    await asyncio.wait_for(waiting.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with get_client() as client:
        children = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=["evaluation:interrupted"]))
        )
        states = {child.name.split(" ")[0]: child.state.name for child in children if child.state}
        assert states == {"call0": "Completed", "call1": "Cancelled"}
        from prefect.client.schemas.filters import FlowRunFilterName

        runs = await client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=["evaluate interrupted"])))
        await client.set_flow_run_state(runs[0].id, Pending(), force=True)
        run = await client.read_flow_run(runs[0].id)
    double.before.clear()
    double.forget()
    found = await run_flow_async(evaluate, flow_run=run, parameters={"request": request}, return_type="result")
    assert len(found.rows) == 3 and not found.failed
    assert double.ran.count("asr") == 2
    async with get_client() as client:
        children = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=["evaluation:interrupted"]))
        )
    assert sorted(child.run_count for child in children) == [1, 1, 2]
    assert found.previous is None
    assert (await history.latest("interrupted")) is not None


_EVALUATE = """
import asyncio, sys
from uuid import UUID
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow_async
from flows.evaluate import evaluate

async def main():
    async with get_client() as client:
        run = await client.read_flow_run(UUID(sys.argv[1]))
    found = await run_flow_async(evaluate, flow_run=run, parameters=evaluate.validate_parameters(run.parameters), return_type="result")
    print(len(found.rows), len(found.failed))

asyncio.run(main())
"""


@pytest.mark.matrix
async def test_a_killed_evaluation_goes_on_where_it_was(tmp_path: Path, steno: StenoSettings) -> None:
    """`kill -9` within the second of three recordings; the same flow run is then executed by another process."""
    for seed in range(3):
        reference(tmp_path / "calls", f"call{seed}", seed=seed)
    log, plan = tmp_path / "log", tmp_path / "plan.json"
    plan.write_text(json.dumps({"log": str(log), "seconds": {"asr": 2.0}}))
    async with get_client() as client:
        made = await client.create_flow_run(
            evaluate,
            parameters={"request": asked(tmp_path / "calls", name="killed").model_dump(mode="json")},
        )
        environment = os.environ | {
            "PREFECT_API_URL": str(client.api_url),
            "STENO_COMPUTE__BACKEND": BACKEND,
            "STUB_PLAN": str(plan),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _EVALUATE, str(made.id)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    process = start()
    deadline = time.monotonic() + 120
    while executions(log)["asr"] < 2 and time.monotonic() < deadline:  # noqa: ASYNC110  another process writes it
        await asyncio.sleep(0.1)
    process.kill()
    process.wait()
    assert executions(log)["asr"] == 2
    process = start()
    printed, _ = await asyncio.to_thread(process.communicate, timeout=120)
    assert printed.split() == ["3", "0"]
    # Only what was under way is done again: asr of the second recording.
    assert executions(log)["asr"] == 4
    assert executions(log)["segment"] == 3
    async with get_client() as client:
        children = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=["evaluation:killed"]))
        )
    assert sorted(child.state.name for child in children if child.state) == ["Completed"] * 3


def test_a_request_is_refused_with_a_sentence() -> None:
    for options, says in [
        ({"variants": {"slow": {"batch_size": 0}}}, "variants.slow.batch_size: "),
        ({"variants": {"odd": {"beam": 5}}}, "variants.odd.beam: "),
        ({"name": "…"}, "must contain a letter or a digit"),
        ({"options": {"min_speakers": 3, "max_speakers": 2}}, "min_speakers (3) is above max_speakers (2)"),
    ]:
        with pytest.raises(ValidationError) as refused:
            EvaluateRequest(references="calls", **options)
        assert says in str(refused.value)
    assert EvaluateRequest(references="s3://bucket/Our Calls/").series == "our-calls"
    assert list(EvaluateRequest(references="c", models=("a", "b"), variants={"x": {}, "y": {}}).systems) == [
        "a x",
        "a y",
        "b x",
        "b y",
    ]


@pytest.mark.timeout(900)
async def test_real_models_are_held_to_the_truth_of_a_real_conversation(tmp_path: Path) -> None:
    """pyannote's own sample, whose RTTM and STM lie beside it in its package."""
    sample = Path(str(importlib.metadata.distribution("pyannote.audio").locate_file("pyannote/audio/sample")))
    calls = tmp_path / "calls"
    shutil.copytree(sample, calls, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    found = await evaluate(asked(calls, models=("tiny.en",)))
    one = found.overall[0]
    assert one.words is not None and one.speaker_words is not None and one.diarization is not None
    assert one.model.endswith("tiny.en")
    assert 0.02 < one.words.rate < 0.25
    assert one.words.rate <= one.speaker_words.rate < 0.4
    assert 0.01 < one.diarization.rate < 0.12
    assert (one.speakers_right, one.speakers_counted) == (1, 1)
    assert one.times_real_time is not None
    assert json.loads(Path(found.files["json"]).read_text())["rows"][0]["scores"]["language"] == "en"
