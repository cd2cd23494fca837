"""What the speed benchmark prints follows from what it measured, and its recording is what its truth says."""

from __future__ import annotations

from typing import Any

import pytest

from bench import several
from bench.accuracy import Row
from bench.recordings import Truth
from bench.speed import Results, ratios, spread, stages, starting, table

TRUTH = Truth("meeting-1min", "en", 60.0, (), ())


def row(system: str, cpu: float, wall: float, **other: Any) -> Row:
    facts: dict[str, Any] = dict.fromkeys(Row.__dataclass_fields__)
    facts |= {"recording": "meeting-1min", "system": system, "wer": 0.05, "der": 0.1, "peak_bytes": 10**9}
    return Row(**facts | {"seconds": wall, "load_seconds": 0.0, "cpu_seconds": cpu, "times_real_time": 60 / wall} | other)


@pytest.fixture
def results() -> Results:
    found = Results(TRUTH)
    found.rows = {
        "stenoflow": [row("stenoflow", 10, 8), row("stenoflow", 20, 10)],
        "whisperx": [row("whisperx", 100, 80), row("whisperx", 120, 90)],
        "faster-whisper": [row("faster-whisper", 12, 9, der=None)],
    }
    spent = {"seconds": 1.0, "cpu_seconds": 2.0}
    names = ("imports", "load models", "decode", "segment", "embed", "cluster", "asr", "align")
    found.engine = [{"duration": 60.0, "stages": dict.fromkeys(names, spent), "again": {"an hour, 2 speakers": spent}}]
    found.starts = [{"all": 9.0}, {"all": 11.0}]
    return found


def test_the_spread_is_shown_where_there_is_one() -> None:
    assert spread([3.0], "{:.0f}") == spread([3.0, 3.1], "{:.0f}") == "3"
    assert spread([1.0, 4.0, 2.0], "{:.0f}") == "2 (1–4)"


def test_ratios_are_of_the_same_round_and_the_same_work(results: Results) -> None:
    first, second = ratios(results).splitlines()
    assert "whisperx / stenoflow: CPU seconds × 8.0 (6.0–10.0), wall time × 9.5 (9.0–10.0) (2 rounds)" in first
    assert "CPU seconds × 1.0, wall time × 1.5 (1 rounds)" in second


def test_the_tables_hold_every_system_stage_and_part(results: Results) -> None:
    assert [line.split(" | ")[0] for line in table(results).splitlines()[2:]] == [
        "| stenoflow",
        "| whisperx",
        "| faster-whisper",
    ]
    assert table(results).splitlines()[-1].split(" | ")[-2:] == ["–", "– |"]
    assert "| asr | 2.00 | 2.00 | 1.00 |" in stages(results)
    assert "| other speakers: an hour, 2 speakers | 2.00 | – | 1.00 |" in stages(results)
    assert "| all | 10.0 (9.0–11.0) |" in starting(results)


def test_without_measurements_nothing_is_claimed() -> None:
    empty = Results(TRUTH)
    assert ratios(empty) == stages(empty) == starting(empty) == ""


def test_a_batch_is_compared_with_a_command_for_each() -> None:
    ways = [several.Way("a command for each", 60.0, 90.0, 10**9), several.Way("one batch, 2 at a time", 40.0, 50.0, 2 * 10**9)]
    assert several.table(ways, 600.0).splitlines()[2:] == [
        "| a command for each | 60 | 90 | 10.0 | 1.00 | 1.00 |",
        "| one batch, 2 at a time | 40 | 50 | 15.0 | 2.00 | 1.50 |",
    ]
