"""Where Prefect keeps what a finished stage left: in the artifact store, beside the artifacts.

A record under `records/<key>` says which artifact a stage key led to. Any machine that sees the store finds it there,
whichever Prefect server it talks to.
"""

from __future__ import annotations

import asyncio
import re
from contextvars import ContextVar

from flows.prefect_compat.engine import KeyedStorage
from infra import headstart
from infra.compute import get_store
from tasks.calls import outcome_in, record_of

_STAGE_KEY = re.compile(r"[0-9a-f]{64}")

_seen: ContextVar[tuple[str, bytes | None] | None] = ContextVar("steno_record", default=None)
"""What `look_up` found last in this task: Prefect asks twice more for the same record, under the same lock."""


class RecordStorage(KeyedStorage):
    """Prefect's result storage on `infra.store`: one class for a folder and for an object store, writes are atomic."""

    _block_type_name = "Stenoflow records"
    _block_type_slug = "steno-records"

    async def read_path(self, path: str) -> bytes:
        """The record. FileNotFoundError when there is none, or when it leads to an artifact that is gone.

        Prefect takes that as "not cached", so a stage whose artifact was collected is computed again.
        """
        seen = _seen.get()
        content = seen[1] if seen is not None and seen[0] == path else await asyncio.to_thread(_read, path)
        if content is None:
            raise FileNotFoundError(path)
        return content

    async def write_path(self, path: str, content: bytes) -> None:
        """Keep a stage's record. Prefect also writes every exception, under random names; those are not kept."""
        if _STAGE_KEY.fullmatch(path):
            await asyncio.to_thread(get_store().write_record, path, content)


async def look_up(key: str) -> bool:
    """Whether the stage of that key is computed and its artifact there; the answer holds until `forget`."""
    content = await asyncio.to_thread(_read, key)
    _seen.set((key, content))
    return content is not None


def forget() -> None:
    _seen.set(None)


def _read(key: str) -> bytes | None:
    """The record, or None where there is none that leads to an artifact.

    None as well while what this process computed ahead of the run waits for it: the run takes it over as its own work.
    """
    if headstart.waits(key):
        return None
    store = get_store()
    content = store.read_record(key) if _STAGE_KEY.fullmatch(key) else None
    if content is None:
        return None
    try:
        outcome = outcome_in(content, key)
    except ValueError:
        return None  # damaged; it is written anew when the stage is computed
    return record_of(key, outcome) if store.holds(outcome.artifact) else None
