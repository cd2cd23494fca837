"""What is computed again on request, which runs are quarantined, and runs that are cancelled through Prefect's API."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State
from prefect.flow_engine import run_flow_async
from prefect.states import AwaitingRetry, Cancelled, Cancelling, Completed, Crashed, Failed, Pending, Running, Scheduled

from flows.attempts import BATCH_DIED, BESIDE_OTHERS, BY_HAND, RESTARTED, deaths
from flows.execution import create_run, execute_here
from flows.outcome import read_outcome
from flows.request import TranscribeRequest
from flows.retry import NothingToRetry, RunAmbiguous, RunNotFound, RunUnderWay, find_run, new_run, planned
from flows.transcribe import transcribe
from infra.settings import StenoSettings, get_settings
from stenoflow.errors import GatedModel, Quarantined, SourceError, StageCancelled
from tests.stage_double import ComputeDouble, recording

pytestmark = [pytest.mark.usefixtures("prefect_server", "steno"), pytest.mark.slow]


def request(folder: Path, **options: Any) -> TranscribeRequest:
    source = folder / "a.wav"
    recording(source) if not source.exists() else None
    return TranscribeRequest(source=str(source), output_dir=str(folder / "out"), **options)


# -- redo_from ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "executed"),
    [
        ("fetch", ["segment", "asr", "align", "embed", "cluster", "merge"]),
        ("asr", ["asr", "align", "merge"]),
        ("diarize", ["cluster", "merge"]),
    ],
)
async def test_a_stage_and_all_that_follow_are_computed_again_on_request(
    tmp_path: Path, double: ComputeDouble, stage: Any, executed: list[str]
) -> None:
    await transcribe(request(tmp_path))
    double.forget()
    result = await transcribe(request(tmp_path, redo_from=stage))
    assert sorted(double.ran) == sorted(executed)
    assert {entry.stage: entry.state for entry in result.stages}["fetch"] == ("computed" if stage == "fetch" else "cached")
    double.forget()
    await transcribe(request(tmp_path))
    assert double.ran == []


async def test_a_resumed_run_does_not_redo_what_it_has_redone(tmp_path: Path, double: ComputeDouble) -> None:
    await transcribe(request(tmp_path))
    double.forget()
    double.failures["merge"] = [StageCancelled("interrupted")]
    async with get_client() as client:
        run = await create_run(client, request(tmp_path, redo_from="segment"), idempotency_key=uuid4().hex)
        await execute_here(run)
        assert sorted(double.ran) == ["align", "asr", "cluster", "embed", "merge", "segment"]
        double.forget()
        state = await execute_here(await client.read_flow_run(run.id))
    assert state.is_completed()
    assert double.ran == ["merge"]


# -- runs whose process dies --------------------------------------------------------------------------------------------

DIED = [Running(), Crashed()]


@pytest.mark.parametrize(
    ("history", "died"),
    [
        ([Running()], 0),
        ([*DIED, AwaitingRetry(message=RESTARTED), Running()], 1),
        ([Running(), Running(), Running()], 2),
        ([*DIED, AwaitingRetry(message=RESTARTED), *DIED, AwaitingRetry(message=RESTARTED), Running()], 2),
        ([*DIED, *DIED, AwaitingRetry(message="Retry from the UI"), Running()], 0),
        ([*DIED, *DIED, Failed(), AwaitingRetry(message=RESTARTED), Running()], 0),
        (
            [Running(), Completed(), AwaitingRetry(), *DIED, AwaitingRetry(message="State changed by Automation 1"), Running()],
            1,
        ),
        ([Scheduled(), *DIED, Cancelled(), Running()], 0),
        ([*DIED, *DIED, Pending(message=BY_HAND), Running()], 0),
        ([*DIED, Running(), Crashed(message=BATCH_DIED), Pending(), Running()], 1),
        ([*DIED, *DIED, Pending(message=BESIDE_OTHERS), Running(), Running()], 1),
    ],
)
def test_deaths_are_counted_since_the_run_ended_or_a_person_retried_it(history: list[State[Any]], died: int) -> None:
    base = history[0].timestamp
    moments = [state.model_copy(update={"timestamp": base.add(seconds=place)}) for place, state in enumerate(history)]
    assert deaths(moments) == died


async def test_a_run_that_keeps_dying_is_set_aside_and_a_person_may_retry_it(tmp_path: Path, double: ComputeDouble) -> None:
    async with get_client() as client:
        deployment = await client.create_deployment(flow_id=await client.create_flow(transcribe), name=tmp_path.name)
        run = await create_run(client, request(tmp_path), idempotency_key=uuid4().hex, deployment_id=deployment)
        for _ in range(get_settings().recovery.restarts):
            await client.set_flow_run_state(run.id, Running())
            await client.set_flow_run_state(run.id, Crashed(message="Process exited with status code: -9."))
            await client.set_flow_run_state(run.id, AwaitingRetry(message=RESTARTED))
        state = await as_a_worker(client, run.id)
        assert (state.name, state.is_failed()) == ("Quarantined", True)
        assert "died 3 times" in (state.message or "")
        assert double.ran == []
        outcome = await read_outcome(str(run.id))
        assert outcome is not None and outcome.error is not None
        assert (outcome.state, outcome.error.code, outcome.error.exit_code) == ("failed", "quarantined", 8)
        with pytest.raises(Quarantined):
            await state.aresult()
        await client.set_flow_run_state(run.id, AwaitingRetry(message="Retry from the UI"))
        assert (await as_a_worker(client, run.id)).is_completed()


async def as_a_worker(client: PrefectClient, run_id: UUID) -> State[Any]:
    """Take up the run as any process would that knows nothing but its id."""
    run = await client.read_flow_run(run_id)
    parameters = transcribe.validate_parameters(run.parameters)
    state: Any = await run_flow_async(flow=transcribe, flow_run=run, parameters=parameters, return_type="state")
    return state


# -- cancelling ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def watched(steno: StenoSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STENO_RECOVERY__CANCEL_POLL", "0.1")
    get_settings.cache_clear()


async def cancel_during(double: ComputeDouble, folder: Path, stages: set[str], state: State[Any]) -> tuple[FlowRun, State[Any]]:
    """Set the run to `state` while `stages` are at work; the run and how it ended."""
    at_work = asyncio.Barrier(len(stages) + 1)

    async def wait() -> None:
        await at_work.wait()
        await asyncio.sleep(600)

    double.before = dict.fromkeys(stages, wait)
    async with get_client() as client:
        run = await create_run(client, request(folder), idempotency_key=uuid4().hex)
        execution = asyncio.create_task(execute_here(run))
        await asyncio.wait_for(at_work.wait(), 60)
        await client.set_flow_run_state(run.id, state)
        return run, await asyncio.wait_for(execution, 30)


@pytest.mark.parametrize(
    ("stages", "how"), [({"asr", "embed"}, Cancelling()), ({"segment"}, Cancelled())], ids=["button", "forced"]
)
@pytest.mark.usefixtures("watched")
async def test_cancelling_through_the_api_stops_stages_and_ends_cancelled(
    tmp_path: Path, double: ComputeDouble, stages: set[str], how: State[Any]
) -> None:
    run, state = await cancel_during(double, tmp_path, stages, how)
    assert sorted(double.stopped) == sorted(stages)
    assert state.is_cancelled()
    async with get_client() as client:
        stored = (await client.read_flow_run(run.id)).state
        assert stored is not None and stored.is_cancelled()
        names = await ended(client, run.id, len(stages) + 1 + (len(stages) > 1))
    assert {name: count for name, count in names.items() if name != "Completed"} == {"Cancelled": len(stages)}
    outcome = await read_outcome(str(run.id))
    assert outcome is not None and outcome.state == "canceled"


async def ended(client: PrefectClient, run: UUID, count: int) -> dict[str, int]:
    """State names of the run's task runs, once Prefect has recorded all of them as ended."""
    async with asyncio.timeout(30):
        while True:
            runs = await client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])))
            names = [task_run.state.name or "" for task_run in runs if task_run.state is not None and task_run.state.is_final()]
            if len(names) >= count:
                return {name: names.count(name) for name in names}
            await asyncio.sleep(0.2)


