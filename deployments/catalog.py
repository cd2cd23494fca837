"""The deployments, as data: what can be run, with which schedule, how many at once.

Their code is the installed package (module paths, no pull steps): a worker needs nothing but `pip install 'stenoflow[run]'`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from infra.names import display_name
from infra.settings import DeploySettings, StenoSettings

if TYPE_CHECKING:
    from prefect import Flow

TAG = "stenoflow"
"""On every run that stands for itself: the automations restart and report these."""
CHILD_TAG = "stenoflow-batch"
"""On a batch's runs: their batch takes them up again and reports them, and they must not be run twice."""
NIGHTLY_TAG = "nightly"
INTERNAL_TAG = "internal"
"""On deployments whose runs Stenoflow makes."""
INTERNAL = "**Do not start it by hand.** "
WEBHOOK_TAG = "stenoflow-webhook"
"""On runs that notify owners of jobs: their failures concern the owners, so operators are not notified."""


class Change(NamedTuple):
    """What registering did with one thing."""

    kind: Literal["work pool", "deployment", "automation"]
    name: str
    what: Literal["created", "updated", "unchanged", "removed"]


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
    courier: bool = False
    """Run by couriers (`deployments.courier`), which have a work pool of their own, not by workers."""

    def pool(self, settings: StenoSettings) -> str:
        """The work pool whose workers run it."""
        return courier_pool(settings) if self.courier else settings.deploy.pool

    @property
    def flow(self) -> Flow[..., Any]:
        module, _, name = self.entrypoint.rpartition(".")
        flow: Flow[..., Any] = getattr(import_module(module), name)
        return flow

    @property
    def full_name(self) -> str:
        """`transcribe/one-recording`, as Prefect shows it and takes it at the command line."""
        return f"{self.flow.name}/{self.name}"


def catalog(settings: StenoSettings) -> list[Spec]:
    """Every deployment that these settings ask for."""
    return [*_recordings(settings.deploy), *_batches(settings.deploy), *_upkeep(settings.deploy), _webhooks()]


def courier_pool(settings: StenoSettings) -> str:
    """The work pool of webhooks: recordings never keep them waiting, nor they recordings."""
    return f"{settings.deploy.pool}-webhooks"


def _recordings(deploy: DeploySettings) -> list[Spec]:
    return [
        Spec(
            "flows.transcribe.transcribe",
            "one-recording",
            "Transcribe one recording. *Run → Custom run* shows the form; relative paths are resolved in the work pool's working "
            "directory. If diarization fails, the text is kept: *Retry* repeats only what is missing.",
            concurrency=deploy.concurrency,
        ),
        Spec(
            "flows.transcribe.transcribe",
            "recording-of-batch",
            f"{INTERNAL}A batch creates these runs, one per recording; *Retry* runs one again on its own.",
            tags=(CHILD_TAG, INTERNAL_TAG),
            concurrency=deploy.concurrency,
        ),
    ]


def _batches(deploy: DeploySettings) -> list[Spec]:
    options = {"options": deploy.nightly_options} if deploy.nightly_options else {}
    nightly = Spec(
        "flows.batch.batch",
        "nightly",
        f"Transcribe new recordings in {display_name(deploy.nightly_source)}." if deploy.nightly_source else "",
        tags=(TAG, NIGHTLY_TAG),
        parameters={"request": {"source": deploy.nightly_source, "output_dir": deploy.nightly_output, **options}},
        schedule=Schedule("nightly", deploy.nightly_cron, deploy.timezone),
        concurrency=1,
    )
    adhoc = Spec(
        "flows.batch.batch",
        "folder-or-feed",
        "Transcribe a folder, an S3 prefix or glob, a manifest or a podcast feed. Recordings that are done are skipped.",
        concurrency=deploy.concurrency,
    )
    return [adhoc, *([nightly] if deploy.nightly_source else [])]


def _upkeep(deploy: DeploySettings) -> list[Spec]:
    collect = Spec(
        "flows.gc.gc",
        "clean-up",
        "Delete expired artifacts that are not in use.",
        tags=(TAG, NIGHTLY_TAG),
        schedule=Schedule("nightly", deploy.gc_cron, deploy.timezone) if deploy.gc_cron else None,
        concurrency=1,
    )
    evaluate = Spec(
        "flows.evaluate.evaluate",
        "compare-models",
        "Measure word errors, speaker errors and word times against a reference set, and compare with the previous evaluation.",
        concurrency=1,
    )
    return [collect, evaluate]


def _webhooks() -> Spec:
    return Spec(
        "flows.notify.notify",
        "webhook",
        f"{INTERNAL}The courier creates these runs; each notifies the owner of a job that it has ended. A failed "
        "one exhausted its attempts: *Retry* delivers it again, with the same id.",
        tags=(WEBHOOK_TAG, INTERNAL_TAG),
        courier=True,
    )


def package_version() -> str:
    try:
        return version("stenoflow")
    except PackageNotFoundError:
        return "0"
