"""What is said when a recording is done."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from speech.stages import AROUND

if TYPE_CHECKING:
    from flows.result import TranscribeResult


def print_result(result: TranscribeResult, *, as_json: bool, quiet: bool) -> None:
    """The summary and the files on standard output, warnings on standard error; or one JSON line.

    On a terminal the text comes first, where it was written to a file of this machine.
    """
    if as_json:
        line = {"type": "result", "source": result.source_name} | result.model_dump(mode="json", exclude={"source_name"})
        click.echo(json.dumps(line, ensure_ascii=False))
        return
    if quiet:
        return
    print_text(result.files)
    for warning in result.warnings:
        click.echo(f"steno: warning: {result.source_name}: {warning}", err=True)
    click.echo(f"{result.source_name}: {summary(result)}")
    for label, match in result.speaker_matches.items():
        click.echo(f"  {label} is {match.name} (similarity {match.score:.2f})")
    for path in result.files.values():
        click.echo(f"  {near(path)}")


def print_text(files: Mapping[str, str]) -> None:
    """The transcript as text, on a terminal."""
    written = files.get("txt")
    if not written or "://" in written or not sys.stdout.isatty():
        return
    with contextlib.suppress(OSError):
        click.echo(f"{Path(written).read_text(encoding='utf-8').rstrip()}\n")


def summary(result: TranscribeResult) -> str:
    """`English, 30.0 s, 2 speakers, 97 words; took 12.3 s (2.4 times as fast as real time), 3 of 6 stages reused`."""
    from speech.languages import language_names

    facts = [language_names(result.language, result.languages), duration(result.duration)]
    if result.speakers:
        facts.append(counted(result.speakers, "speaker"))
    if not any(stage.stage == "align" and stage.state == "skipped" for stage in result.stages):
        facts.append(counted(result.words, "word"))
    taken = pace(result.duration, result.total_seconds)
    reused, total = stages_reused(result)
    tail = f", {reused} of {total} stages reused" if reused else ""
    return f"{', '.join(facts)}; took {duration(result.total_seconds)}{taken}{tail}"


def pace(audio: float, seconds: float) -> str:
    """` (2.4 times as fast as real time)`, ` (1.3 times as long as the recording)`; nothing where either is unknown."""
    if audio <= 0 or seconds <= 0:
        return ""
    if audio >= seconds:
        return f" ({audio / seconds:.1f} times as fast as real time)"
    return f" ({seconds / audio:.1f} times as long as the recording)"


def stages_reused(result: TranscribeResult) -> tuple[int, int]:
    """How many of the stages that were asked for came from the store, and how many were asked for."""
    stages = [stage for stage in result.stages if stage.state in ("computed", "cached") and stage.stage not in AROUND]
    return sum(stage.state == "cached" for stage in stages), len(stages)


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """`12.3 s`, `4 min 05 s` or `1 h 02 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def near(path: str) -> str:
    """A path below the current folder as a relative one."""
    if "://" in path:
        return path
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
