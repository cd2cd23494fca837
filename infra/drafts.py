"""The text that a stage at work has found so far, in the store until the stage ends: for those who watch the run.

What is in it is final, in the order it is said; who says it is not known yet. Shards leave none. Nothing depends on a draft: one that
cannot be written or read is as none.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from infra.storage import StoredFile
from infra.usage import read_use
from speech.stored import parsed
from stenoflow.errors import StenoError
from stenoflow.types import Frozen

if TYPE_CHECKING:
    from infra.store import Store
    from speech.schema import AsrSegment

FOLDER = "drafts"
_SECONDS = 1.0
"""Between two writes, at least."""
ABANDONED = 86_400.0
"""Seconds after which a draft is of a process that was killed, whose run was not restarted."""


class DraftSegment(Frozen):
    """Up to 30 s of text."""

    start: float
    end: float
    """Seconds of the recording."""
    text: str


class Draft(Frozen):
    """Text of a recording's beginning."""

    language: str = ""
    """Whisper's code; empty where the engine does not say."""
    segments: tuple[DraftSegment, ...] = ()


class Drafting:
    """A stage's `speech.stages.Progress` that takes text as well (`speech.stages.said`)."""

    def __init__(self, store: Store, key: str, report: Callable[[float], None]) -> None:
        self._store = store
        self._name = f"{FOLDER}/{key}"
        self._report = report
        self._draft = Draft()
        self._written = 0.0

    def __call__(self, fraction: float) -> None:
        self._report(fraction)

    def said(self, segments: Sequence[AsrSegment], language: str) -> None:
        new = [DraftSegment(start=each.start, end=each.end, text=" ".join(each.text.split())) for each in segments if each.text]
        self._draft = Draft(language=language, segments=(*self._draft.segments, *new))
        if new and time.monotonic() - self._written >= _SECONDS:
            self._written = time.monotonic()
            with contextlib.suppress(StenoError):
                self._store.write_record(self._name, self._draft.model_dump_json().encode())

    def remove(self) -> None:
        if self._written:
            with contextlib.suppress(StenoError):
                self._store.delete_record(self._name)


def draft_of(store: Store, run: str) -> Draft:
    """What is being said in the recording of the run; empty where no stage of it is at work that says so. Raises what reading raises."""
    names = {file.path.rpartition("/")[2] for file in store.files(f"records/{FOLDER}")}
    use = read_use(store, run) if names else None
    for key in names.intersection(use.keys if use is not None else ()):
        content = store.read_record(f"{FOLDER}/{key}")
        with contextlib.suppress(ValueError):
            return parsed(Draft, content) if content else Draft()
    return Draft()


def abandoned(store: Store, now: float) -> list[StoredFile]:
    """What killed processes left."""
    return [file for file in store.files(f"records/{FOLDER}") if file.modified < now - ABANDONED]
