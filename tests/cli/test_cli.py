"""The command line without a model: its options, its refusals, what it prints. Bad recordings are in tests/e2e."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click
import pytest
from pydantic import ValidationError
from rich.console import Console

from flows.doors import Door, options_of
from flows.options import FORMATS
from flows.request import TranscribeRequest
from flows.result import StageReport, TranscribeResult
from infra.artifacts import ArtifactRef
from infra.progress import StageEvent
from infra.settings import ComputeSettings
from speech.stages import STEPS
from stenoflow.cli.errors import describe, worst
from stenoflow.cli.options import DEVICES, MACHINE, option_name, with_option_names
from stenoflow.cli.progress import StageTable, lines
from stenoflow.cli.report import duration, print_result, summary
from stenoflow.cli.transcribe import command
from stenoflow.errors import DownloadFailed, GatedModel, StorageFull
from tests.media import make_case
from tests.prefect_home import prefect_home

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("STENO_", "PREFECT_", "HF_"))}


def steno(*args: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own, with nothing on standard input."""
    return subprocess.run(
        [sys.executable, "-m", "stenoflow.cli.main", *args],
        cwd=folder,
        env=CLEAN
        | {"STENO_HOME": str(folder / "home"), "PREFECT_HOME": str(folder / "prefect"), "PYTHONPATH": os.pathsep.join(sys.path)}
        | variables,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=240,
        check=False,
    )


def parsed(*args: str) -> dict[str, Any]:
    """The options as the command receives them."""
    return dict(command.make_context("transcribe", list(args)).params)


# -- start-up and help --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "heavy"),
    [
        (["--help"], ("torch", "prefect", "pydantic", "rich", "asyncio", "httpx", "ctranslate2")),
        (["transcribe", "--help"], ("torch", "prefect", "rich", "asyncio", "httpx", "ctranslate2", "fsspec", "numpy")),
        (["doctor", "--help"], ("torch", "prefect", "pydantic", "rich", "ctranslate2")),
        (["--version"], ("torch", "prefect", "pydantic", "rich", "ctranslate2")),
    ],
)
def test_help_loads_nothing_heavy(args: list[str], heavy: tuple[str, ...]) -> None:
    code = f"import sys\nfrom stenoflow.cli.main import run\nrun({args!r})\nprint('LOADED', *sorted(set(sys.modules) & set({heavy!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "LOADED"


def test_every_field_of_the_request_is_an_option_with_its_description() -> None:
    context = click.Context(command, info_name="steno transcribe")
    text = " ".join(command.get_help(context).split())
    for name in options_of(TranscribeRequest, Door.COMMAND).keys() - {"source"}:
        assert option_name(name) in text
        assert " ".join(with_option_names(str(TranscribeRequest.model_fields[name].description)).split()) in text


@pytest.mark.parametrize(
    ("typed", "offered", "not_offered"),
    [
        ("tran", {"transcribe"}, {"batch"}),
        ("transcribe --layo", {"--layout"}, set()),
        ("transcribe --layout w", {"whisperx"}, {"readable"}),
        ("transcribe --format s", {"srt"}, {"txt"}),
        ("transcribe --format srt,t", {"srt,txt", "srt,tsv"}, {"srt,vtt", "srt,srt"}),
    ],
)
def test_a_shell_completes(tmp_path: Path, typed: str, offered: set[str], not_offered: set[str]) -> None:
    words = f"steno {typed}"
    done = steno(folder=tmp_path, _STENO_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))
    found = {line.partition(",")[2] for line in done.stdout.splitlines()}
    assert offered <= found
    assert not found & not_offered


def test_every_option_has_a_section() -> None:
    context = click.Context(command, info_name="steno transcribe", help_option_names=["-h", "--help"])
    shown = [line.rstrip(":") for line in command.get_help(context).splitlines() if re.fullmatch(r"[A-Z][a-z]+:", line)]
    assert shown == ["Words", "Sound", "Speakers", "Files", "Computing", "Display"]


