"""The benchmarks' rows and what a measured process costs."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import pytest

from bench.accuracy import evaluate, ratios, table
from bench.memory import Point, growth
from bench.peers import Outcome, SystemFailed
from bench.recordings import Truth, Turn
from bench.systems import measured
from speech.scoring import Spoken

HOLD = "import sys, time; held = b'x' * int(sys.argv[1]); time.sleep(3)"
"""Python that holds so many bytes for a while."""

TRUTH = Truth(
    name="talk",
    language="en",
    duration=10.0,
    turns=(
        Turn("ann", 1.0, 2.0, "good morning", ((1.0, 2.0),), (("good", 1.0, 1.4), ("morning", 1.5, 2.0))),
        Turn("bob", 3.0, 5.0, "hello there", ((3.0, 5.0),)),
    ),
    activity=(("ann", 1.0, 2.0), ("bob", 3.0, 5.0)),
)

OUTCOME = Outcome(
    system="stenoflow",
    language="en",
    text="Good morning. Hello here.",
    segments=[Spoken("Good morning. Hello here.", 1.0, 5.0, "S0")],
    words=[
        Spoken("Good", 1.1, 1.4, "S0"),
        Spoken("morning.", 1.5, 2.0, "S0"),
        Spoken("Hello", 3.0, 4.0, "S1"),
        Spoken("here.", None, None, None),
    ],
    turns=[("S0", 1.0, 2.0), ("S1", 3.0, 4.5)],
    seconds=4.0,
    load_seconds=1.0,
)


def test_a_row_holds_every_metric() -> None:
    row = evaluate(TRUTH, "base", OUTCOME)
    assert row.wer == row.wer_whisper == pytest.approx(0.25)
    assert row.der == pytest.approx(0.5 / 3)
    # "there" is missing from bob, and "here" is nobody's.
    assert row.cp_wer == pytest.approx(0.5)
    assert (row.wrong_words, row.words_matched) == (0, 3)
    assert (row.speakers_found, row.speakers_true) == (2, 2)
    assert row.words_timed == 2
    assert row.start_mae == pytest.approx(0.05)
    assert row.start_bias == pytest.approx(0.05)
    assert (row.backwards, row.without_time, row.without_speaker) == (0, 1, 1)
    assert row.times_real_time == pytest.approx(2.0)


def test_a_word_of_another_speaker_is_counted_once_and_names_do_not_matter() -> None:
    said = [Spoken("good", 1.1, 1.4, "S1"), Spoken("morning", 1.5, 2.0, "S1"), Spoken("hello", 3.0, 4.0, "S1")]
    row = evaluate(TRUTH, "base", replace(OUTCOME, words=said))
    assert (row.wrong_words, row.words_matched) == (1, 3)
    row = evaluate(TRUTH, "base", replace(OUTCOME, words=[*said[:2], Spoken("hello", 3.0, 4.0, None)]))
    assert (row.wrong_words, row.words_matched) == (1, 3)


def test_what_a_system_does_not_give_is_a_dash_not_a_zero() -> None:
    row = evaluate(TRUTH, "base", replace(OUTCOME, words=None))
    assert (row.start_mae, row.backwards, row.without_time, row.without_speaker) == (None,) * 4
    row = evaluate(TRUTH, "base", replace(OUTCOME, words=None, turns=None))
    assert (row.der, row.cp_wer, row.speakers_found) == (None,) * 3
    assert "| talk | base | stenoflow | en | 25.0 % | 25.0 % | – | – | – | – | –/2 | – | – | – | – |" in table([row])


def test_ratios_compare_the_runs_that_both_did() -> None:
    mine = evaluate(TRUTH, "base", OUTCOME)
    peer = evaluate(TRUTH, "base", replace(OUTCOME, system="whisperx", text="good day", seconds=11.5))
    alone = evaluate(TRUTH, "tiny.en", replace(OUTCOME, system="whisperx"))
    assert ratios([mine, peer, alone]) == "stenoflow / whisperx: mean WER × 0.33, wall time with loading × 0.40 (1 runs)"
    assert ratios([peer]) == ""


def test_memory_of_children_counts() -> None:
    spawn = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD!r}, '200000000'])"
    alone, _ = measured([sys.executable, "-c", HOLD, "0"], dict(os.environ), 60)
    cost, _ = measured([sys.executable, "-c", spawn], dict(os.environ), 60)
    assert 190e6 < cost.peak_bytes - alone.peak_bytes < 300e6


def test_what_the_command_printed_comes_back() -> None:
    _, printed = measured([sys.executable, "-c", "print('one'); print('two')"], dict(os.environ), 60)
    assert printed == "one\ntwo\n"


def test_a_failed_command_says_its_last_words() -> None:
    with pytest.raises(SystemFailed, match="exit code 3: no such model"):
        measured(
            [sys.executable, "-c", "import sys; print('no such model', file=sys.stderr); sys.exit(3)"], dict(os.environ), 60
        )


def test_a_command_that_never_ends_is_ended() -> None:
    with pytest.raises(SystemFailed, match="no result within 1 s"):
        measured([sys.executable, "-c", "import time; time.sleep(600)"], dict(os.environ), 1)


def test_growth_is_told_per_hour() -> None:
    short = Point("10 min", 600.0, 1_000_000_000, 0, 1.0, 1)
    long = Point("1 h", 4200.0, 1_050_000_000, 0, 1.0, 1)
    assert growth([short, long]) == "From 10 min to 1 h: +50 MB per hour of audio."