@pytest.mark.usefixtures("watched")
async def test_a_cancelled_run_goes_on_from_its_finished_stages(tmp_path: Path, double: ComputeDouble) -> None:
    run, _ = await cancel_during(double, tmp_path, {"asr", "embed"}, Cancelling())
    double.before.clear()
    double.forget()
    async with get_client() as client:
        state = await execute_here(await client.read_flow_run(run.id))
    assert state.is_completed()
    assert sorted(double.ran) == ["align", "asr", "cluster", "embed", "merge"]


# -- which run is retried, and how --------------------------------------------------------------------------------------


async def finished(client: PrefectClient, folder: Path, **options: Any) -> FlowRun:
    """A run of the command line that has ended."""
    run = await create_run(client, request(folder, **options), idempotency_key=uuid4().hex)
    await execute_here(run)
    return await client.read_flow_run(run.id)


async def test_a_run_is_found_by_id_beginning_and_name(tmp_path: Path, double: ComputeDouble) -> None:
    async with get_client() as client:
        one, two = [await finished(client, tmp_path, name=f"{tmp_path.name} {place}") for place in "12"]
        for name in (str(one.id), str(one.id)[:13], f"{tmp_path.name} 1"):
            assert (await find_run(client, name)).id == one.id
        for name in (str(uuid4()), "0" * 12, "no such recording"):
            with pytest.raises(RunNotFound, match="no run"):
                await find_run(client, name)
        await client.set_flow_run_name(two.id, f"{tmp_path.name} 1")
        assert (await find_run(client, f"{tmp_path.name} 1")).id == two.id


