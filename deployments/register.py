"""Register the catalogue with a Prefect API: create what is missing, change what differs, leave the rest alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deployments.automations import register_automations
from deployments.catalog import Change, Spec, catalog, courier_pool, package_version
from deployments.environment import flow_environment
from deployments.execute import COMMAND
from deployments.form import parameter_form
from deployments.renamed import predecessor, retire
from infra.settings import StenoSettings

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.responses import DeploymentResponse


async def register(client: PrefectClient, settings: StenoSettings) -> list[Change]:
    """Make the work pools, the deployments and the automations. A second time changes nothing."""
    pools = {settings.deploy.pool: "Workers of Stenoflow.", courier_pool(settings): "Deliver Stenoflow's webhooks."}
    changes = [await _register_pool(client, name, about, settings) for name, about in pools.items()]
    for spec in catalog(settings):
        former = await predecessor(client, spec.full_name, spec.entrypoint)
        changes.append(await _register_deployment(client, spec, spec.pool(settings), former))
        if former is not None and (change := await retire(client, former, spec.full_name)) is not None:
            changes.append(change)
    return changes + await register_automations(client, settings)


async def _register_pool(client: PrefectClient, name: str, description: str, settings: StenoSettings) -> Change:
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound

    template = job_template(settings)
    try:
        pool = await client.read_work_pool(name)
    except ObjectNotFound:
        await client.create_work_pool(
            WorkPoolCreate(name=name, type="process", base_job_template=template, description=description)
        )
        return Change("work pool", name, "created")
    if pool.base_job_template == template:
        return Change("work pool", name, "unchanged")
    await client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))
    return Change("work pool", name, "updated")


def job_template(settings: StenoSettings) -> dict[str, Any]:
    """What a process of the pool is started with. No run, deployment or automation can set any of it.

    Prefect's server refuses job variables by this template; our workers do not ask for it (`deployments.worker`).
    """
    return {
        "variables": {"type": "object", "properties": {}, "additionalProperties": False},
        "job_configuration": {
            "command": COMMAND,
            "env": flow_environment(),
            "working_dir": str(settings.workdir_path),
            "stream_output": True,
        },
    }


async def _register_deployment(client: PrefectClient, spec: Spec, pool: str, former: DeploymentResponse | None) -> Change:
    """`former` is the deployment that it replaces, whose paused schedules stay paused."""
    from prefect.exceptions import ObjectNotFound

    flow, full_name = spec.flow, spec.full_name
    wanted = _payload(spec, pool)
    try:
        found = await client.read_deployment_by_name(full_name)
    except ObjectNotFound:
        found = None
    schedules = _schedules(spec, found or former)
    if found is not None and _same(found, wanted) and _same_schedules(found, schedules):
        return Change("deployment", full_name, "unchanged")
    wanted |= {"flow_id": str(await client.create_flow(flow)), "schedules": schedules}
    response = await client.request("POST", "/deployments/", json=wanted)
    response.raise_for_status()
    return Change("deployment", full_name, "created" if found is None else "updated")


def _payload(spec: Spec, pool: str) -> dict[str, Any]:
    return {
        "name": spec.name,
        "version": package_version(),
        "description": spec.description,
        "tags": sorted(spec.tags),
        "parameters": spec.parameters,
        "parameter_openapi_schema": parameter_form(spec.flow),
        "enforce_parameter_schema": True,
        "entrypoint": spec.entrypoint,
        "path": None,
        "pull_steps": None,
        "work_pool_name": pool,
        "concurrency_limit": spec.concurrency,
        "concurrency_options": {"collision_strategy": spec.when_full},
        "job_variables": {},
    }


def _same(found: DeploymentResponse, wanted: dict[str, Any]) -> bool:
    now = found.model_dump(mode="json") | {"tags": sorted(found.tags)}
    limit = found.global_concurrency_limit
    now["concurrency_limit"] = limit.limit if limit else None
    options = now.get("concurrency_options") or {}
    now["concurrency_options"] = {"collision_strategy": options.get("collision_strategy")}
    return all(now.get(name) == value for name, value in wanted.items())


def _schedules(spec: Spec, found: DeploymentResponse | None) -> list[dict[str, Any]]:
    """The schedule as the API takes it; one that an operator has paused stays so."""
    if spec.schedule is None:
        return []
    paused = {schedule.slug for schedule in (found.schedules if found else []) if not schedule.active}
    slug = spec.schedule.slug
    cron = {"cron": spec.schedule.cron, "timezone": spec.schedule.timezone, "day_or": True}
    return [{"schedule": cron, "active": slug not in paused, "slug": slug}]


def _same_schedules(found: DeploymentResponse, wanted: list[dict[str, Any]]) -> bool:
    now = [
        {"schedule": schedule.schedule.model_dump(mode="json"), "active": schedule.active, "slug": schedule.slug}
        for schedule in found.schedules
    ]
    return now == wanted
