"""What Prefect's API shows of a flow run, as its views read it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import Artifact
from prefect.states import State


def run_of(state: State[Any]) -> UUID:
    run = state.state_details.flow_run_id
    assert run is not None
    return run


async def artifacts(run: UUID) -> dict[str, Artifact]:
    """By key, without the recording's name that follows; a run has each once."""
    async with get_client() as client:
        found = await client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run])))
    by_key = {"-".join(str(artifact.key).split("-")[:2]): artifact for artifact in found}
    assert len(by_key) == len(found)
    return by_key


async def logs(run: UUID, until: Callable[[str], bool] = bool) -> str:
    """Every log line of the run and its task runs, once what is waited for has been recorded."""
    async with get_client() as client, asyncio.timeout(90):
        while True:
            lines = await client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run])), limit=200)
            text = "\n".join(line.message for line in lines)
            if until(text):
                return text
            await asyncio.sleep(0.2)


async def graph(run: UUID, nodes: int) -> dict[str, set[str]]:
    """Stage to the stages that an arrow leads from, in the run graph; waits until all nodes are recorded as ended."""
    async with get_client() as client, asyncio.timeout(90):
        while True:
            answer = (await client.request("GET", "/flow_runs/{id}/graph-v2", path_params={"id": run})).json()
            found = {node["id"]: node for _, node in answer["nodes"]}
            if len(found) >= nodes and all(node["end_time"] for node in found.values()):
                break
            await asyncio.sleep(0.2)
    stage = {key: node["label"].split()[0] for key, node in found.items()}
    return {stage[key]: {stage[parent["id"]] for parent in node["parents"]} for key, node in found.items()}


async def everything(run: UUID) -> str:
    """All text that Prefect keeps of a run apart from its artifacts: names, parameters, states, task runs."""
    async with get_client() as client:
        flow_run = await client.read_flow_run(run)
        states = await client.read_flow_run_states(run)
        task_runs = await client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])))
    return "\n".join(one.model_dump_json() for one in (flow_run, *states, *task_runs))
