"""The deployments, as data: what can be run, with which schedule, how many at once.

Their code is the installed package (module paths, no pull steps): a worker needs nothing but `pip install stenoflow`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal

from infra.settings import StenoSettings

if TYPE_CHECKING:
    from prefect import Flow

TAG = "stenoflow"
"""On every deployment, and so on every run of one: what the automations act upon."""


@dataclass(frozen=True)
class Schedule:
    """When a deployment runs by itself."""

    slug: str
    cron: str
    timezone: str


@dataclass(frozen=True)
class Spec:
    """One deployment."""

    entrypoint: str
    """The flow's module path: `flows.transcribe.transcribe`."""
    name: str
    description: str
    tags: tuple[str, ...] = (TAG,)
    parameters: dict[str, Any] = field(default_factory=dict)
    schedule: Schedule | None = None
    concurrency: int | None = None
    """Runs at once; None for any number."""
    when_full: Literal["ENQUEUE", "CANCEL_NEW"] = "ENQUEUE"
    """What happens to a run above `concurrency`: it waits for its turn, or is cancelled."""

    @property
    def flow(self) -> Flow[..., Any]:
        module, _, name = self.entrypoint.rpartition(".")
        flow: Flow[..., Any] = getattr(import_module(module), name)
        return flow


def catalog(settings: StenoSettings) -> list[Spec]:
    """Every deployment that these settings ask for."""
    deploy = settings.deploy
    return [
        Spec(
            "flows.transcribe.transcribe",
            "stenoflow",
            "Transcribe one recording: fill in the form under Run → Custom run.",
            concurrency=deploy.concurrency,
        ),
    ]


def package_version() -> str:
    try:
        return version("stenoflow")
    except PackageNotFoundError:
        return "0"
