"""A batch on a terminal: how many of its recordings are done, and how far those at work are."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stenoflow.cli.progress import StageTable
from stenoflow.cli.report import duration

if TYPE_CHECKING:
    from rich.table import Table

    from flows.batching.drive import BatchEvent
    from infra.progress import StageEvent

_STYLES = {"done": "green", "failed": "red", "quarantined": "red", "skipped": "dim"}


@dataclass
class _AtWork:
    name: str
    began: float
    stages: dict[str, float] = field(default_factory=dict)
    """Those at work, and what fraction of them is done."""


class BatchTable(StageTable):
    """What the terminal shows of a batch; a listener of stage events, with `on_event` as listener of batch events."""

    def __init__(self, source: str, *, utf8: bool) -> None:
        super().__init__(title=source, utf8=utf8)
        self.source = source
        self.batch = ""
        """The batch's flow run, once there is one."""
        self._counts: Counter[str] = Counter()
        self._at_work: dict[str, _AtWork] = {}
        self._batch_guard = threading.Lock()

    def __call__(self, event: StageEvent) -> None:
        with self._batch_guard:
            if (work := self._at_work.get(event.run)) is None:
                return
            if event.state in ("started", "progress"):
                work.stages[event.stage] = event.fraction
            else:
                work.stages.pop(event.stage, None)

    def on_event(self, event: BatchEvent) -> None:
        with self._batch_guard:
            if event.kind == "started":
                self.batch = event.run
                self.note = self.note if self.stopping else ""
            elif event.kind == "began":
                self._at_work[event.run] = _AtWork(event.name, time.monotonic())
            elif event.row is not None:
                self._at_work.pop(event.run, None)
                self._counts[event.row.state] += 1

    def line(self) -> str:
        return ""  # each recording has a line when it ends

    def __rich__(self) -> Table:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        outer = Table.grid()
        outer.add_column(no_wrap=True, overflow="ellipsis")
        grid = Table.grid(padding=(0, 1))
        for options in ({"width": 1}, {"max_width": 40, "min_width": 16}, {"width": 18}, {"justify": "right", "min_width": 8}):
            grid.add_column(no_wrap=True, overflow="ellipsis", **options)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        with self._batch_guard:
            head = Text(self.title, style="bold")
            for state, count in self._counts.items():
                head.append(f"  {count} {state}", style=_STYLES[state])
            for work in self._at_work.values():
                stages = " + ".join(work.stages)
                fraction = min(work.stages.values(), default=0.0)
                mark = Text("●" if self.utf8 else "*", style="cyan")
                bar = ProgressBar(total=1.0, completed=fraction, width=18)
                grid.add_row(
                    mark, Text(work.name), bar, Text(duration(time.monotonic() - work.began)), Text(stages, style="dim")
                )
            note = self.note
        outer.add_row(head)
        outer.add_row(grid)
        if note:
            outer.add_row(Text(note, style="dim"))
        return outer
