"""What a stage left, as a record's bytes: written by the run's task, or by what computed it ahead of the run. Needs no Prefect."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, Json

from infra.artifacts import StageOutcome
from speech.stored import parsed


class _Record(BaseModel):
    """What Prefect writes of a result, as far as it is ours (`prefect.results.ResultRecord`)."""

    result: Json[Any]


def outcome_in(record: bytes, key: str) -> StageOutcome:
    """What the stage of that key left, out of its record's bytes. Raises ValueError when they are damaged, or another stage's.

    Prefect would read them with whatever serializer the record names, pickle among them: who may write to the store could
    have it run code. It is read as JSON, whatever the record says.
    """
    outcome = StageOutcome.model_validate(parsed(_Record, record).result, extra="ignore")
    if outcome.key not in ("", key):
        raise ValueError("the record is of another stage")
    return outcome


def record_of(key: str, outcome: StageOutcome) -> bytes:
    """The record as Prefect reads and writes it: as plain JSON, without its hook that makes objects of any class."""
    metadata = {"storage_key": key, "serializer": {"type": "json", "object_decoder": None}}
    return json.dumps({"metadata": metadata, "result": outcome.model_dump_json()}).encode()
