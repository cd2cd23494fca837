"""Corrections of a job's transcript as the store keeps them: `records/edits/<run>.<transcript>`, a record to which revisions are added.

The record names the artifact of the transcript that was corrected, and goes with it: what removes a transcript removes what
people made of it. Writers take a lock, so that several processes may serve the same store.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import PurePosixPath

from pydantic import Field

from infra.store import Store
from speech.stored import parsed
from stenoflow.edits import Operation
from stenoflow.errors import TransientError
from stenoflow.types import Frozen

FOLDER = "edits"


class Entry(Frozen):
    """A revision."""

    at: datetime
    by: str
    operations: tuple[Operation, ...]
    left_out: tuple[str, ...] = Field((), exclude_if=lambda value: not value)
    """What did not fit of the corrections of a transcript that this one replaced."""


class EditLog(Frozen):
    """All revisions of one transcript, oldest first."""

    transcript: str
    """Path of the artifact that was corrected."""
    entries: tuple[Entry, ...] = ()

    def until(self, revision: int) -> EditLog:
        return self.model_copy(update={"entries": self.entries[:revision]})


def read_log(store: Store, run: str, transcript: str) -> EditLog:
    """The corrections of the run's transcript; those of one that a retry replaced stay as they are, under their own name."""
    content = store.read_record(_name(run, transcript))
    try:
        found = parsed(EditLog, content) if content else None
    except ValueError as error:
        raise TransientError(
            "The corrections of this transcript are damaged in the store, or of a later version; nothing was changed."
        ) from error
    return found or EditLog(transcript=transcript)


def replaced_log(store: Store, run: str, transcript: str) -> EditLog | None:
    """The latest corrections of a transcript of the run in whose place a retry has put this one."""
    own = _name(run, transcript)
    found = []
    for name in records_of(store, run):
        content = store.read_record(name) if name != own else None
        with contextlib.suppress(ValueError):  # damaged, or of a later version: it stays where it is
            if content and (log := parsed(EditLog, content)).entries:
                found.append(log)
    return max(found, key=lambda log: log.entries[-1].at, default=None)


def hand_on(store: Store, run: str, to: str) -> None:
    """Give a run the corrections of the one whose recording it transcribes once more."""
    for name in records_of(store, run):
        if content := store.read_record(name):
            store.write_record(f"{FOLDER}/{to}.{name.rpartition('.')[2]}", content)


def write_log(store: Store, run: str, log: EditLog) -> None:
    store.write_record(_name(run, log.transcript), log.model_dump_json().encode())


def records_of(store: Store, run: str) -> list[str]:
    """The names of the run's records."""
    found = (file.path.removeprefix("records/") for file in store.files(f"records/{FOLDER}"))
    return [name for name in found if name.startswith(f"{FOLDER}/{run}.")]


def _name(run: str, transcript: str) -> str:
    return f"{FOLDER}/{run}.{PurePosixPath(transcript).stem[:16]}"


def changing(store: Store, run: str) -> AbstractContextManager[None]:
    """Keep others from changing the run's corrections inside the block, which raises TransientError when another keeps us from it."""
    return store.locks.held(f"edits-{run}", "Someone else is changing this transcript; try again in a moment.")
