"""Text that is found so far: there while the stage is at work, in order, and nowhere afterwards."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from infra import drafts, usage
from infra.collect import Limits, collect
from infra.drafts import Draft, Drafting, draft_of
from infra.removal import remove_run
from infra.settings import StenoSettings
from infra.store import Store
from infra.usage import Use
from speech.schema import AsrSegment
from speech.stages import said
from stenoflow.errors import TransientError

KEY = "ab" * 32


def segment(text: str, start: float) -> AsrSegment:
    return AsrSegment(start=start, end=start + 1, text=text, words=(), regions=(), avg_logprob=-0.1)


@pytest.fixture
def store(steno: StenoSettings) -> Store:
    return Store.from_settings(steno)


def used(store: Store, run: str = "run", **fields: Any) -> None:
    usage.write_use(store, Use(run=run, keys=("cd" * 32, KEY), **{"beat": time.time(), **fields}))


def drafted(store: Store, *texts: Sequence[str]) -> Drafting:
    drafting = Drafting(store, KEY, lambda _: None)
    for number, batch in enumerate(texts):
        said(drafting, [segment(text, 10.0 * number + at) for at, text in enumerate(batch)], "fr")
    return drafting


def test_a_run_has_the_text_of_its_own_stage(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "_SECONDS", 0.0)
    used(store)
    usage.write_use(store, Use(run="other", keys=("ef" * 32,), beat=time.time()))
    drafting = drafted(store, ["un", "deux"], [], ["trois  quatre", ""])
    found = draft_of(store, "run")
    assert found.language == "fr"
    assert [(each.text, each.start) for each in found.segments] == [("un", 0.0), ("deux", 1.0), ("trois quatre", 20.0)]
    assert draft_of(store, "other") == draft_of(store, "unheard of") == Draft()
    drafting.remove()
    assert draft_of(store, "run") == Draft()


def test_it_is_written_now_and_then_only(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    used(store)
    drafting = drafted(store, ["a"], ["b"])
    assert [each.text for each in draft_of(store, "run").segments] == ["a"]
    now += 1.0
    said(drafting, [segment("c", 20.0)])
    assert [each.text for each in draft_of(store, "run").segments] == ["a", "b", "c"]


def test_a_store_that_takes_none_stops_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise TransientError("the store is away")

    monkeypatch.setattr(Store, "write_record", refuse)
    monkeypatch.setattr(Store, "delete_record", refuse)
    drafted(store, ["a"]).remove()


def test_a_damaged_draft_is_as_none(store: Store) -> None:
    used(store)
    drafted(store, ["a"])
    store.storage.write(f"records/drafts/{KEY}", b"{torn")
    assert draft_of(store, "run") == Draft()


def test_what_a_killed_process_left_goes_with_its_run(store: Store, steno: StenoSettings) -> None:
    used(store, ended=True)
    drafted(store, ["secret words"])
    assert remove_run(store, steno, "run")
    assert store.read_record(f"drafts/{KEY}") is None


@pytest.mark.parametrize(("age", "there"), [(drafts.ABANDONED - 60, True), (drafts.ABANDONED + 60, False)])
def test_or_after_a_day(store: Store, steno: StenoSettings, age: float, there: bool) -> None:
    used(store)
    drafted(store, ["secret words"])
    at = time.time() - age
    os.utime(Path(store.address(f"records/drafts/{KEY}")), (at, at))
    collect(store, steno, Limits())
    assert (store.read_record(f"drafts/{KEY}") is not None) == there


def test_a_stage_leaves_none_however_it_ends(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from infra import local
    from infra.jobs import StageJob
    from speech.schema import RuntimeOptions

    seen: list[str] = []

    def stage(
        _name: str, _inputs: Any, _params: Any, _runtime: Any, output: Path, progress: Any, _shard: Any
    ) -> dict[str, Any]:
        said(progress, [segment("words", 0.0)])
        seen.extend(each.text for each in draft_of(store, "run").segments)
        if len(seen) > 1:
            raise ValueError("the stage fails")
        output.write_text("{}")
        return {}

    used(store)
    monkeypatch.setattr(local, "run_stage", stage)
    job = StageJob(stage="asr", key=KEY, inputs={}, params={}, runtime=RuntimeOptions(models_dir=str(tmp_path)))
    compute = local.LocalCompute(store)
    compute.compute(job, lambda _: None)
    assert draft_of(store, "run") == Draft()
    with pytest.raises(ValueError, match="the stage fails"):
        compute.compute(job, lambda _: None)
    assert seen == ["words", "words"]
    assert store.read_record(f"drafts/{KEY}") is None
