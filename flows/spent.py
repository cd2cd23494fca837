"""What runs cost on Modal by our own estimates, from the outcomes that the store keeps."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime

from pydantic import ValidationError

from flows.outcome import RunOutcome
from infra.settings import StenoSettings
from infra.store import Store

_RUNS = "records/runs"


def estimated(settings: StenoSettings, start: datetime, end: datetime) -> dict[date, float]:
    """Dollars of stages computed on Modal by the UTC day on which their run ended. Blocks.

    A run whose record is gone, a failed attempt and a stage of unknown price count nothing. Raises the store's errors.
    """
    store = Store.from_settings(settings)
    days: defaultdict[date, float] = defaultdict(float)
    for file in store.files(_RUNS):
        if not start.timestamp() <= file.modified < end.timestamp():
            continue
        content = store.read_record(file.path.removeprefix("records/"))
        try:
            outcome = RunOutcome.model_validate_json(content) if content else None
        except ValidationError:
            continue  # of another version
        days[datetime.fromtimestamp(file.modified, UTC).date()] += sum(
            stage.cost or 0.0 for stage in (outcome.stages if outcome else ()) if stage.backend == "modal"
        )
    return dict(days)