def test_machine_options_match_the_settings() -> None:
    fields = ComputeSettings.model_fields
    assert get_args(fields["device"].annotation) == DEVICES
    assert set(MACHINE) <= set(fields)


def test_whisperx_spellings_are_understood() -> None:
    given = parsed(
        *("talk.wav", "--output_dir", "out", "--output_format", "srt", "--batch_size", "4", "--no_align"),
        *("--highlight_words", "True", "--min_speakers", "1", "--max_line_width", "40", "--compute_type", "int8"),
    )
    assert given["sources"] == ("talk.wav",)
    assert given["output_dir"] == "out"
    assert given["formats"] == (("srt",),)
    assert given["batch_size"] == 4
    assert given["align"] is False
    assert given["highlight_words"] is True
    assert given["min_speakers"] == 1
    assert given["compute_type"] == "int8"
    assert parsed("a.wav", "--highlight_words", "False")["highlight_words"] is False


def test_formats_may_be_repeated_listed_or_all() -> None:
    assert parsed("a.wav", "-f", "srt,VTT", "-f", "txt")["formats"] == (("srt", "vtt"), ("txt",))
    assert parsed("a.wav", "--format", "all")["formats"] == (FORMATS,)


# -- refusals -----------------------------------------------------------------------------------------------------------

