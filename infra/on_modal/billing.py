"""What Modal itself says that the app has cost, to hold our own estimates against."""

from __future__ import annotations

from collections import defaultdict
from datetime import date, datetime

from infra.on_modal.errors import modal_errors
from infra.settings import StenoSettings


async def billed(settings: StenoSettings, start: datetime, end: datetime) -> dict[date, float]:
    """Dollars of the deployed app by day, in UTC: all of its functions, with what containers take to start and to wait.

    `start` and `end` are midnights in UTC. Raises ModalDenied and TransientError.
    """
    import modal

    days: defaultdict[date, float] = defaultdict(float)
    with modal_errors("a look at the bill"):
        for item in await modal.Workspace.from_context().billing.report.aio(start=start, end=end):
            elsewhere = settings.modal.environment and item.environment_name != settings.modal.environment
            if item.description == settings.modal.app and not elsewhere:
                days[item.interval_start.date()] += float(item.cost)
    return dict(days)
