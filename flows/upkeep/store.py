"""What pruned runs left in the store: their outcomes, and their hold on artifacts."""

from __future__ import annotations

import time
from collections.abc import Iterable

from infra import usage
from infra.store import Store


def release_runs(store: Store, runs: Iterable[str]) -> None:
    """Give up what these ended runs used, so that collecting garbage takes what no other run did, and forget how they ended.

    What a run was promised for longer (`retention_days`) stays until then.
    """
    for run in runs:
        use = usage.read_use(store, run)
        if use is not None and not (use.retention is not None and time.time() < use.beat + use.retention):
            usage.write_use(store, use.model_copy(update={"ended": True, "retention": 0.0}))
        store.delete_record(f"runs/{run}")
