"""Where Prefect keeps what a finished stage left: in the artifact store, beside the artifacts.

A record under `records/<key>` says which artifact a stage key led to. Any machine that sees the store finds it there,
whichever Prefect server it talks to.
"""

from __future__ import annotations

import asyncio
import re

from prefect.filesystems import WritableFileSystem
from prefect.results import ResultRecord  # type: ignore[attr-defined]

from infra.artifacts import StageOutcome
from infra.compute import get_store

_STAGE_KEY = re.compile(r"[0-9a-f]{64}")


class RecordStorage(WritableFileSystem):
    """Prefect's result storage on `infra.store`: one class for a folder and for an object store, writes are atomic."""

    _block_type_name = "Stenoflow records"
    _block_type_slug = "steno-records"

    def _resolve_path(self, path: str) -> None:
        """None: keys are names in the store, not paths of this machine (`ResultStore._resolved_key_path`)."""

    async def read_path(self, path: str) -> bytes:
        """The record. FileNotFoundError when there is none, or when it leads to an artifact that is gone.

        Prefect takes that as "not cached", so a stage whose artifact was collected is computed again.
        """
        return await asyncio.to_thread(_read, path)

    async def write_path(self, path: str, content: bytes) -> None:
        """Keep a stage's record. Prefect also writes every exception, under random names; those are not kept."""
        if _STAGE_KEY.fullmatch(path):
            await asyncio.to_thread(get_store().write_record, path, content)


def _read(key: str) -> bytes:
    store = get_store()
    content = store.read_record(key) if _STAGE_KEY.fullmatch(key) else None
    if content is None:
        raise FileNotFoundError(key)
    if not store.exists(outcome_in(content).artifact.path):
        store.delete_record(key)
        raise FileNotFoundError(key)
    return content


def outcome_in(record: bytes) -> StageOutcome:
    """What the stage left, out of its record's bytes."""
    return StageOutcome.model_validate(ResultRecord.deserialize(record).result)
