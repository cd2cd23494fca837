"""A stage's key: the hash of all that changes its output, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SHARDS = "shards"
"""The folder of records of parts of stages; the records of whole stages are in no folder."""


def stage_key(stage: str, version: int, inputs: Mapping[str, str], params: Mapping[str, Any], models: Mapping[str, str]) -> str:
    """Hex SHA-256 over the stage, its version, input hashes, parameters and pinned model revisions.

    Batch size, device, thread and worker counts must not be among `params`: they do not change the result.
    """
    body = {"stage": stage, "version": version, "inputs": dict(inputs), "params": dict(params), "models": dict(models)}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def shards_folder(stage: str) -> str:
    """The records of all parts of the stage with this key, into however many parts it was divided."""
    return f"{SHARDS}/{stage}"


def shard_record(stage: str, index: int, count: int) -> str:
    """The record of one part. The stage's key is in its name, so that whoever uses the stage is known to use its parts."""
    return f"{shards_folder(stage)}/{index}-of-{count}"
