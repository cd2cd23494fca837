"""What a batch's table says: counts, exit code, CSV, summary and what the artifact shows of many rows."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from flows.batching import table as tables
from flows.batching.ended import Ended, ended_as, keep_ended, read_all_ended, read_ended
from flows.batching.table import BatchResult, Table, _shown_row, _summary
from flows.outcome import RunOutcome, error_of
from infra.compute import get_store
from infra.prices import dollars
from infra.settings import StenoSettings
from stenoflow.errors import CorruptMedia, GatedModel, Retry, StenoError, TransientError


def row(name: str, state: Any = "done", **fields: Any) -> Ended:
    return Ended(name=name, state=state, **fields)


def finished(folder: Path, *rows: Ended) -> tuple[Table, BatchResult]:
    table = Table(str(folder), "0123456789abcdef")
    for each in rows:
        table.add(each)
    return table, table.finish()


def written(result: BatchResult) -> list[dict[str, str]]:
    assert result.table is not None
    with Path(result.table).open(newline="") as file:
        return list(csv.DictReader(file))


DONE = row(
    "a.wav", duration=60.0, seconds=20.0, cost=0.25, language="en", speakers=2, files=("out/a.json", "s3://b/a.srt"), run="r1"
)
FAILED = row("b.wav", "failed", code="corrupt_media", exit_code=3, detail="It is damaged.", line=7)
SET_ASIDE = row("c.wav", "quarantined", exit_code=8)
SKIPPED = row("d.wav", "skipped")
LEFT = row("notes.txt", "left", detail="not a recording: a text")


def test_each_state_is_counted_and_only_what_was_done_adds_up(tmp_path: Path, steno: StenoSettings) -> None:
    second = row("e.wav", duration=30.0, seconds=10.0, cost=0.5)
    failed = FAILED.model_copy(update={"duration": 999.0, "cost": 9.0})
    _, result = finished(tmp_path, DONE, second, failed, SET_ASIDE, SKIPPED, LEFT, LEFT)
    assert (result.listed, result.done, result.failed, result.quarantined, result.skipped, result.left) == (5, 2, 1, 1, 1, 2)
    assert (result.duration, result.cost) == (90.0, 0.75)
    assert result.left_because == {"not a recording: a text": 2}
    assert result.sentence == "2 done, 1 failed, 1 quarantined, 1 skipped, 2 files left: not recordings."
    assert [problem.name for problem in result.problems] == ["b.wav", "c.wav"]


@pytest.mark.parametrize("costs", [(None, 0.5), (0.5, None)])
def test_a_price_that_is_not_known_makes_the_sum_unknown(
    tmp_path: Path, steno: StenoSettings, costs: tuple[float | None, ...]
) -> None:
    _, result = finished(tmp_path, *(row(f"{number}.wav", cost=cost) for number, cost in enumerate(costs)))
    assert result.cost is None


@pytest.mark.parametrize(
    ("codes", "exit_code"), [((), 0), ((3,), 3), ((7,), 7), ((7, 3), 3), ((3, 7), 3), ((6, 3), 6), ((0,), 1), ((7, 7), 7)]
)
def test_the_exit_code_is_the_first_failures_and_missing_speakers_are_the_least(
    tmp_path: Path, steno: StenoSettings, codes: tuple[int, ...], exit_code: int
) -> None:
    _, result = finished(tmp_path, DONE, *(row(f"{code}.wav", "failed", exit_code=code) for code in codes))
    assert result.exit_code == exit_code


def test_the_csv_has_every_row_and_nothing_that_a_spreadsheet_would_execute(tmp_path: Path, steno: StenoSettings) -> None:
    formula = row("=HYPERLINK(1).wav", duration=0.0, seconds=1.0)
    _, result = finished(tmp_path, DONE, FAILED, formula)
    first, second, third = written(result)
    assert (first["duration_seconds"], first["run_seconds"], first["times_real_time"], first["cost_usd"]) == (
        "60.0",
        "20.0",
        "3.0",
        "0.25",
    )
    assert (first["language"], first["speakers"], first["files"]) == ("en", "2", "out/a.json s3://b/a.srt")
    assert (second["state"], second["code"], second["line"], second["duration_seconds"]) == ("failed", "corrupt_media", "7", "")
    assert (third["name"], third["duration_seconds"], third["times_real_time"]) == ("'=HYPERLINK(1).wav", "0.0", "")


@pytest.mark.parametrize(
    ("rows", "table"), [((SKIPPED, LEFT), False), ((LEFT,), False), ((SKIPPED, FAILED), True), ((DONE,), True)]
)
def test_a_table_is_written_where_there_is_something_new(
    tmp_path: Path, steno: StenoSettings, rows: tuple[Ended, ...], table: bool
) -> None:
    _, result = finished(tmp_path, *rows)
    assert (result.table is not None) is table
    assert bool(list(tmp_path.glob("batch-*.csv"))) is table
    assert not list(steno.scratch_path.glob("batch-*")), "nothing stays in the scratch folder"


def test_a_table_that_cannot_be_written_fails_the_batch_and_keeps_its_rows(tmp_path: Path, steno: StenoSettings) -> None:
    (tmp_path / "out").write_text("a file where the folder should be")
    _, result = finished(tmp_path / "out", DONE)
    assert result.table is None and result.exit_code
    (kept,) = steno.scratch_path.glob("batch-*.csv")
    assert "a.wav" in kept.read_text() and str(kept) in result.trouble


def test_what_is_shown_of_many_is_what_failed_and_then_what_was_done_last(
    tmp_path: Path, steno: StenoSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "SHOWN", 4)
    done = [row(f"{number}.wav") for number in range(9)]
    few, _ = finished(tmp_path, *done, FAILED)
    assert [each.name for each in few.shown()] == ["b.wav", "6.wav", "7.wav", "8.wav"]
    all_failed, result = finished(tmp_path, *done, *[FAILED] * 6)
    assert [each.name for each in all_failed.shown()] == ["b.wav"] * 4
    assert (result.failed, len(result.problems)) == (6, 4)


def test_the_summary_says_how_fast_how_dear_and_what_went_wrong(tmp_path: Path, steno: StenoSettings) -> None:
    _, result = finished(tmp_path, DONE, FAILED.model_copy(update={"name": "b|c.wav"}), SKIPPED, LEFT)
    text = _summary(result.model_copy(update={"seconds": 30.0}), "in")
    assert text.startswith(f"**in**: {result.sentence}")
    assert f"1.0 min of recordings in 0.5 min, 2.0 × real time, {dollars(0.25)}." in text
    assert f"Every recording's row: `{result.table}`" in text
    assert "| b/c.wav | failed | It is damaged. |" in text and "more in the CSV" not in text
    assert "Skipped recordings were done before" in text and "| 1 | not a recording: a text |" in text


def test_a_summary_of_nothing_new_names_no_table(tmp_path: Path, steno: StenoSettings) -> None:
    _, result = finished(tmp_path, LEFT)
    text = _summary(result, "in")
    assert "Nothing was new." in text and "$" not in text and "real time" not in text and "Skipped" not in text
    assert "nothing listed" not in text and "| recording |" not in text


@pytest.mark.parametrize(("failures", "hidden"), [(50, None), (51, 1), (70, 20)])
def test_a_summary_shows_fifty_failures_and_counts_the_others(
    tmp_path: Path, steno: StenoSettings, failures: int, hidden: int | None
) -> None:
    _, result = finished(tmp_path, *[FAILED] * failures)
    text = _summary(result, "in")
    assert text.count("| b.wav |") == 50
    assert ("more in the CSV" in text) is (hidden is not None)
    assert hidden is None or f"and {hidden} more in the CSV" in text


def test_a_row_of_the_artifact_is_for_people() -> None:
    shown = _shown_row(DONE)
    assert (shown["duration"], shown["took"], shown["× real time"]) == ("60.0 s", "20.0 s", "3.0")
    assert shown["files"] == "a.json s3://b/a.srt"
    assert (_shown_row(FAILED)["duration"], _shown_row(FAILED)["× real time"], _shown_row(FAILED)["why"]) == (
        "",
        "",
        "It is damaged.",
    )


@pytest.mark.parametrize(
    ("counts", "more", "sentence"),
    [
        ({"done": 980, "quarantined": 20, "skipped": 3}, False, "980 done, 20 quarantined, 3 skipped."),
        ({}, False, "nothing listed."),
        ({"left": 1}, False, "1 file left: not recordings."),
        ({"done": 1}, True, "1 done; the others are left for the next batch."),
    ],
)
def test_the_sentence_of_a_batch(counts: dict[str, int], more: bool, sentence: str) -> None:
    none = dict.fromkeys(("listed", "done", "failed", "quarantined", "skipped"), 0)
    facts = {"duration": 0.0, "seconds": 0.0, "cost": 0.0, "table": None, "exit_code": 0, "more": more}
    assert BatchResult.model_validate(none | facts | counts).sentence == sentence


# -- rows ---------------------------------------------------------------------------------------------------------------


def outcome(state: Any, error: StenoError | None = None) -> RunOutcome:
    return RunOutcome(run="r1", state=state, error=error_of(error) if error else None)


@pytest.mark.parametrize(
    ("left", "state", "code", "retry"),
    [
        (None, "failed", "crashed", Retry.LATER),
        (outcome("canceled"), "failed", "cancelled", Retry.LATER),
        (outcome("failed", CorruptMedia("It is damaged.")), "failed", "corrupt_media", Retry.NEVER),
        (outcome("failed", TransientError("The store was away.")), "failed", TransientError.code, TransientError("x").retry),
        (outcome("partial", GatedModel("Accept the licence.")), "failed", GatedModel.code, Retry.LATER),
    ],
)
def test_what_a_run_left_is_a_row(left: RunOutcome | None, state: str, code: str, retry: Retry) -> None:
    found = ended_as(left, row("a.wav"), degrade=False)
    assert (found.name, found.state, found.code, found.retry) == ("a.wav", state, code, retry)
    assert found.detail and found.exit_code


def test_missing_speakers_count_as_done_where_that_was_asked_for() -> None:
    found = ended_as(outcome("partial", GatedModel("Accept the licence.")), row("a.wav"), degrade=True)
    assert (found.state, found.detail, found.exit_code) == ("done", "without speakers: Accept the licence.", 0)
    failed = ended_as(outcome("failed", GatedModel("Accept the licence.")), row("a.wav"), degrade=True)
    assert failed.state == "failed"


def test_rows_are_read_as_they_were_kept_unless_their_files_are_gone(tmp_path: Path, steno: StenoSettings) -> None:
    there = tmp_path / "a.json"
    there.touch()
    done = row("a.wav", files=(str(there),))
    keep_ended("key", done)
    keep_ended("failed", FAILED)
    assert read_all_ended(["key", "failed", "unknown"]) == [done, FAILED, None]
    there.unlink()
    assert read_ended("key") is None and read_ended("failed") == FAILED


def test_a_row_of_a_later_version_counts_as_done_and_a_damaged_one_does_not(steno: StenoSettings) -> None:
    get_store().write_record("done/later", b'{"name": "a.wav", "state": "archived", "years": 7}')
    get_store().write_record("done/damaged", b'{"name": "a.wa')
    later = read_ended("later")
    assert later is not None and (later.name, later.state) == ("a.wav", "done")
    assert read_ended("damaged") is None
