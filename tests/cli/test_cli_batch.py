"""`steno batch` before anything is computed: its help, its refusals, what it prints and draws."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from rich.console import Console

from flows.batching.drive import BatchEvent
from flows.batching.ended import Ended
from flows.batching.request import BatchRequest
from flows.batching.table import BatchResult, Table
from flows.doors import GROUPS
from flows.options import TranscribeOptions
from infra.progress import StageEvent
from infra.settings import StenoSettings
from stenoflow.cli.batch import command, print_batch, print_ended
from stenoflow.cli.batch_progress import BatchTable
from stenoflow.cli.options import GroupedOption, option_name, with_option_names
from stenoflow.cli.session import Display
from tests.cli.test_cli import steno

DONE = Ended(name="talk.wav", state="done", run="r1", duration=60.0, seconds=20.0, cost=0.01, files=("/out/talk.json",))
FAILED = Ended(name="bad.mp3", state="failed", code="unreadable_media", detail="bad.mp3 is no recording.", exit_code=3, line=4)


def test_every_field_is_an_option_with_its_description_and_a_section() -> None:
    context = click.Context(command, info_name="steno batch", help_option_names=["-h", "--help"])
    text = " ".join(command.get_help(context).split())
    for model in (BatchRequest, TranscribeOptions):
        for name, field in model.model_fields.items():
            if name not in ("source", "options"):
                assert option_name(name) in text
                assert " ".join(with_option_names(str(field.description)).split()) in text
    options = [option for option in command.get_params(context) if isinstance(option, click.Option) and not option.is_eager]
    assert {option.group for option in options if isinstance(option, GroupedOption)} <= set(GROUPS)
    assert not [option.name for option in options if not isinstance(option, GroupedOption)]


def test_help_loads_nothing_heavy() -> None:
    heavy = ("torch", "prefect", "rich", "asyncio", "ctranslate2", "fsspec", "numpy")
    code = f"import sys\nfrom stenoflow.cli.main import run\nrun(['batch', '--help'])\nprint('LOADED', *sorted(set(sys.modules) & set({heavy!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "LOADED"


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["gone"], 3, "no folder or file"),
        (["-"], 3, "standard input"),
        ([".", "--min-speakers", "3", "--max-speakers", "2"], 2, "--min-speakers"),
        ([".", "--concurrency", "0"], 2, "concurrency"),
        ([".", "--model", "no-such-model"], 2, "no-such-model"),
        ([".", "--output-dir", "file/below"], 3, "is a file"),
    ],
)
def test_what_cannot_work_is_refused_at_once(tmp_path: Path, args: list[str], code: int, says: str) -> None:
    (tmp_path / "file").touch()
    done = steno("batch", *args, folder=tmp_path)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "prefect").exists()


def test_the_table_counts_sums_and_keeps_every_row(steno: StenoSettings, tmp_path: Path) -> None:
    table = Table(str(tmp_path / "out"), "0123456789")
    for row in (DONE, FAILED, Ended(name="=cmd()|x", state="quarantined", exit_code=8), Ended(name="old.wav", state="skipped")):
        table.add(row)
    result = table.finish()
    assert (result.done, result.failed, result.quarantined, result.skipped, result.listed) == (1, 1, 1, 1, 4)
    assert (result.duration, result.cost, result.exit_code) == (60.0, 0.01, 3)
    assert result.sentence == "1 done, 1 failed, 1 quarantined, 1 skipped."
    text = Path(str(result.table)).read_text()
    assert len(text.splitlines()) == 5
    assert "'=cmd()|x" in text  # no spreadsheet computes it
    assert not list(steno.scratch_path.iterdir())


def test_nothing_new_leaves_no_table(steno: StenoSettings, tmp_path: Path) -> None:
    table = Table(str(tmp_path / "out"), "0123456789")
    table.add(Ended(name="old.wav", state="skipped"))
    assert table.finish().table is None
    assert not (tmp_path / "out").exists()


def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    result = BatchResult(
        listed=2, done=1, failed=1, quarantined=0, skipped=0, more=True, duration=60.0, seconds=30.0, cost=None,
        table="/out/batch.csv", exit_code=3, problems=(FAILED,),
    )  # fmt: skip
    print_batch(result, Display(as_json=False, quiet=False, verbose=False, debug=False), "in")
    shown = capsys.readouterr()
    assert shown.err == "steno: error: bad.mp3 is no recording.\n"
    assert shown.out.startswith(
        "in: 1 done, 1 failed; the others are left for the next batch. 1 min 00 s of recordings in 30.0 s (2.0 times"
    )
    assert "/out/batch.csv" in shown.out
    print_batch(result, Display(as_json=True, quiet=False, verbose=False, debug=False), "in")
    print_ended(BatchEvent("ended", "bad.mp3", row=FAILED))
    batch, row = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (batch["type"], batch["failed"], batch["more"]) == ("batch", 1, True)
    assert (row["type"], row["code"], row["line"]) == ("recording", "unreadable_media", 4)


def test_the_terminal_shows_what_is_at_work() -> None:
    table = BatchTable("recordings", utf8=True)
    table.on_event(BatchEvent("began", "talk.wav", "r1"))
    table(StageEvent("r1", "asr", "progress", 0.5))
    table(StageEvent("other", "asr", "progress", 0.5))
    table.on_event(BatchEvent("ended", "bad.mp3", "r0", FAILED))
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    shown = str(console.file.getvalue())  # type: ignore[attr-defined]
    assert "recordings  1 failed" in shown
    assert "talk.wav" in shown
    assert "asr" in shown
    table.on_event(BatchEvent("ended", "talk.wav", "r1", DONE))
    console.print(table)
    assert "1 done" in console.file.getvalue()  # type: ignore[attr-defined]