REFUSALS: list[tuple[list[str], int, str, str]] = [
    (["nope.wav"], 3, "source_not_found", "no file nope.wav"),
    (["empty.wav"], 3, "empty_media", "empty.wav is empty"),
    (["folder"], 3, "source", "folder is a folder"),
    (["talk.wav", "--language", "xx"], 2, "invalid_option", "Unknown language 'xx'"),
    (
        ["talk.wav", "--min-speakers", "5", "--max-speakers", "2"],
        2,
        "invalid_option",
        "--min-speakers (5) is above --max-speakers (2)",
    ),
    (["talk.wav", "--num-speakers", "2", "--max-speakers", "3"], 2, "invalid_option", "--num-speakers or a --min-speakers"),
    (["talk.wav", "--num-speakers", "0"], 2, "invalid_option", "--num-speakers"),
    (["talk.wav", "--batch-size", "many"], 2, "invalid_option", "--batch-size"),
    (["talk.wav", "--model", "larg-v3"], 2, "unknown_model", "Did you mean 'large-v3'"),
    (["talk.wav", "--model", "./no-such-folder"], 2, "unknown_model", "no folder"),
    (["talk.wav", "--model", "tiny.en", "--language", "fr"], 2, "invalid_option", "English only"),
    (["talk.wav", "--format", "doc"], 2, "invalid_option", "'doc' is not one of"),
    (["talk.wav", "--output-file", "talk.doc"], 2, "invalid_option", "--output-file must end in one of"),
    (
        ["talk.wav", "--layout", "whisperx", "--max-line-count", "2"],
        2,
        "invalid_option",
        "--max-line-count requires --max-line-width",
    ),
    (["talk.wav", "other.wav", "--output-file", "x.srt"], 2, "invalid_option", "--output-file applies to one recording"),
    (["talk.wav", "folder/talk.mp3"], 2, "invalid_option", "would both be written to talk.json"),
    (["-", "-"], 2, "invalid_option", "only once"),
    (["talk.wav", "--output-dir", "empty.wav/deeper"], 3, "output_not_writable", "is a file"),
    (["talk.wav", "--output-dir", "/proc/steno"], 3, "output_not_writable", "is not writable"),
    (["talk.wav", "--min-speaker", "2"], 2, "invalid_option", "--min-speakers"),
    (["talk.wav", "--device", "tpu"], 2, "invalid_option", "'tpu' is not one of"),
    ([], 2, "invalid_option", "SOURCE"),
    (["own.srt", "-f", "srt"], 3, "output_is_recording", "own.srt is a recording"),
    (["talk.wav", "--output-file", "linked.srt"], 3, "output_is_recording", "never overwritten"),
]
"""Arguments, exit code, code, and what the sentence must say. `talk.wav` is there and not empty."""


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[str]], tuple[int, str, str]]:
    """Exit code, standard output and standard error of each refusal, all from one process: most of the time is imports."""
    folder = tmp_path_factory.mktemp("refusals")
    (folder / "empty.wav").touch()
    (folder / "talk.wav").write_bytes(b"not looked into")
    (folder / "own.srt").write_bytes(b"not looked into")
    (folder / "linked.srt").symlink_to("talk.wav")
    (folder / "folder").mkdir()
    lines = [["transcribe", *args, *extra] for args, *_ in REFUSALS for extra in ([], ["--json"])]
    code = (
        "import contextlib, io, json, sys\nfrom stenoflow.cli.main import run\nanswers = []\n"
        "for args in json.loads(sys.argv[1]):\n"
        "    out, err = io.StringIO(), io.StringIO()\n"
        "    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):\n"
        "        code = run(args)\n"
        "    answers.append((code, out.getvalue(), err.getvalue()))\n"
        "print(json.dumps([answers, 'prefect' in sys.modules]))"
    )
    environment = CLEAN | {"STENO_HOME": str(folder / "home"), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(lines)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers, prefect_loaded = json.loads(done.stdout)
    assert not prefect_loaded
    assert sorted(path.name for path in folder.iterdir()) == ["empty.wav", "folder", "linked.srt", "own.srt", "talk.wav"]
    table = {json.dumps(line): tuple(answer) for line, answer in zip(lines, answers, strict=True)}
    return lambda args: table[json.dumps(["transcribe", *args])]


@pytest.mark.parametrize(
    ("args", "exit_code", "code", "says"), REFUSALS, ids=[" ".join(row[0]) or "nothing" for row in REFUSALS]
)
def test_what_cannot_work_is_refused_at_once_in_a_sentence(
    refused: Callable[[list[str]], tuple[int, str, str]], args: list[str], exit_code: int, code: str, says: str
) -> None:
    returned, out, err = refused(args)
    assert (returned, out) == (exit_code, "")
    assert err.startswith("steno: error: ")
    assert err.count("\n") == 1
    assert says in err
    assert "Traceback" not in err

    returned, out, err = refused([*args, "--json"])
    assert (returned, err) == (exit_code, "")
    line = json.loads(out)
    assert (line["type"], line["code"], line["exit_code"]) == ("error", code, exit_code)
    assert says in line["message"]


@pytest.mark.parametrize(
    ("args", "says"),
    [(["transcibe", "x"], "Did you mean `steno transcribe`?"), (["talk.mp3"], "Did you mean `steno transcribe talk.mp3`?")],
)
def test_a_mistyped_command_gets_a_suggestion(tmp_path: Path, args: list[str], says: str) -> None:
    done = steno(*args, folder=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr


def test_a_wrong_setting_is_named_by_its_variable(tmp_path: Path) -> None:
    done = steno("transcribe", "x.wav", folder=tmp_path, STENO_LIMITS__MAX_DURATION="-1")
    assert done.returncode == 2
    assert "STENO_LIMITS__MAX_DURATION" in done.stderr


def test_a_prefect_api_that_does_not_answer_is_named_without_its_credentials(tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_bytes(b"RIFF")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = steno(
        "transcribe", "talk.wav", "--json", folder=tmp_path, PREFECT_API_URL=f"http://user:hunter2@127.0.0.1:{port}/api"
    )
    line = json.loads(done.stdout)
    assert (done.returncode, line["code"], line["exit_code"]) == (6, "prefect_unreachable", 6)
    assert f"http://127.0.0.1:{port}/api" in line["message"]
    assert "hunter2" not in done.stdout + done.stderr


def test_the_temporary_server_ends_with_a_killed_command(tmp_path: Path) -> None:
    code = "from flows.local_server.server import TemporaryServer\ns = TemporaryServer()\nprint(s._process.pid, flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=CLEAN | {"PREFECT_HOME": str(prefect_home(tmp_path)), "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        assert os.getpgid(server) != os.getpgid(parent.pid), "Ctrl-C in the terminal must not reach it"
        descriptor = os.pidfd_open(server)
        parent.send_signal(signal.SIGKILL)
    with os.fdopen(descriptor) as ended:
        assert select.select([ended], [], [], 120)[0]


# -- errors -------------------------------------------------------------------------------------------------------------


def wrapped(error: BaseException) -> BaseException:
    """As Prefect may hand it on: as the cause of another."""
    try:
        raise RuntimeError("Flow run encountered an exception") from error
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (GatedModel("Accept the licence."), "gated_model", 4),
        (wrapped(GatedModel("Accept the licence.")), "gated_model", 4),
        (ExceptionGroup("branches", [ValueError("x"), DownloadFailed("Stalled.")]), "download_failed", 6),
        (StorageFull("No space."), "storage_full", 5),
        (OSError(errno.ENOSPC, "No space left on device"), "storage_full", 5),
        (MemoryError(), "out_of_memory", 5),
        (KeyboardInterrupt(), "cancelled", 130),
    ],
)
def test_errors_keep_their_code_however_they_are_wrapped(error: BaseException, code: str, exit_code: int) -> None:
    problem = describe(error)
    assert (problem.code, problem.exit_code) == (code, exit_code)


def test_an_unexpected_error_tells_its_kind_and_not_its_text() -> None:
    problem = describe(ValueError("https://example.org/a.mp3?signature=secret"))
    assert (problem.code, problem.exit_code) == ("internal", 1)
    assert "ValueError" in problem.message
    assert "--debug" in problem.message
    assert "secret" not in problem.message


def test_a_value_refused_inside_a_stage_is_not_blamed_on_an_option() -> None:
    with pytest.raises(ValidationError) as raised:
        StageReport(stage="asr", state="lost")
    assert describe(raised.value).code == "internal"


@pytest.mark.parametrize(("codes", "expected"), [([0, 0], 0), ([0, 3, 6], 3), ([7, 0], 7), ([7, 5], 5), ([130], 130), ([], 0)])
def test_several_recordings_end_with_the_first_failure_and_partial_last(codes: list[int], expected: int) -> None:
    assert worst(codes) == expected


# -- what is printed ----------------------------------------------------------------------------------------------------

RESULT = TranscribeResult(
    source_name="talk.wav",
    transcript=ArtifactRef(kind="transcript", path="artifacts/transcript/aa/aa.json", sha256="aa", bytes=1),
    files={"json": str(Path.cwd() / "out" / "talk.json"), "srt": "s3://bucket/talk.srt"},
    language="en",
    duration=30.0,
    words=97,
    speakers=2,
    stages=tuple(
        StageReport(stage=stage, state="computed" if stage in ("fetch", "diarize", "merge", "export") else "cached")
        for stage in STEPS
    ),
    warnings=("Only the first 20 s could be read.",),
    total_seconds=12.0,
)


def test_the_summary_names_language_speakers_words_pace_and_reuse(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(RESULT, as_json=False, quiet=False)
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "talk.wav: English, 30.0 s, 2 speakers, 97 words; took 12.0 s (2.5 times as fast as real time), 4 of 6 stages reused",
        "  out/talk.json",
        "  s3://bucket/talk.srt",
    ]
    assert printed.err == "steno: warning: talk.wav: Only the first 20 s could be read.\n"


def test_quiet_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(RESULT, as_json=False, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_json_is_one_line_with_the_whole_result(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(RESULT, as_json=True, quiet=False)
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1
    line = json.loads(printed.out)
    assert (line["type"], line["source"], line["files"]["srt"]) == ("result", "talk.wav", "s3://bucket/talk.srt")
    assert printed.err == ""


def test_a_recording_without_speech_has_a_summary() -> None:
    assert summary(RESULT.model_copy(update={"words": 0, "speakers": 0})).startswith("English, 30.0 s, 0 words;")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (60.2, "1 min 00 s"), (245, "4 min 05 s"), (3725, "1 h 02 min")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def drawn(table: StageTable, width: int = 100) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return [re.sub(r"\s+", " ", line).strip() for line in console.file.getvalue().splitlines()]


def test_the_table_shows_what_each_stage_really_does() -> None:
    table = StageTable("talk.wav", note="starting Prefect")
    assert drawn(table)[-1] == "starting Prefect"
    for event in (
        StageEvent("r", "fetch", "started"),
        StageEvent("r", "fetch", "completed", 1.0, 0.5),
        StageEvent("r", "segment", "cached", 1.0, 0.0, "local cpu"),
        StageEvent("r", "asr", "started", 0.0),
        StageEvent("r", "asr", "progress", 0.43),
        StageEvent("r", "align", "skipped", detail="not asked for"),
        StageEvent("r", "embed", "failed", 0.0, 2.0, "out of memory"),
    ):
        table(event)
    lines = drawn(table)
    assert lines[0] == "talk.wav"
    assert [line for line in lines if "starting" in line] == []
    rows = {line.split()[1] if line[0] in "●✓↺✗–" else line: line for line in lines[1:]}
    assert rows["fetch"].startswith("✓ fetch")
    assert rows["fetch"].endswith("0.5 s")
    assert rows["segment"] == "↺ segment reused"
    assert "43%" in rows["asr"]
    assert rows["align"].endswith("not asked for")
    assert rows["embed"].endswith("2.0 s out of memory")
    assert rows["export"] == "export"


def test_the_table_fits_a_narrow_terminal() -> None:
    table = StageTable("a-very-long-name-" * 10)
    table(StageEvent("r", "asr", "progress", 0.5, detail="a long remark about the attempt and the batch size it was made with"))
    assert all(len(line) <= 60 for line in drawn(table, width=60))


def test_a_stage_says_how_long_it_will_take_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("stenoflow.cli.progress.time.monotonic", lambda: now)
    table = StageTable("talk.wav")
    table(StageEvent("r", "asr", "started"))
    table(StageEvent("r", "asr", "progress", 0.25))
    now = 104.0
    assert not any("left" in line for line in drawn(table)), "four seconds say nothing yet"
    now = 130.0
    (line,) = (line for line in drawn(table) if "left" in line)
    assert line.endswith("25% 30.0 s about 1 m 30 s left")
    table(StageEvent("r", "asr", "completed", 1.0, 120.0))
    assert not any("left" in line for line in drawn(table))


def test_without_a_terminal_a_line_says_what_is_at_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("stenoflow.cli.progress.LINE_SECONDS", 0.05)
    table = StageTable("talk.wav", note="starting Prefect")
    spoken: list[str] = []

    def until(text: str) -> None:
        end = time.monotonic() + 20
        while text not in "".join(spoken) and time.monotonic() < end:
            time.sleep(0.02)
            spoken.append(capsys.readouterr().err)
        assert text in "".join(spoken)

    with lines(table):
        until("steno: talk.wav: starting Prefect (0.")
        table(StageEvent("r", "asr", "progress", 0.43))
        table(StageEvent("r", "embed", "started"))
        until("steno: talk.wav: asr 43%, embed 0% (")
    capsys.readouterr()
    time.sleep(0.2)
    assert capsys.readouterr().err == ""


# -- the other commands -------------------------------------------------------------------------------------------------


def test_doctor_finds_what_is_missing_and_names_the_step(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = steno(
        "doctor",
        "--json",
        folder=tmp_path,
        STENO_STORE=str(tmp_path / "file" / "store"),
        STENO_OFFLINE="1",
        STENO_MODEL="small",
    )
    checks = {check["subject"]: check for check in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 1
    assert checks["python"]["verdict"] == "ok"
    assert (checks["store"]["verdict"], "STENO_STORE" in checks["store"]["fix"]) == ("missing", True)
    assert checks["whisper"]["verdict"] == "missing"
    assert all(check["fix"] for check in checks.values() if check["verdict"] == "missing")


def test_doctor_never_shows_a_token(tmp_path: Path) -> None:
    done = steno("doctor", folder=tmp_path, HF_TOKEN="hf_verysecret", STENO_OFFLINE="1")
    assert "verysecret" not in done.stdout + done.stderr
    assert "hub" in done.stdout


def test_models_lists_what_is_here_and_what_is_not(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in steno("models", "--json", folder=tmp_path).stdout.splitlines()]
    names = {row["name"] for row in rows}
    assert {"base", "tiny.en", "large-v3-turbo", "community-1"} <= names
    assert all(row["licence"] for row in rows)
    assert "large-v3-turbo" in steno("models", folder=tmp_path).stdout


# -- a whole run --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ctrl_c_ends_the_run_as_cancelled_and_leaves_nothing_behind(tmp_path: Path, models_dir: Path) -> None:
    source = make_case("speech", tmp_path)
    homes = {
        "STENO_HOME": tmp_path / "home",
        "PREFECT_HOME": prefect_home(tmp_path / "prefect"),
        "STENO_MODELS_DIR": models_dir,
    }
    variables = {name: str(folder) for name, folder in homes.items()} | {"STENO_OFFLINE": "1"}
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "stenoflow.cli.main",
            "transcribe",
            "--json",
            "-m",
            "tiny.en",
            "-o",
            str(tmp_path / "out"),
            str(source),
        ],
        env=CLEAN | variables | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        for text in process.stdout:
            event = json.loads(text)
            if (event["stage"], event["state"]) == ("segment", "started"):
                break
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does
        out, err = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "Traceback" not in err
    error = json.loads(out.splitlines()[-1])
    assert (error["type"], error["code"], error["exit_code"]) == ("error", "cancelled", 130)
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []
    with contextlib.closing(sqlite3.connect(tmp_path / "prefect" / "prefect.db")) as database:
        assert database.execute("select state_type from flow_run").fetchall() == [("CANCELLED",)]


@pytest.mark.slow
def test_a_recording_goes_through_and_a_second_time_reuses_every_stage(tmp_path: Path, models_dir: Path) -> None:
    source = make_case("speech", tmp_path)
    variables = {"STENO_OFFLINE": "1", "STENO_MODELS_DIR": str(models_dir)}
    arguments = ("transcribe", str(source), "-m", "tiny.en", "-f", "json,srt")
    prefect_home(tmp_path / "prefect")
    first = steno(*arguments, "-o", "first", folder=tmp_path, **variables)
    assert first.returncode == 0
    progress = re.compile(r"steno: speech\.wav: .+ \(.+ s\)")
    assert [line for line in first.stderr.splitlines() if not progress.fullmatch(line)] == []
    lines = first.stdout.splitlines()
    assert re.fullmatch(r"speech\.wav: English, 30\.0 s, 2 speakers, \d+ words; took .+ \([\d.]+ times as .+\)", lines[0]), (
        lines
    )
    assert lines[1:] == ["  first/speech.json", "  first/speech.srt"]

    again = steno(*arguments, "-o", "second", folder=tmp_path, **variables)
    assert again.stdout.splitlines()[0].endswith("6 of 6 stages reused")
    assert (tmp_path / "first" / "speech.srt").read_text() == (tmp_path / "second" / "speech.srt").read_text()
    with contextlib.closing(sqlite3.connect(tmp_path / "prefect" / "prefect.db")) as database:
        assert database.execute("select distinct state_type from flow_run").fetchall() == [("COMPLETED",)]
        assert database.execute("select distinct state_type from task_run").fetchall() == [("COMPLETED",)]
        # What was computed while the first run's server started is its stages' own work, once, and their logs say so.
        ahead = "select count(*) from log where message like 'Started before Prefect''s server was ready%'"
        assert database.execute(ahead).fetchone() == (2,)


@pytest.mark.slow
def test_doctor_runs_every_model_when_asked(tmp_path: Path, models_dir: Path) -> None:
    done = steno("doctor", "--deep", "--json", folder=tmp_path, STENO_OFFLINE="1", STENO_MODELS_DIR=str(models_dir))
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["finding"].startswith("segment, asr, align, embed, cluster, merge")
