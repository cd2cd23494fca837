"""The run graph in Prefect's views: which stage an arrow leads from, whatever was reused, left out or failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.request import TranscribeRequest
from flows.transcribe import transcribe
from speech.stages import STEPS
from stenoflow.errors import GatedModel
from tasks.graph import after, upstream
from tests.prefect_views import graph, run_of
from tests.stage_double import ComputeDouble, recording

WHOLE = {
    "fetch": set(),
    "segment": {"fetch"},
    "asr": {"segment"},
    "align": {"asr"},
    "embed": {"segment"},
    "diarize": {"embed"},
    "merge": {"align", "diarize"},
    "export": {"merge"},
}


@pytest.mark.parametrize(
    ("ran", "before_merge"),
    [
        (STEPS, ("align", "diarize")),
        (("fetch", "segment", "asr", "embed", "diarize"), ("asr", "diarize")),
        (("fetch", "segment", "asr", "align"), ("align",)),
        (("fetch", "segment", "asr"), ("asr",)),
        (("fetch", "segment", "asr", "align", "embed"), ("align", "embed")),
    ],
)
def test_a_stage_follows_the_nearest_that_ran_and_no_other(ran: tuple[str, ...], before_merge: tuple[str, ...]) -> None:
    assert upstream("merge", ran) == before_merge


def test_what_follows_a_stage_is_all_that_is_made_from_it() -> None:
    assert after("asr") == ("asr", "align", "merge", "export")
    assert after("embed") == ("embed", "diarize", "merge", "export")
    assert after("fetch") == STEPS


async def shown(source: Path, nodes: int = 8, **options: Any) -> dict[str, set[str]]:
    asked = TranscribeRequest(source=str(recording(source)), output_dir=str(source.parent / "out"), **options)
    return await graph(run_of(await transcribe(asked, return_state=True)), nodes)


@pytest.mark.usefixtures("prefect_server", "steno")
async def test_both_branches_leave_segment_and_meet_in_merge_computed_or_reused(tmp_path: Path, double: ComputeDouble) -> None:
    assert await shown(tmp_path / "a.wav") == WHOLE
    double.forget()
    assert await shown(tmp_path / "a.wav") == WHOLE
    assert double.ran == []


@pytest.mark.usefixtures("prefect_server", "steno")
async def test_stages_left_out_are_bridged(tmp_path: Path, double: ComputeDouble) -> None:
    assert await shown(tmp_path / "a.wav", nodes=5, align=False, diarize=False) == {
        "fetch": set(),
        "segment": {"fetch"},
        "asr": {"segment"},
        "merge": {"asr"},
        "export": {"merge"},
    }


@pytest.mark.usefixtures("prefect_server", "steno")
async def test_a_failed_diarization_still_leads_to_merge(tmp_path: Path, double: ComputeDouble) -> None:
    double.failures["embed"] = [GatedModel("accept the licence first")]
    expected = {stage: edges for stage, edges in WHOLE.items() if stage != "diarize"} | {"merge": {"align", "embed"}}
    assert await shown(tmp_path / "a.wav", nodes=7) == expected
