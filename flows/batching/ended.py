"""How each recording of a batch ended, kept in the store: what the next batch skips, and what a restarted one has done.

Under `records/done/<key>`, where the key is of the recording, its content, the options and the place of the output.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from flows.outcome import RunOutcome
from infra import outputs
from infra.compute import get_store
from infra.names import readable
from infra.prices import dollars
from infra.settings import get_settings
from speech.stored import parsed
from stenoflow.errors import OutputExists, Retry
from stenoflow.types import Frozen

State = Literal["done", "failed", "quarantined", "skipped", "left"]
"""`left`: no recording, found beside those that are listed."""

NOTHING_KNOWN = "the run ended without a reason; see its log in Prefect"


class Ended(Frozen):
    """One row of a batch's table."""

    name: str
    state: State
    detail: str = ""
    """Why it failed or was skipped."""
    code: str = ""
    exit_code: int = 0
    retry: Retry = Retry.NEVER
    source: str = ""
    """Where it was listed, without query."""
    line: int | None = None
    campaign: str = ""
    """The batch it belongs to; one that was killed and started again is the same."""
    run: str = ""
    """The flow run's id."""
    duration: float | None = None
    """Of the recording, in seconds."""
    seconds: float | None = None
    """That the run took."""
    cost: float | None = None
    language: str = ""
    speakers: int | None = None
    files: tuple[str, ...] = ()

    def readable(self) -> Ended:
        """The row with text only that UTF-8 can hold: names of files and of manifests may be any bytes."""
        texts = {name: readable(text) for name in ("name", "detail", "source") if (text := getattr(self, name))}
        return self.model_copy(update=texts | {"files": tuple(map(readable, self.files))})

    @property
    def again(self) -> bool:
        """Whether a later batch tries it again by itself: what failed passes, or a file stood in the way, which may be gone."""
        return self.state == "failed" and (self.retry is not Retry.NEVER or self.code == OutputExists.code)

    @property
    def pace(self) -> float | None:
        """Seconds of recording per second."""
        return self.duration / self.seconds if self.duration and self.seconds else None

    @property
    def price(self) -> str:
        return dollars(self.cost) if self.state == "done" else ""


def ended_as(outcome: RunOutcome | None, row: Ended, *, degrade: bool) -> Ended:
    """The row of a recording whose run has left this outcome. With `degrade`, one without speakers counts as done."""
    if outcome is None or (outcome.result is None and outcome.error is None):
        cancelled = outcome is not None and outcome.state == "canceled"
        why = "the run was cancelled" if cancelled else NOTHING_KNOWN
        return row.model_copy(
            update={
                "state": "failed",
                "code": "cancelled" if cancelled else "crashed",
                "detail": why,
                "exit_code": 6,
                "retry": Retry.LATER,
            }
        )
    facts: dict[str, object] = {}
    if (result := outcome.result) is not None:
        facts = {
            "duration": result.duration,
            "seconds": result.total_seconds,
            "cost": result.cost,
            "language": result.language,
            "speakers": result.speakers,
            "files": tuple(result.files.values()),
        }
    if (error := outcome.error) is None or outcome.state == "completed":
        return row.model_copy(update={"state": "done", **facts})
    if outcome.state == "partial" and degrade:
        return row.model_copy(update={"state": "done", "detail": f"without speakers: {error.message}", **facts})
    state = "quarantined" if error.code == "quarantined" else "failed"
    because: dict[str, object] = {
        "detail": error.message,
        "code": error.code,
        "exit_code": error.exit_code,
        "retry": error.retry,
    }
    if outcome.state == "partial":
        because["retry"] = Retry.LATER  # the text is cached: trying again costs the diarization only
    return row.model_copy(update={"state": state, **facts, **because})


def keep_ended(key: str, row: Ended) -> None:
    """Write it down, in place of what an earlier batch left. Raises the store's errors."""
    get_store().write_record(f"done/{key}", row.model_dump_json(exclude_defaults=True).encode())


def read_ended(key: str) -> Ended | None:
    """How the recording ended last; None when it never did, or its outputs are gone."""
    content = get_store().read_record(f"done/{key}")
    if content is None:
        return None
    try:
        row = parsed(Ended, content)
    except ValueError:
        return _of_a_later_version(content)
    return row if row.state != "done" or _all_there(row.files) else None


def _of_a_later_version(content: bytes) -> Ended | None:
    """A row that this version does not understand counts as done. A damaged one does not: its recording is done once more, which
    costs little, since its stages are finished."""
    try:
        row = json.loads(content)
        return Ended(name=row["name"], state="done", detail="recorded by a later version of Stenoflow")
    except (ValueError, TypeError, LookupError):
        return None


def _all_there(files: tuple[str, ...]) -> bool:
    settings = get_settings()
    return bool(files) and all(outputs.exists(file, settings) for file in files)


_readers = ThreadPoolExecutor(max_workers=16, thread_name_prefix="ended")


def read_all_ended(keys: list[str]) -> list[Ended | None]:
    """`read_ended` of each, several at a time: an object store takes tens of milliseconds to answer. Blocks."""
    return list(_readers.map(read_ended, keys))
