"""Artifacts of the flow run under way, in Prefect's views: made once, and replaced when the run is retried."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import Artifact, FlowRun

PREFIX = "transcription"
"""Of all keys: Prefect lists artifacts by key, over all flows."""


def flow_run_here() -> FlowRun | None:
    """The flow run under way in this context."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    return context.flow_run if context is not None else None


class RunArtifacts:
    """The artifacts of one flow run. A retry finds those of the execution before it and writes them anew."""

    def __init__(self, run: UUID, name: str, *, retried: bool) -> None:
        self.run = run
        self._title = _slug(name)
        self._ids: dict[str, UUID] | None = None if retried else {}

    @classmethod
    def of(cls, run: FlowRun) -> RunArtifacts:
        return cls(run.id, run.name, retried=run.run_count > 1)

    async def find(self, client: PrefectClient) -> dict[str, UUID]:
        """The artifacts there are, by key. A run's first execution needs no request."""
        if self._ids is None:
            self._ids = {str(one.key): one.id for one in await read_artifacts(client, self.run)}
        return self._ids

    async def write(
        self, client: PrefectClient, name: str, kind: str, data: Any, description: str, *, titled: bool = False
    ) -> None:
        """Show `data` as the run's artifact `name`; see `prefect.artifacts` for the data of each kind.

        A `titled` one has the run's name in its key, which is what Prefect's views show as its title.
        """
        from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate

        known, key = await self.find(client), f"{PREFIX}-{name}"
        if titled:
            key = next((one for one in known if one.startswith(f"{key}-")), f"{key}-{self._title}")
        if key in known:
            await client.update_artifact(known[key], ArtifactUpdate(data=data, description=description))
            return
        artifact = ArtifactCreate(key=key, type=kind, data=data, description=description, flow_run_id=self.run)
        known[key] = (await client.create_artifact(artifact)).id


def _slug(name: str) -> str:
    """As much of the name as a key may hold: small letters without accents, digits and dashes."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:80].strip("-") or "recording"


async def read_artifacts(client: PrefectClient, run: UUID, *names: str) -> list[Artifact]:
    """The artifacts of a flow run, all or those of these names, latest first."""
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
    from prefect.client.schemas.sorting import ArtifactSort

    wanted = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=[run]),
        key=ArtifactFilterKey(any_=[f"{PREFIX}-{name}" for name in names]) if names else None,
    )
    return await client.read_artifacts(artifact_filter=wanted, sort=ArtifactSort.UPDATED_DESC)
