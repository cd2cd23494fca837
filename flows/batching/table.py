"""What came of a batch: counts for its state, a table for its artifact, every row for its CSV.

Rows are written to a file as they come, so that a batch of any size takes no more memory than the few that are shown.
"""

from __future__ import annotations

import contextlib
import csv
import re
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from flows.batching.ended import Ended
from infra import outputs
from infra.settings import get_settings
from stenoflow.errors import OutputNotWritable, StenoError
from stenoflow.types import Frozen
from tasks.rendering import refusals

SHOWN = 200
"""Rows of an artifact; the CSV has all."""
_PARTIAL = 7


class BatchResult(Frozen):
    """What came of the recordings of one batch."""

    listed: int
    done: int
    failed: int
    quarantined: int
    """Quarantined because they kept killing the process that computed them."""
    skipped: int
    left: int = 0
    """Files beside the recordings that are none."""
    more: bool
    """The limit was reached: there may be new ones left for the next batch."""
    duration: float
    """Seconds of recordings done."""
    seconds: float
    """That the batch took."""
    cost: float | None
    """Dollars of the recordings done; None where a price is not known."""
    table: str | None
    """Path or URL of the CSV; None when there was nothing to say."""
    exit_code: int
    problems: tuple[Ended, ...] = ()
    """The first of those that failed."""
    left_because: dict[str, int] = Field(default_factory=dict)
    trouble: str = ""
    """Why the table could not be written, and where its rows are instead; the batch counts as failed then."""

    @property
    def sentence(self) -> str:
        """`980 done, 20 quarantined, 3 skipped.`"""
        counts = {
            "done": self.done,
            "failed": self.failed,
            "quarantined": self.quarantined,
            "skipped": self.skipped,
        }
        shown = [f"{count} {what}" for what, count in counts.items() if count]
        if self.left:
            shown.append(f"{self.left} file{'s' if self.left > 1 else ''} left: not recordings")
        return f"{', '.join(shown) or 'nothing listed'}{'; the others are left for the next batch' if self.more else ''}."


class Table:
    """Takes the rows of one batch."""

    def __init__(self, output_dir: str, run: str) -> None:
        settings = get_settings()
        settings.scratch_path.mkdir(parents=True, exist_ok=True)
        self._began = time.monotonic()
        self._path = settings.scratch_path / f"batch-{run}.csv"
        self._file = self._path.open("w", newline="", encoding="utf-8")
        self._rows = csv.writer(self._file)
        self._rows.writerow(_COLUMNS)
        name = f"batch-{time.strftime('%Y-%m-%d-%H%M%S')}-{run[:8]}.csv"
        self._target = outputs.joined(output_dir, name)
        self.counts: Counter[str] = Counter()
        self.more = False
        self._problems: list[Ended] = []
        self._latest: deque[Ended] = deque(maxlen=SHOWN)
        self._duration = 0.0
        self._cost: float | None = 0.0
        self._codes: Counter[int] = Counter()
        self._left: Counter[str] = Counter()
        """Files that are no recordings, by why."""
        self._broken: OSError | None = None
        """The first row that could not be written down."""

    def add(self, row: Ended) -> None:
        self.counts[row.state] += 1
        try:
            self._rows.writerow([_harmless(cell(row)) for cell in _COLUMNS.values()])
        except OSError as error:
            self._broken = self._broken or error
        if row.state == "done":
            self._duration += row.duration or 0.0
            self._cost = None if self._cost is None or row.cost is None else self._cost + row.cost
            self._latest.append(row)
        elif row.state == "left":
            self._left[row.detail] += 1
        elif row.state != "skipped":
            self._codes[row.exit_code or 1] += 1
            if len(self._problems) < SHOWN:
                self._problems.append(row)

    @property
    def settled(self) -> int:
        """Entries that have their row; what is no recording is no entry."""
        return sum(self.counts.values()) - self.counts["left"]

    def finish(self) -> BatchResult:
        """Put the CSV beside the outputs and sum up. Blocks."""
        wanted = self.settled > self.counts["skipped"]
        trouble = self._put() if wanted else None
        if trouble is None:
            self.discard()
        return BatchResult(
            listed=self.settled,
            done=self.counts["done"],
            failed=self.counts["failed"],
            quarantined=self.counts["quarantined"],
            skipped=self.counts["skipped"],
            left=self.counts["left"],
            left_because=dict(self._left),
            more=self.more,
            duration=round(self._duration, 1),
            seconds=round(time.monotonic() - self._began, 1),
            cost=self._cost,
            table=self._target if wanted and trouble is None else None,
            exit_code=self._exit_code() or (trouble.exit_code if trouble else 0),
            problems=tuple(self._problems),
            trouble=f"The table of the batch is missing or incomplete. {trouble.message}" if trouble else "",
        )

    def _put(self) -> StenoError | None:
        """Write the CSV; why that failed. Its rows stay where they are then."""
        try:
            with refusals(self._target):
                self._file.close()
                if self._broken is not None:
                    raise self._broken
                outputs.write(self._target, self._path.read_bytes(), get_settings())
        except StenoError as error:
            return type(error)(f"{error.message} The rows written so far are in {self._path}.")
        except Exception as error:
            return OutputNotWritable(
                f"{self._target} could not be written ({type(error).__name__}); the rows are in {self._path}."
            )
        return None

    def discard(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)

    def shown(self) -> list[Ended]:
        """The rows of the artifact: what failed first, then what was done last."""
        room = SHOWN - len(self._problems)
        return [*self._problems, *list(self._latest)[-room:]] if room > 0 else list(self._problems)

    def _exit_code(self) -> int:
        """The first failure's, where transcripts without speakers are the least of them."""
        codes = [code for code in self._codes if code != _PARTIAL]
        return codes[0] if codes else (_PARTIAL if self._codes else 0)


