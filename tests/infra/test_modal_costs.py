"""`steno modal costs`: our estimates beside Modal's own billing report, by day."""

from __future__ import annotations

import json
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.outcome import RunOutcome
from infra.settings import StenoSettings, get_settings
from infra.store import Store
from stenoflow.cli.modal import command
from tasks.reports import StageReport
from tests.modal_server import ModalServer
from tests.modal_server.fixture import modal_server

__all__ = ["modal_server"]
pytestmark = [pytest.mark.usefixtures("steno"), pytest.mark.slow]


def ran(store: Store, name: str, day: date, *stages: StageReport) -> None:
    """A run that ended on that day."""
    outcome = RunOutcome(run=name, state="completed", stages=stages)
    store.write_record(f"runs/{name}", outcome.model_dump_json().encode())
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp()
    os.utime(Path(store.root, f"records/runs/{name}"), (noon, noon))


def test_estimates_stand_beside_what_modal_bills(
    modal_server: ModalServer, steno: StenoSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    today = datetime.now(UTC).date()
    day, before, long_ago = today - timedelta(days=1), today - timedelta(days=2), today - timedelta(days=40)
    for app, cost, when in (
        ("stenoflow", "0.25", day),
        ("stenoflow", "0.5", day),
        ("stenoflow", "1.5", before),
        ("theirs", "9", day),
        ("stenoflow", "7", long_ago),
        ("stenoflow", "7", today),
    ):
        modal_server.control("bill", description=app, cost=cost, day=when.isoformat())
    store = Store.from_settings(steno)
    on_modal = StageReport(stage="asr", state="computed", backend="modal", cost=0.6)
    ran(store, "one", day, on_modal, StageReport(stage="merge", state="computed", backend="local", cost=5.0))
    ran(store, "two", day, StageReport(stage="asr", state="computed", backend="modal", cost=None))
    ran(store, "old", long_ago, on_modal)

    get_settings.cache_clear()
    printed = CliRunner().invoke(command, ["costs", "--days", "30", "--json"], catch_exceptions=False)
    assert [json.loads(line) for line in printed.output.splitlines()] == [
        {"day": before.isoformat(), "estimated": 0.0, "billed": 1.5},
        {"day": day.isoformat(), "estimated": 0.6, "billed": 0.75},
    ]
    table = CliRunner().invoke(command, ["costs", "--days", "30"], catch_exceptions=False).output
    assert table.splitlines()[-1].split() == ["all", "$0.6000", "$2.25"]
