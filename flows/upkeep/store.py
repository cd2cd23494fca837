"""What pruned runs left in the store: their outcomes, and their hold on artifacts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from uuid import UUID

from infra import usage
from infra.store import Store


def expired_runs(store: Store, grace: float) -> list[UUID]:
    """Runs whose own retention is over. `grace` in seconds, as for `infra.usage.Use.active`."""
    names = [file.path.rpartition("/")[2] for file in store.files(f"records/{usage.USES}")]
    uses = filter(None, (usage.read_use(store, name) for name in names if not name.startswith(usage.CLAIM)))
    found = []
    for use in uses:
        with contextlib.suppress(ValueError):
            found += [UUID(use.run)] if use.expired(time.time(), grace) else []
    return found


def release_runs(store: Store, runs: Iterable[str]) -> None:
    """Give up what these ended runs used, so that collecting garbage takes what no other run did, and forget how they ended.

    What a run was promised for longer (`retention_days`) stays until then.
    """
    for run in runs:
        use = usage.read_use(store, run)
        if use is not None and not (use.retention is not None and time.time() < use.beat + use.retention):
            usage.write_use(store, use.model_copy(update={"ended": True, "retention": 0.0}))
        store.delete_record(f"runs/{run}")
