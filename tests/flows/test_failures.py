"""What a failure costs: retries that follow the error, a transcript that outlives its speakers, nothing left behind."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.flow_engine import run_flow_async
from prefect.states import State

from flows.request import TranscribeRequest
from flows.result import DiarizationFailed, TranscribeResult
from flows.transcribe import transcribe
from infra.progress import StageEvent, listening
from infra.settings import StenoSettings, get_settings
from stenoflow.errors import (
    DownloadFailed,
    GatedModel,
    OutOfMemory,
    OutputNotWritable,
    StageFailed,
    StageTimeout,
    TransientError,
    UnknownModel,
)
from tests.stage_double import TEXT, ComputeDouble, recording

pytestmark = [pytest.mark.usefixtures("prefect_server", "steno"), pytest.mark.slow]


def request(source: Path, **options: Any) -> TranscribeRequest:
    recording(source) if not source.exists() else None
    return TranscribeRequest(source=str(source), output_dir=str(source.parent / "out"), **options)


def report(result: TranscribeResult, stage: str) -> Any:
    return next(entry for entry in result.stages if entry.stage == stage)


def left_in_scratch(steno: StenoSettings) -> list[Path]:
    return [path for path in steno.scratch_path.rglob("*") if path.is_file()]


async def test_transient_error_is_tried_again(tmp_path: Path, double: ComputeDouble) -> None:
    double.failures["asr"] = [TransientError("the worker was lost"), TransientError("the worker was lost")]
    result = await transcribe(request(tmp_path / "a.wav"))
    assert double.ran.count("asr") == 3
    assert report(result, "asr").attempts == 3


async def test_transient_error_gives_up_after_the_retries_that_are_set(tmp_path: Path, double: ComputeDouble) -> None:
    double.failures["segment"] = [TransientError("the worker was lost")] * 9
    with pytest.raises(TransientError):
        await transcribe(request(tmp_path / "a.wav"))
    assert double.ran == ["segment"] * 4


async def test_error_that_cannot_pass_is_not_tried_again(tmp_path: Path, double: ComputeDouble) -> None:
    double.failures["segment"] = [GatedModel("accept the licence first")]
    with pytest.raises(GatedModel, match="accept the licence first"):
        await transcribe(request(tmp_path / "a.wav"))
    assert double.ran == ["segment"]


async def test_defect_is_not_tried_again_and_its_text_is_kept_out_of_prefect(tmp_path: Path, double: ComputeDouble) -> None:
    double.failures["segment"] = [ValueError("what was said")]
    state: State[Any] = await transcribe(request(tmp_path / "a.wav"), return_state=True)
    assert double.ran == ["segment"]
    assert "unexpected ValueError" in (state.message or "")
    async with get_client() as client:
        logs = await client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[state.state_details.flow_run_id])))
    assert "what was said" not in (state.message or "") + "".join(log.message for log in logs)


async def test_out_of_memory_halves_the_batch_until_it_fits(tmp_path: Path, double: ComputeDouble) -> None:
    double.failures["asr"] = [OutOfMemory("too much"), OutOfMemory("too much")]
    await transcribe(request(tmp_path / "a.wav", batch_size=8))
    assert [job.runtime.batch_size for job in double.jobs if job.stage == "asr"] == [8, 4, 2]


async def test_out_of_memory_with_a_batch_of_one_is_final(tmp_path: Path, double: ComputeDouble) -> None:
    double.failures["asr"] = [OutOfMemory("too much")] * 9
    with pytest.raises(OutOfMemory):
        await transcribe(request(tmp_path / "a.wav", batch_size=4))
    assert [job.runtime.batch_size for job in double.jobs if job.stage == "asr"] == [4, 2, 1]


async def test_a_smaller_batch_finds_the_same_record(tmp_path: Path, double: ComputeDouble) -> None:
    double.failures["asr"] = [OutOfMemory("too much")]
    await transcribe(request(tmp_path / "a.wav"))
    double.forget()
    await transcribe(request(tmp_path / "a.wav"))
    assert double.ran == []


async def test_stage_that_takes_too_long_is_stopped(
    tmp_path: Path, double: ComputeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"TIMEOUT__FLOOR": "0.2", "TIMEOUT__FACTOR": "0.01", "RETRY__ATTEMPTS": "1"}.items():
        monkeypatch.setenv(f"STENO_{name}", value)
    get_settings.cache_clear()
    double.before["segment"] = lambda: asyncio.sleep(600)
    with pytest.raises(StageTimeout, match="segment"):
        await transcribe(request(tmp_path / "a.wav"))
    assert double.stopped == ["segment", "segment"]


async def test_cancelling_the_run_stops_both_branches(tmp_path: Path, double: ComputeDouble, steno: StenoSettings) -> None:
    at_work = asyncio.Barrier(3)

    async def wait() -> None:
        await at_work.wait()
        await asyncio.sleep(600)

    double.before |= {"asr": wait, "embed": wait}
    run = asyncio.create_task(transcribe(request(tmp_path / "a.wav")))
    await at_work.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert sorted(double.stopped) == ["asr", "embed"]
    assert left_in_scratch(steno) == []


async def test_nothing_is_left_in_scratch(tmp_path: Path, double: ComputeDouble, steno: StenoSettings) -> None:
    await transcribe(request(tmp_path / "a.wav"))
    double.failures["merge"] = [ValueError("a bug")]
    with pytest.raises(StageFailed):
        await transcribe(request(tmp_path / "a.wav", max_speakers=2))
    assert left_in_scratch(steno) == []


async def test_failed_embedding_keeps_the_transcript_and_fails_the_run(tmp_path: Path, double: ComputeDouble) -> None:
    double.failures["embed"] = [GatedModel("accept the licence first")]
    with pytest.raises(DiarizationFailed, match=r"without speakers.*accept the licence first.*Retry") as raised:
        await transcribe(request(tmp_path / "a.wav"))
    result = raised.value.result
    assert result is not None
    written = json.loads(Path(result.files["json"]).read_text())
    assert [word["word"] for word in written["word_segments"]] == TEXT.split()
    assert not any("speaker" in word and word["speaker"] for word in written["word_segments"])
    assert written["options"]["diarization"] == "failed"
    assert (result.degraded, result.error) == (True, "accept the licence first")
    assert report(result, "embed").state == "failed"


async def test_failed_diarization_can_be_accepted(tmp_path: Path, double: ComputeDouble) -> None:
    double.failures["cluster"] = [GatedModel("accept the licence first")]
    result = await transcribe(request(tmp_path / "a.wav", on_diarization_failure="degrade"))
    assert result.degraded
    assert any("accept the licence first" in warning for warning in result.warnings)


async def test_running_again_repeats_only_the_speakers(tmp_path: Path, double: ComputeDouble) -> None:
    double.failures["embed"] = [GatedModel("accept the licence first")]
    with pytest.raises(DiarizationFailed):
        await transcribe(request(tmp_path / "a.wav"))
    double.forget()
    result = await transcribe(request(tmp_path / "a.wav"))
    assert double.ran == ["embed", "cluster", "merge"]
    assert (result.degraded, result.speakers) == (False, 1)


async def test_retry_of_a_deployed_run_repeats_only_the_speakers(tmp_path: Path, double: ComputeDouble) -> None:
    """As the Retry button does it: the run is set to AwaitingRetry, and a worker takes it up with the stored parameters."""
    double.failures["embed"] = [GatedModel("accept the licence first")]
    async with get_client() as client:
        deployment = await client.create_deployment(flow_id=await client.create_flow(transcribe), name=tmp_path.name)
        parameters = {"request": request(tmp_path / "a.wav").model_dump(mode="json")}
        flow_run = await client.create_flow_run_from_deployment(deployment, parameters=parameters)
        state = await as_a_worker(client, flow_run.id)
        assert (state.name, state.is_failed()) == ("Partial", True)
        assert "without speakers" in (state.message or "")
        double.forget()
        body = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": False}
        answer = await client._client.post(f"/flow_runs/{flow_run.id}/set_state", json=body)
        assert answer.json()["status"] == "ACCEPT"
        assert (await as_a_worker(client, flow_run.id)).is_completed()
    assert double.ran == ["embed", "cluster", "merge"]
    assert '"SPEAKER_00"' in (tmp_path / "out" / "a.json").read_text()


async def as_a_worker(client: PrefectClient, flow_run_id: UUID) -> State[Any]:
    """Take up the run as any process would that knows nothing but its id."""
    flow_run = await client.read_flow_run(flow_run_id)
    parameters = transcribe.validate_parameters(flow_run.parameters)
    state: State[Any] = await run_flow_async(flow=transcribe, flow_run=flow_run, parameters=parameters, return_type="state")
    return state


async def test_failed_text_fails_the_run_with_its_own_error(tmp_path: Path, double: ComputeDouble) -> None:
    double.failures["asr"] = [GatedModel("accept the licence first")]
    with pytest.raises(GatedModel):
        await transcribe(request(tmp_path / "a.wav"))
    assert not (tmp_path / "out" / "a.json").exists()


async def test_misspelt_model_is_refused_before_anything_is_fetched(tmp_path: Path, double: ComputeDouble) -> None:
    seen: list[StageEvent] = []
    with listening(seen.append), pytest.raises(UnknownModel, match="larg"):
        await transcribe(request(tmp_path / "a.wav", model="larg-v3"))
    assert seen == []


async def test_output_that_cannot_be_written_is_refused_before_anything_is_fetched(
    tmp_path: Path, double: ComputeDouble
) -> None:
    (tmp_path / "out").write_text("a file where the folder should be")
    seen: list[StageEvent] = []
    with listening(seen.append), pytest.raises(OutputNotWritable, match="out"):
        await transcribe(request(tmp_path / "a.wav"))
    assert seen == []


async def test_broken_download_is_tried_again(tmp_path: Path, double: ComputeDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    import infra.sources

    real, calls = infra.sources.fetch_source, []

    def unsteady(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise DownloadFailed("the connection broke")
        return real(*args, **kwargs)

    monkeypatch.setattr(infra.sources, "fetch_source", unsteady)
    result = await transcribe(request(tmp_path / "a.wav"))
    assert report(result, "fetch").attempts == 2
