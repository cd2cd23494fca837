"""`steno evaluate`: its options, its refusals, and what it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from flows.evaluation.files import flat
from flows.evaluation.report import described, summary
from flows.evaluation.result import Comparison, Delta, Overall, Row
from speech.scoring import DiarizationErrors, Scores, TimeErrors, WordErrors
from stenoflow.cli.evaluate import _request, command
from stenoflow.cli.main import run
from tests.prefect_home import prefect_home
from tests.stage_double import TEXT, recording

WORDS = WordErrors(substitutions=1, deletions=0, insertions=1, reference_words=20)
TURNS = DiarizationErrors(missed=0.5, false_alarm=0.25, confusion=0.25, total=20.0)


def parsed(*args: str) -> Any:
    context = command.make_context("evaluate", list(args))
    options = {
        name: value
        for name, value in context.params.items()
        if name not in ("references", "as_json", "quiet", "verbose", "debug")
    }
    for machine in ("device", "compute_type", "threads", "hf_token", "compute"):
        options.pop(machine, None)
    return _request(context.params["references"], options)


def test_options_reach_the_request() -> None:
    request = parsed(
        *("calls", "-m", "tiny.en", "--model", "base", "-l", "english", "--collar", "0.25", "--skip-overlap"),
        *("--name", "Weekly", "--compare-with", "none", "--max-speakers", "3", "-o", "out", "--recursive"),
    )
    assert request.models == ("tiny.en", "base")
    assert (request.scoring.collar, request.scoring.skip_overlap) == (0.25, True)
    assert (request.series, request.compare_with, request.recursive) == ("weekly", None, True)
    assert {label: (options.model, options.language, options.max_speakers) for label, options in request.systems.items()} == {
        "tiny.en": ("tiny.en", "en", 3),
        "base": ("base", "en", 3),
    }


def test_variants_are_named_options() -> None:
    request = parsed("calls", "--variant", "hints: hotwords=Steno flow, batch-size=4", "--variant", "plain:")
    assert {label: (options.hotwords, options.batch_size) for label, options in request.systems.items()} == {
        "hints": ("Steno flow", 4),
        "plain": (None, None),
    }
    with pytest.raises(click.BadParameter, match="is not NAME:OPTION=VALUE"):
        parsed("calls", "--variant", "hotwords=Stenoflow")


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["calls", "--collar", "-1"], 2, "greater than or equal to 0"),
        (["calls", "--variant", "odd: beam=5"], 2, "variants.odd.beam"),
        (["calls", "--model", "larg-v3"], 2, "Did you mean 'large-v3'"),
        (["nowhere"], 3, "There is no folder or manifest"),
        (["calls", "-l", "xx"], 2, "Unknown language 'xx'"),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    args: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "calls").mkdir()
    monkeypatch.setenv("STENO_HOME", str(tmp_path))
    assert run(["evaluate", *args]) == code
    assert says in capsys.readouterr().err


def test_help_loads_nothing_heavy() -> None:
    heavy = ("torch", "prefect", "rich", "httpx", "ctranslate2", "fsspec", "numpy", "rapidfuzz", "scipy", "pyannote")
    code = f"import sys\nfrom stenoflow.cli.main import run\nrun(['evaluate', '--help'])\nprint('LOADED', *sorted(set(sys.modules) & set({heavy!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "LOADED"


def test_a_system_is_told_in_a_line() -> None:
    one = Overall(
        system="base", recordings=2, words=WORDS, diarization=TURNS, start_mae=0.0421, words_timed=9, times_real_time=3.42
    )
    assert summary(one) == "base: WER 10.0 % of 20 words, DER 5.0 %, word starts 42 ms off, 3.4 × real time"
    assert summary(Overall(system="base", recordings=0)) == "base: nothing could be scored"


@pytest.mark.parametrize(
    ("delta", "says"),
    [
        (
            Delta(metric="wer", recordings=9, before=0.126, after=0.103, low=-0.04, high=-0.006),
            "WER 12.6 % → 10.3 % (−2.3 points, 95 % between −4.0 and −0.6): better",
        ),
        (
            Delta(metric="der", recordings=9, before=0.05, after=0.06, low=-0.001, high=0.02),
            "DER 5.0 % → 6.0 % (+1.0 points, 95 % between −0.1 and +2.0): no clear difference",
        ),
        (
            Delta(metric="word_times", recordings=9, before=0.05, after=0.06, low=0.001, high=0.02),
            "word start error 50 ms → 60 ms (+10 ms, 95 % between +1 and +20): worse",
        ),
        (
            Delta(metric="cpwer", recordings=2, before=0.1, after=0.2),
            "cpWER 10.0 % → 20.0 % (+10.0 points): too few recordings for a verdict",
        ),
        (Delta(metric="wer", recordings=2, before=0.1, after=0.1), "WER 10.0 % → 10.0 % (+0.0 points): the same"),
    ],
)
def test_a_difference_says_whether_it_is_one(delta: Delta, says: str) -> None:
    assert described(delta) == says
    assert Comparison.model_validate_json(Comparison(system="b", baseline="a", deltas=(delta,)).model_dump_json()).deltas == (
        delta,
    )


def test_a_row_of_the_table_has_every_number() -> None:
    times = TimeErrors(matched=10, start_mae=0.05, start_median=0.04, start_bias=-0.01, end_mae=0.06, within_200ms=9)
    row = Row(
        recording="a",
        system="base",
        duration=60.0,
        compute_seconds=20.0,
        devices=("modal L4",),
        scores=Scores(words=WORDS, diarization=TURNS, times=times, language="en"),
    )
    shown = flat(row)
    assert (shown["wer"], shown["der"], shown["within_200ms"], shown["times_real_time"]) == (0.1, 0.05, 0.9, 3.0)
    assert flat(Row(recording="a", system="base", error="gone"))["wer"] is None


@pytest.mark.slow
def test_the_command_scores_what_it_can_and_ends_with_the_failures_code(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    recording(calls / "good.wav", seed=1)
    (calls / "good.txt").write_text(f"{TEXT} and goodbye")
    (calls / "broken.wav").write_bytes(b"this is no recording")
    (calls / "broken.txt").write_text("hello")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("STENO_", "PREFECT_", "HF_"))}
    done = subprocess.run(
        [sys.executable, "-m", "stenoflow.cli.main", "evaluate", "calls", "--model", "tiny.en", "--json"],
        cwd=tmp_path,
        env=clean
        | {
            "STENO_HOME": str(tmp_path / "home"),
            "PREFECT_HOME": str(prefect_home(tmp_path / "prefect")),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]),
            "STENO_COMPUTE__BACKEND": "tests.stub_compute:compute",
            "STENO_BATCH__SETTLE_SECONDS": "0",
        },
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=240,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["type"] for line in lines] == ["progress", "progress", "row", "row", "evaluation"]
    table = {line["recording"]: line for line in lines if line["type"] == "row"}
    assert table["good"]["wer"] == pytest.approx(2 / 5)
    assert table["broken"]["error"]
    assert (lines[-1]["overall"][0]["recordings"], lines[-1]["overall"][0]["failed"]) == (1, 1)
    assert all(Path(path).is_file() for path in lines[-1]["files"].values())
    assert not any(word in done.stdout for word in ("morning", "everyone", "goodbye"))
