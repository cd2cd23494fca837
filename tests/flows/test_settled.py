"""The last states of a run are in Prefect's database before a temporary server is stopped."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from flows.request import TranscribeRequest
from flows.settled import Ledger
from flows.transcribe import transcribe
from infra.progress import StageEvent, listening
from tests.stage_double import ComputeDouble, recording

pytestmark = pytest.mark.usefixtures("prefect_server", "steno")


async def test_every_task_run_has_ended_once_the_ledger_is_settled(tmp_path: Path, double: ComputeDouble) -> None:
    ledger, seen = Ledger(), list[StageEvent]()
    with listening(ledger), listening(seen.append):
        await transcribe(TranscribeRequest(source=str(recording(tmp_path / "a.wav")), output_dir=str(tmp_path)))
    assert await ledger.settled(patience=120)
    async with get_client() as client:
        runs = await client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[UUID(seen[0].run)])))
    assert sorted(run.state_name or "" for run in runs) == ["Completed"] * 8


async def test_a_run_that_is_never_recorded_is_not_waited_for_without_end() -> None:
    ledger = Ledger()
    ledger(StageEvent("00000000-0000-0000-0000-000000000000", "asr", "completed"))
    assert not await ledger.settled(patience=0.5)
