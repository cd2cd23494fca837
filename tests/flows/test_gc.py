"""Runs whose store is collected: what is gone is computed again, and nothing goes that a run needs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from flows.gc import GcRequest, gc
from flows.request import TranscribeRequest
from flows.result import TranscribeResult
from flows.transcribe import transcribe
from infra.collect import Limits, collect
from infra.compute import get_store
from infra.settings import get_settings
from infra.store import Store
from stenoflow.cli.main import run as steno_command
from stenoflow.errors import ArtifactMissing, OutputNotWritable
from tests.s3_faults import FaultyS3
from tests.stage_double import TEXT, ComputeDouble, recording

pytestmark = [pytest.mark.usefixtures("prefect_server", "steno"), pytest.mark.slow]


async def run(source: Path, name: str = "out", **options: Any) -> TranscribeResult:
    recording(source) if not source.exists() else None
    return await transcribe(TranscribeRequest(source=str(source), output_dir=str(source.parent / name), **options))


def computed(result: TranscribeResult) -> set[str]:
    return {stage.stage for stage in result.stages if stage.state == "computed"} - {"export"}


def kinds() -> set[str]:
    return {file.path.split("/")[1] for file in get_store().files("artifacts")}


# -- collecting ---------------------------------------------------------------------------------------------------------


async def test_what_was_collected_is_computed_again(tmp_path: Path, double: ComputeDouble) -> None:
    first = await run(tmp_path / "a.wav")
    collected = await gc(GcRequest(older_than_days=0))
    assert (collected.artifacts, kinds()) == (7, set())
    assert list(get_store().files("records/uses")) == []
    again = await run(tmp_path / "a.wav")
    assert computed(again) == {"fetch", "segment", "asr", "align", "embed", "diarize", "merge"}
    assert again.transcript == first.transcript


async def test_retention_of_a_request_is_what_the_scheduled_collection_goes_by(tmp_path: Path, double: ComputeDouble) -> None:
    await run(tmp_path / "a.wav", retention_days=0)
    await run(tmp_path / "b.wav", retention_days=30)
    assert (await gc()).artifacts == 0  # the same samples under two names
    recording(tmp_path / "c.wav", seed=3)
    await run(tmp_path / "c.wav", retention_days=0)
    collected = await gc()
    # The double's words are always the same: the other run holds those.
    assert (collected.artifacts, collected.in_use, collected.kept) == (3, 7, 7)
    double.forget()
    await run(tmp_path / "a.wav")
    assert double.ran == []


async def test_the_command_says_what_it_freed(
    tmp_path: Path, double: ComputeDouble, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "no-runs-yet"))
    await run(tmp_path / "a.wav")

    def said(*arguments: str) -> str:
        assert steno_command(["gc", *arguments]) == 0
        return capsys.readouterr().out

    capsys.readouterr()
    assert "7 artifacts would be removed" in await asyncio.to_thread(said, "--older-than", "0", "--dry-run")
    assert "0 artifacts removed (0 B)" in await asyncio.to_thread(said, "--older-than", "1d", "--max-size", "1GB")
    freed = json.loads(await asyncio.to_thread(said, "--max-size", "0", "--json"))
    assert (freed["artifacts"], freed["kept"], freed["busy"]) == (7, 0, False)
    assert await asyncio.to_thread(steno_command, ["gc", "--older-than", "soon"]) == 2
    assert "30d" in capsys.readouterr().err


# -- artifacts that vanish under a run ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "before", "executed_twice"),
    [
        ("audio", "segment", {"segment"}),
        ("segmentation", "cluster", {"segment", "cluster"}),
        ("asr", "merge", {"asr", "merge"}),
    ],
)
async def test_an_artifact_that_vanishes_mid_run_is_computed_again(
    tmp_path: Path, double: ComputeDouble, kind: str, before: str, executed_twice: set[str]
) -> None:
    """Somebody deletes it, or a disk loses it: the run goes back to the stage that makes it."""
    lost = False

    async def lose() -> None:
        nonlocal lost
        if not lost:
            lost = True
            for file in list(get_store().files(f"artifacts/{kind}")):
                get_store().delete(file.path)
            # The double reads no inputs, as the engine's stages do.
            raise ArtifactMissing(f"The {kind} artifact is no longer in the store; run again to recompute it.")

    double.before[before] = lose
    result = await run(tmp_path / "a.wav")
    assert {stage for stage in double.ran if double.ran.count(stage) > 1} == executed_twice
    assert TEXT in Path(result.files["json"]).read_text()
    assert not result.degraded


async def test_what_vanishes_again_and_again_is_a_clear_error(tmp_path: Path, double: ComputeDouble) -> None:
    async def lose() -> None:
        raise ArtifactMissing("The audio artifact is no longer in the store; run again to recompute it.")

    double.before["segment"] = lose
    with pytest.raises(ArtifactMissing, match="run again"):
        await run(tmp_path / "a.wav")
    assert double.ran == ["segment"] * 3


# -- both at once -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["folder", "s3"])
async def test_runs_and_collections_at_once(
    where: str, tmp_path: Path, double: ComputeDouble, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything goes as soon as no run uses it; no run notices."""
    if where == "s3":
        service: FaultyS3 = request.getfixturevalue("faulty_s3")
        for name, value in service.environment(service.bucket()).items():
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()
    # Nothing may vanish under a run at all.
    monkeypatch.setattr("flows.usage._TIMES_LOST", 0)
    sources = [recording(tmp_path / f"{seed}.wav", seed=seed) for seed in range(2)]
    for stage in ("asr", "embed", "cluster"):
        double.before[stage] = lambda: asyncio.sleep(0.05)
    store, settings = get_store(), get_settings()
    going, collections, removed = True, 0, 0

    async def collecting() -> None:
        nonlocal collections, removed
        while going:
            collected = await asyncio.to_thread(collect, store, settings, Limits(older_than=0))
            collections, removed = collections + 1, removed + collected.artifacts
            await asyncio.sleep(0.1)

    collector = asyncio.create_task(collecting())
    results: list[TranscribeResult] = []
    for turn in range(3):
        options = {"max_speakers": 2 + turn % 2}
        results += await asyncio.gather(*(run(source, f"{turn}-{number}", **options) for number, source in enumerate(sources)))
    going = False
    await collector
    assert all(TEXT in Path(result.files["json"]).read_text() for result in results)
    assert all(not result.degraded for result in results)
    assert collections > 3
    assert removed > 7


async def test_a_store_that_may_only_be_read_still_serves_what_is_in_it(
    tmp_path: Path, double: ComputeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run(tmp_path / "a.wav")
    double.forget()

    def refused(self: Store, *_: Any, **__: Any) -> None:
        raise OutputNotWritable("Not permitted; check the permissions of STENO_STORE.")

    for name in ("write_record", "_commit", "delete_record"):
        monkeypatch.setattr(Store, name, refused)
    result = await run(tmp_path / "a.wav", "elsewhere")
    assert double.ran == []
    assert Path(result.files["json"]).is_file()
    with pytest.raises(OutputNotWritable, match="STENO_STORE"):
        await run(tmp_path / "a.wav", "a third place", hotwords="new")