async def test_of_several_runs_of_a_name_the_latest_that_failed_is_retried(tmp_path: Path, double: ComputeDouble) -> None:
    double.failures["cluster"] = [GatedModel("accept the licence first")]
    name = tmp_path.name
    async with get_client() as client:
        done = await finished(client, tmp_path / "other", name=name)
        latest = await finished(client, tmp_path / "third", name=name)
        assert (await find_run(client, name)).id in (done.id, latest.id)
        states = {run.id: run.state_name for run in (done, latest)}
        failed = next(id_ for id_, state in states.items() if state != "Completed")
        assert (await find_run(client, name)).id == failed
        assert (await find_run(client, name, failed=False)).id == latest.id
        again = await finished(client, tmp_path / "other", name=name)  # the same recording, completed since
        assert again.state_name == "Completed"
        assert (await find_run(client, name)).id == again.id


async def test_the_beginning_of_several_ids_is_refused(
    tmp_path: Path, double: ComputeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.retry._SHORTEST_PREFIX", 0)
    async with get_client() as client:
        for place in "12":
            await finished(client, tmp_path, name=f"{tmp_path.name} {place}")
        with pytest.raises(RunAmbiguous, match="begin with"):
            await find_run(client, "")


async def test_a_retry_goes_on_in_place_or_makes_a_new_run(tmp_path: Path, double: ComputeDouble) -> None:
    double.failures["cluster"] = [GatedModel("accept the licence first")]
    async with get_client() as client:
        run = await finished(client, tmp_path, min_speakers=2)
        for stage in (None, "diarize", "merge"):
            assert (await planned(run, {}, stage, force=False)).changed is (stage == "merge")
        assert (await planned(run, {"min_speakers": 2}, None, force=False)).changed is False
        other = await planned(run, {"num_speakers": 3}, None, force=False)
        assert (other.changed, other.request.num_speakers, other.request.min_speakers) == (True, 3, None)
        assert (await planned(run, {}, "asr", force=False)).request.redo_from == "asr"
        new = await new_run(client, other, here=True)
        assert f"retry-of:{run.id}" in new.tags
        double.forget()
        assert (await execute_here(new)).is_completed()
    assert double.ran == ["cluster", "merge"]


async def test_a_run_completed_without_speakers_may_be_retried_as_the_button_does(
    tmp_path: Path, double: ComputeDouble
) -> None:
    double.failures["embed"] = [GatedModel("accept the licence first")]
    async with get_client() as client:
        deployment = await client.create_deployment(flow_id=await client.create_flow(transcribe), name=tmp_path.name)
        degraded = request(tmp_path, on_diarization_failure="degrade")
        run = await create_run(client, degraded, idempotency_key=uuid4().hex, deployment_id=deployment)
        assert (await as_a_worker(client, run.id)).is_completed()
        assert (await planned(await client.read_flow_run(run.id), {}, None, force=False)).changed is False
        double.forget()
        body = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": False}
        answer = await client._client.post(f"/flow_runs/{run.id}/set_state", json=body)
        assert answer.json()["status"] == "ACCEPT"
        assert (await as_a_worker(client, run.id)).is_completed()
        assert double.ran == ["embed", "cluster", "merge"]
        with pytest.raises(NothingToRetry, match="is complete"):
            await planned(await client.read_flow_run(run.id), {}, None, force=False)


async def test_what_cannot_be_retried_says_why(tmp_path: Path, double: ComputeDouble) -> None:
    async with get_client() as client:
        run = await create_run(client, request(tmp_path), idempotency_key=uuid4().hex)
        await client.set_flow_run_state(run.id, Running())
        run = await client.read_flow_run(run.id)
        with pytest.raises(RunUnderWay, match=r"is running.*--force"):
            await planned(run, {}, None, force=False)
        assert (await planned(run, {}, None, force=True)).changed is False
        assert (await execute_here(run, by_hand=True)).is_completed()
        piped = await create_run(client, TranscribeRequest(source="-"), idempotency_key=uuid4().hex)
        await client.set_flow_run_state(piped.id, Failed())
        with pytest.raises(SourceError, match="standard input"):
            await planned(await client.read_flow_run(piped.id), {}, None, force=False)
