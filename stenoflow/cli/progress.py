"""The stages of a run as they happen: a live table on a terminal, JSON lines for programs, nothing otherwise."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import click

from speech.stages import STEPS
from stenoflow.errors import StenoError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from infra.progress import StageEvent

_MARKS = {"started": "●", "progress": "●", "completed": "✓", "cached": "↺", "failed": "✗", "skipped": "–"}
_PLAIN_MARKS = {"started": "*", "progress": "*", "completed": "+", "cached": "=", "failed": "x", "skipped": "-"}
_AT_WORK = ("started", "progress")
_TELLING, _TELLING_FRACTION = 5.0, 0.05
"""Seconds of a stage, and the fraction of it done, before its pace says anything of the rest."""
_LAST_WORDS = 76
LINE_SECONDS, LATER_SECONDS = 10.0, 60.0
"""Between two lines where there is no terminal: in the first minute, and after that."""
_STYLES = {"started": "cyan", "progress": "cyan", "completed": "green", "cached": "blue", "failed": "red", "skipped": "dim"}


def print_event(source: str) -> Callable[[StageEvent], None]:
    """A listener that prints each event as a JSON line."""

    def listener(event: StageEvent) -> None:
        click.echo(json.dumps({"type": "stage", "source": source} | asdict(event), ensure_ascii=False))

    return listener


@dataclass
class Row:
    """One stage, as last heard of."""

    state: str = "waiting"
    fraction: float = 0.0
    began: float | None = None
    seconds: float | None = None
    detail: str = ""


@dataclass
class StageTable:
    """What the terminal shows of one run; a listener that may be called from any thread, and something rich can draw."""

    title: str
    utf8: bool = True
    rows: dict[str, Row] = field(default_factory=lambda: {stage: Row() for stage in STEPS})
    note: str = ""
    """Shown below the stages: what the command waits for."""
    stopping: bool = False
    """Whether the user has asked to stop."""
    text_of: Callable[[str], str] = lambda run: ""
    """The text of a run so far, by its id."""
    text: str = ""
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, event: StageEvent) -> None:
        if event.stage == "asr" and event.state == "progress":
            self.text = self.text_of(event.run) or self.text
        with self._guard:
            self.note = self.note if self.stopping else ""
            row = self.rows.setdefault(event.stage, Row())
            row.state = event.state
            row.fraction = 1.0 if event.state in ("completed", "cached") else event.fraction
            row.detail = event.detail or (row.detail if event.state == "progress" else "")
            if event.state == "started":
                row.began = time.monotonic()
            if event.state in ("completed", "failed"):
                row.seconds = event.seconds if event.seconds is not None else _elapsed(row)

    def stop(self) -> None:
        """Say that the run ends as soon as it can."""
        with self._guard:
            self.stopping, self.note = True, "stopping after the current batch; press Ctrl-C again to stop immediately"

    def line(self) -> str:
        """What is at work, for where no table can be drawn: `asr 43%, embed 12%`; else what is waited for. Empty: nothing to say."""
        with self._guard:
            at_work = [
                f"{stage} {row.fraction:.0%}"
                for stage, row in self.rows.items()
                if row.state in _AT_WORK and row.fraction < 1.0
            ]
            return ", ".join(at_work) or self.note or "working"

    def __rich__(self) -> Table:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 1))
        for options in (
            {"width": 1},
            {"min_width": 8},
            {"width": 24},
            {"justify": "right", "min_width": 4},
            {"justify": "right", "min_width": 8},
        ):
            grid.add_column(no_wrap=True, **options)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        marks = _MARKS if self.utf8 else _PLAIN_MARKS
        with self._guard:
            for stage, row in self.rows.items():
                style = _STYLES.get(row.state, "dim")
                active = row.state in _AT_WORK
                bar = ProgressBar(total=1.0, completed=row.fraction, width=24) if active or row.state == "completed" else ""
                grid.add_row(
                    Text(marks.get(row.state, " "), style=style),
                    Text(stage, style="" if row.state != "waiting" else "dim"),
                    bar if row.state != "cached" else Text("reused", style=style),
                    Text(f"{row.fraction:.0%}" if active else ""),
                    Text(_seconds(row)),
                    Text(", ".join(filter(None, (row.detail, _left(row)))) if row.state != "cached" else "", style="dim"),
                )
            note = self.note
        outer = Table.grid()
        outer.add_column(no_wrap=True, overflow="ellipsis")
        outer.add_row(Text(self.title, style="bold"))
        outer.add_row(grid)
        if note:
            outer.add_row(Text(note, style="dim"))
        elif self.text and self.rows["export"].state == "waiting":
            outer.add_row(Text(f"… {self.text}", style="italic"))
        return outer


def _elapsed(row: Row) -> float | None:
    return None if row.began is None else time.monotonic() - row.began


def _seconds(row: Row) -> str:
    value = row.seconds if row.seconds is not None else (_elapsed(row) if row.state in _AT_WORK else None)
    return "" if value is None else _shown(value)


def _shown(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f} m {rest:02.0f} s" if minutes else f"{rest:.1f} s"


def _left(row: Row) -> str:
    """How long the stage will take yet, at the pace so far; empty while that would be a guess."""
    elapsed = _elapsed(row) if row.state in _AT_WORK else None
    if elapsed is None or elapsed < _TELLING or not _TELLING_FRACTION < row.fraction < 1.0:
        return ""
    return f"about {_shown(max(1.0, round(elapsed * (1 / row.fraction - 1))))} left"


def last_words(run: str) -> str:
    """The end of what is found so far in the run's recording; empty where the store is not a folder of this machine's."""
    from infra.compute import get_store
    from infra.drafts import draft_of
    from infra.names import scheme_of

    store = get_store()
    if scheme_of(store.url) is not None:
        return ""
    try:
        segments = draft_of(store, run).segments
    except StenoError:
        return ""
    return " ".join(each.text for each in segments[-2:])[-_LAST_WORDS:].partition(" ")[2]


def terminal() -> Console | None:
    """A console on standard error when a person can watch it."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console

    console = Console(stderr=True)
    return None if console.is_dumb_terminal else console


@contextlib.contextmanager
def live(console: Console, table: StageTable, *, keep: bool) -> Iterator[None]:
    """Draw `table` until the block ends; `keep` leaves its last state on the screen."""
    from rich.live import Live

    # What is printed meanwhile is left to its own stream: results must reach standard output unchanged.
    with Live(table, console=console, refresh_per_second=8, transient=not keep, redirect_stdout=False, redirect_stderr=False):
        yield


@contextlib.contextmanager
def lines(table: StageTable) -> Iterator[None]:
    """Write what is at work to standard error now and then, until the block ends."""
    ended, began = threading.Event(), time.monotonic()

    def write() -> None:
        while not ended.wait(LINE_SECONDS if time.monotonic() - began < LATER_SECONDS else LATER_SECONDS):
            if line := table.line():
                click.echo(f"steno: {table.title}: {line} ({_shown(time.monotonic() - began)})", err=True)

    writing = threading.Thread(target=write, name="progress", daemon=True)
    writing.start()
    try:
        yield
    finally:
        ended.set()
        writing.join()
