"""How far a run is: shown while it runs, never back, and nobody waits for it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient, get_client

from flows.progress import SHARES, Progress, RunProgress, read_progress
from flows.request import TranscribeRequest
from flows.transcribe import transcribe
from infra.progress import StageEvent, publish
from speech.stages import STEPS
from tasks.report import run_id
from tests.prefect_views import run_of
from tests.stage_double import ComputeDouble, recording


def event(stage: str, state: Any, fraction: float = 0.0, run: str = "r") -> StageEvent:
    return StageEvent(run, stage, state, fraction)


def test_every_stage_has_a_weight() -> None:
    assert set(SHARES) == set(STEPS)


def test_the_stages_at_work_are_told_in_their_order() -> None:
    progress = RunProgress("r")
    for one in (event("embed", "progress", 0.8), event("asr", "progress", 0.43), event("fetch", "completed", 1.0)):
        progress(one)
    assert progress.now().description == "asr 43 %, embed 80 %"
    progress(event("embed", "completed", 1.0))
    assert progress.now().description == "asr 43 %"


def test_progress_never_goes_back_not_even_when_a_stage_is_tried_again() -> None:
    progress = RunProgress("r")
    progress(event("asr", "progress", 0.9))
    before = progress.now().percent
    progress(event("asr", "started"))
    progress(event("other", "progress", 1.0))
    progress(event("embed", "progress", 0.9, run="another run"))
    assert progress.now().percent == before > 0


def test_what_is_left_out_does_not_count() -> None:
    progress = RunProgress("r")
    for stage in ("align", "embed", "diarize"):
        progress(event(stage, "skipped"))
    for stage in ("fetch", "segment"):
        progress(event(stage, "cached", 1.0))
    assert progress.now().percent == round(100 * 7 / 37, 1)


def test_it_is_done_only_when_the_run_is() -> None:
    progress = RunProgress("r")
    for stage in STEPS:
        progress(event(stage, "completed", 1.0))
    assert progress.now().percent < 100
    assert progress.ended(None) == Progress(percent=100, description="done")
    assert progress.ended(asyncio.CancelledError()).description == "cancelled"


def test_events_may_come_from_any_thread() -> None:
    progress = RunProgress("r")
    with ThreadPoolExecutor(8) as threads:
        for stage in STEPS:
            for step in range(101):
                threads.submit(progress, event(stage, "progress", step / 100))
    assert 0 < progress.now().percent <= 99.9


@pytest.mark.usefixtures("prefect_server", "steno")
async def test_a_long_stage_is_seen_to_move(tmp_path: Path, double: ComputeDouble) -> None:
    seen: list[Progress] = []

    async def at_work() -> None:
        """asr works in steps, and ends once each has been read back from Prefect."""
        from prefect.context import TaskRunContext

        context = TaskRunContext.get()
        assert context is not None and context.task_run.flow_run_id is not None
        async with get_client() as client, asyncio.timeout(60):
            for step in (0.25, 0.75):
                publish(StageEvent(run_id(), "asr", "progress", step))
                while True:
                    progress = await read_progress(client, context.task_run.flow_run_id)
                    if progress is not None and f"asr {step:.0%}".replace("%", " %") in progress.description:
                        break
                    await asyncio.sleep(0.1)
                seen.append(progress)

    double.before["asr"] = at_work
    asked = TranscribeRequest(source=str(recording(tmp_path / "a.wav")), output_dir=str(tmp_path / "out"))
    state = await transcribe(asked, return_state=True)
    assert state.is_completed()
    async with get_client() as client:
        last = await read_progress(client, run_of(state))
    assert last is not None
    assert 0 < seen[0].percent < seen[1].percent < last.percent == 100
    assert last.description == "done"


@pytest.mark.usefixtures("prefect_server", "steno")
async def test_a_server_that_does_not_take_it_does_not_hold_up_the_run(
    tmp_path: Path, double: ComputeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[float] = []

    async def hang(*args: Any, **kwargs: Any) -> None:
        calls.append(asyncio.get_running_loop().time())
        await asyncio.sleep(600)

    monkeypatch.setattr("flows.progress._PATIENCE", 0.2)
    monkeypatch.setattr("flows.report._PATIENCE", 0.2)
    monkeypatch.setattr(PrefectClient, "create_artifact", hang)
    asked = TranscribeRequest(source=str(recording(tmp_path / "a.wav")), output_dir=str(tmp_path / "out"))
    async with asyncio.timeout(120):
        assert (await transcribe(asked, return_state=True)).is_completed()
    assert calls
