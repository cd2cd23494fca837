"""An installation whose deployments were registered under other names is brought up to date by the next `steno deploy`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient, get_client

from deployments import register as registering
from deployments.catalog import INTERNAL_TAG, Spec, catalog
from deployments.register import register
from deployments.renamed import FORMER, RETIRED_TAG
from infra.settings import StenoSettings

pytestmark = [pytest.mark.usefixtures("prefect_server", "steno"), pytest.mark.slow]
LATER = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2999-01-01T00:00:00Z"}}


@pytest.fixture
async def client() -> AsyncIterator[PrefectClient]:
    """Of a server that has no deployments afterwards."""
    async with get_client() as client:
        yield client
        for deployment in await client.read_deployments():
            await client.delete_deployment(deployment.id)


@pytest.fixture
async def before(client: PrefectClient, steno: StenoSettings, monkeypatch: pytest.MonkeyPatch) -> StenoSettings:
    """An installation of the version before, whose names were others."""

    def formerly(settings: StenoSettings) -> list[Spec]:
        names = {spec.full_name: FORMER.get(spec.full_name, spec.full_name) for spec in catalog(settings)}
        return [Spec(**(vars(spec) | {"name": names[spec.full_name].partition("/")[2]})) for spec in catalog(settings)]

    with monkeypatch.context() as patch:
        patch.setattr(registering, "catalog", formerly)
        await register(client, steno)
    return steno


async def names(client: PrefectClient) -> dict[str, Any]:
    """The deployments by the name that Prefect shows."""
    flows = {flow.id: flow.name for flow in await client.read_flows()}
    return {f"{flows[found.flow_id]}/{found.name}": found for found in await client.read_deployments()}


async def create_run(client: PrefectClient, deployment: Any, state: dict[str, Any]) -> str:
    body = {"parameters": {"request": {"source": "call.wav"}}, "state": state}
    response = await client.request("POST", f"/deployments/{deployment.id}/create_flow_run", json=body)  # type: ignore[arg-type]
    response.raise_for_status()
    return str(response.json()["id"])


async def test_deployments_are_told_apart_and_the_former_ones_are_gone(client: PrefectClient, before: StenoSettings) -> None:
    assert set(FORMER.values()) <= set(await names(client))
    changes = {change.name: change.what for change in await register(client, before)}
    assert {name: changes[name] for name in FORMER.values()} == dict.fromkeys(FORMER.values(), "removed")
    found = await names(client)
    assert set(found) == {spec.full_name for spec in catalog(before)}
    assert len({one.name for one in found.values()}) == len(found)
    internal = {name for name, one in found.items() if INTERNAL_TAG in one.tags}
    assert internal == {"transcribe/recording-of-batch", "notify/webhook"}
    assert all(("by hand" in (one.description or "")) == (name in internal) for name, one in found.items())
    assert {change.what for change in await register(client, before)} == {"unchanged"}


async def test_a_schedule_that_was_paused_stays_so(client: PrefectClient, before: StenoSettings) -> None:
    old = (await names(client))["gc/nightly"]
    (schedule,) = old.schedules
    await client.update_deployment_schedule(old.id, schedule.id, active=False)
    await register(client, before)
    (carried,) = (await names(client))["gc/clean-up"].schedules
    assert not carried.active


async def test_a_run_that_waits_or_may_be_retried_is_not_lost(client: PrefectClient, before: StenoSettings) -> None:
    old = (await names(client))["transcribe/stenoflow"]
    waiting = await create_run(client, old, LATER)
    changes = {change.name: change.what for change in await register(client, before)}
    assert changes["transcribe/stenoflow"] == "updated"
    assert {change.what for change in await register(client, before)} == {"unchanged"}
    old = (await names(client))["transcribe/stenoflow"]
    assert RETIRED_TAG in old.tags and "transcribe/one-recording" in (old.description or "")
    response = await client.request("GET", f"/flow_runs/{waiting}")  # type: ignore[arg-type]
    assert response.json()["state_name"] == "Scheduled"

    for state in ("FAILED", "COMPLETED"):
        body = {"state": {"type": state}, "force": True}
        (await client.request("POST", f"/flow_runs/{waiting}/set_state", json=body)).raise_for_status()  # type: ignore[arg-type]
        await register(client, before)
        assert ("transcribe/stenoflow" in await names(client)) == (state == "FAILED")


async def test_somebody_elses_deployment_of_that_name_is_left_alone(client: PrefectClient, before: StenoSettings) -> None:
    old = (await names(client))["evaluate/stenoflow"]
    changed = await client.request("PATCH", f"/deployments/{old.id}", json={"entrypoint": "theirs.evaluate"})  # type: ignore[arg-type]
    changed.raise_for_status()
    await register(client, before)
    assert RETIRED_TAG not in (await names(client))["evaluate/stenoflow"].tags
