"""A stage's key: the hash of all that changes its output, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def stage_key(stage: str, version: int, inputs: Mapping[str, str], params: Mapping[str, Any], models: Mapping[str, str]) -> str:
    """Hex SHA-256 over the stage, its version, input hashes, parameters and pinned model revisions.

    Batch size, device, thread and worker counts must not be among `params`: they do not change the result.
    """
    body = {"stage": stage, "version": version, "inputs": dict(inputs), "params": dict(params), "models": dict(models)}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
