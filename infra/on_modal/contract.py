"""What orchestrator and containers agree on: names, paths, and the JSON that travels in a call and back."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from pydantic import Field

from infra.artifacts import StageOutcome
from infra.jobs import StageJob
from infra.settings import ModalSettings
from speech.schema import WHOLE
from speech.stages import STAGES
from stenoflow.types import Frozen

ROOT = Path(__file__).parents[2]
"""Of the packages: the checkout, site-packages, or `/root` in a container."""

WEIGHTS_PATH = "/weights"
DATA_PATH = "/artifacts"

CLASSES = {stage: spec.machine for stage, spec in STAGES.items() if spec.machine}
"""Stage → class of the app, whose method is called as the stage is. The others run no model, and stay with the orchestrator."""
RECORDINGS = "Recordings"
"""The class that computes all of these stages, for recordings that are too short to start two containers for."""


def one_container(settings: ModalSettings) -> bool:
    """Whether there are recordings that one container computes: both classes' work then is one GPU's."""
    return settings.one_container_below > 0 and settings.voices_gpu in (None, settings.gpu)


def machine_of(job: StageJob, settings: ModalSettings) -> str:
    """The class that computes the job. All stages of one recording agree on it."""
    if one_container(settings) and job.shard == WHOLE and job.duration < settings.one_container_below:
        return RECORDINGS
    return CLASSES[job.stage]


def weights_name(settings: ModalSettings) -> str:
    return f"{settings.app}-weights"


def artifacts_name(settings: ModalSettings) -> str:
    return f"{settings.app}-artifacts"


def events_name(settings: ModalSettings) -> str:
    """The queue of containers' messages, with a partition for each call."""
    return f"{settings.app}-events"


def calls_name(settings: ModalSettings) -> str:
    """Of the dict in which containers note what they begin: how often each call, and which call computes a stage's key."""
    return f"{settings.app}-calls"


def claim(key: str, store: str) -> str:
    """Where the id of the call that computes `key` is noted, by the identity of the store that asked: machines that share the
    app and no store do not take each other's calls."""
    return f"key:{store}:{key}"


ABOUT = "about"
"""Where the app's own facts are noted."""


WARMED = "warmed"
"""Where the languages are noted that `steno modal warm` was last given."""


class About(Frozen):
    """What a deployed app says of itself before a container of its is started."""

    code: str
    """`code_fingerprint()` of what was deployed."""
    token: bool = False
    """Whether its containers have a hub token."""
    gated: tuple[str, ...] = ()
    """The gated models that they can fetch."""


class RemoteCall(Frozen):
    """Everything a container receives."""

    jobs: tuple[StageJob, ...]
    """Each of another recording. One that says what follows it (`StageJob.then`) is followed in the same call."""
    code: str
    """`code_fingerprint()` of the orchestrator."""
    store: str = ""
    """URL of a store that the container opens itself; empty for the artifacts volume."""
    executions: int = 1
    """How often the call may be begun: Modal runs a call again and again when its container dies."""
    owner: str = ""
    """The identity of the store that asked, under which the container notes the call's id (`claim`)."""


class RemoteError(Frozen):
    """An error of our own trees, or, under the code `stage_failed`, the kind and the places of any other."""

    code: str
    message: str
    """What happened."""
    cure: str = ""
    where: str = ""
    tried: int | None = None
    """Of OutOfMemory: the batch that did not fit."""


class RemoteAnswer(Frozen):
    """What became of one stage."""

    outcome: StageOutcome | None = None
    error: RemoteError | None = None
    next: tuple[str, ...] = ()
    """Keys of the stages that the call computes next, since this one's result let them begin."""


class RemoteAnswers(Frozen):
    """All that a container gives back, by the stages' keys: plain JSON, so that neither side needs the other's classes."""

    answers: dict[str, RemoteAnswer] = Field(default_factory=dict)
    rest: RemoteAnswer | None = None
    """What became of every other stage, where the whole call was refused."""


class RemoteEvent(Frozen):
    """A message of a container about the stage of that key."""

    key: str
    fraction: float | None = None
    line: str = ""
    answer: RemoteAnswer | None = None
    """It has ended, while the call goes on with others."""


def stops(call_id: str) -> str:
    """The queue's partition in which the orchestrator names stages of a call, by key, that are no longer wanted."""
    return f"{call_id}-stop"


_NOT_REMOTE = {"formats", "scoring"}
"""Packages of the engine that no container uses."""


@functools.cache
def code_fingerprint() -> str:
    """Hex digest of the engine's source. An app that was deployed from other source would give other results under our keys."""
    digest = hashlib.sha256()
    engine = ROOT / "speech"
    for path in sorted(each for each in engine.rglob("*.py") if each.relative_to(engine).parts[0] not in _NOT_REMOTE):
        digest.update(f"{path.relative_to(ROOT)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