def _or_empty(value: float | int | None) -> Any:
    return "" if value is None else value


_COLUMNS: dict[str, Callable[[Ended], Any]] = {
    "name": lambda row: row.name,
    "state": lambda row: row.state,
    "code": lambda row: row.code,
    "detail": lambda row: row.detail,
    "duration_seconds": lambda row: _or_empty(row.duration),
    "run_seconds": lambda row: _or_empty(row.seconds),
    "times_real_time": lambda row: round(row.pace, 2) if row.pace else "",
    "cost_usd": lambda row: _or_empty(row.cost),
    "language": lambda row: row.language,
    "speakers": lambda row: _or_empty(row.speakers),
    "files": lambda row: " ".join(row.files),
    "run": lambda row: row.run,
    "source": lambda row: row.source,
    "line": lambda row: _or_empty(row.line),
}
"""Of the CSV."""


def _harmless(cell: Any) -> Any:
    """Names come from strangers: a spreadsheet would execute what begins like a formula (OWASP, CSV injection)."""
    return f"'{cell}" if isinstance(cell, str) and re.match(r"[=+\-@\t\r]", cell) else cell


async def publish_table(table: Table, result: BatchResult, source: str) -> None:
    """The summary and the table as artifacts of the flow run. A server that refuses them does not fail the batch."""
    from prefect import get_run_logger
    from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact

    try:
        await acreate_markdown_artifact(markdown=_summary(result, source), key="batch", description=result.sentence)
        paid = result.cost != 0
        if rows := [_shown_row(row) | ({"cost": row.price} if paid else {}) for row in table.shown()]:
            await acreate_table_artifact(table=rows, key="batch-recordings", description=f"The CSV has all: {result.table}")
    except Exception as error:
        get_run_logger().warning("Could not store the batch's table: %s", type(error).__name__)


def _summary(result: BatchResult, source: str) -> str:
    from infra.prices import dollars

    pace = f", {result.duration / result.seconds:.1f} × real time" if result.seconds and result.duration else ""
    paid = f", {dollars(result.cost)}" if result.cost != 0 else ""
    lines = [
        f"**{source}**: {result.sentence}",
        "",
        f"{result.duration / 60:.1f} min of recordings in {result.seconds / 60:.1f} min{pace}{paid}.",
        "",
        f"Every recording's row: `{result.table}`" if result.table else "Nothing was new.",
    ]
    if result.problems:
        lines += ["", "| recording | state | why |", "|---|---|---|"]
        lines += [f"| {_cell(row.name)} | {row.state} | {_cell(row.detail)} |" for row in result.problems[:50]]
        hidden = result.failed + result.quarantined - min(len(result.problems), 50)
        lines += ["", f"… and {hidden} more in the CSV."] if hidden > 0 else []
    if result.skipped:
        lines += [
            "",
            "Skipped recordings were done before, failed permanently before (`retry_failed` retries them), are still growing, were deleted "
            "in the meantime, or are listed twice.",
        ]
    if result.left:
        lines += ["", "| files left | why |", "|---|---|"]
        lines += [f"| {count} | {_cell(why)} |" for why, count in result.left_because.items()]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return re.sub(r"[|\n\r]+", "/", text)


def _shown_row(row: Ended) -> dict[str, Any]:
    return {
        "recording": row.name,
        "state": row.state,
        "why": row.detail,
        "duration": f"{row.duration:.1f} s" if row.duration is not None else "",
        "took": f"{row.seconds:.1f} s" if row.seconds is not None else "",
        "× real time": f"{row.pace:.1f}" if row.pace else "",
        "files": " ".join(Path(file).name if "://" not in file else file for file in row.files),
        "run": row.run,
    }
