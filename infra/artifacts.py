"""References: all that travels between tasks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from speech.stages import STAGES
from stenoflow.types import Frozen

SUFFIXES = {"audio": ".flac", **{spec.output: spec.suffix for spec in STAGES.values()}, "shard": ".part"}
"""By kind of artifact."""
if TYPE_CHECKING:
    Kind = str
else:
    Kind = Literal[tuple(SUFFIXES)]

_SHA256 = re.compile(r"[0-9a-f]{64}")


def artifact_path(kind: Kind, sha256: str) -> str:
    """Where an artifact lies, relative to the store's root."""
    return f"artifacts/{kind}/{sha256[:2]}/{sha256}{SUFFIXES[kind]}"


class ArtifactRef(Frozen):
    """A whole, immutable artifact in the store.

    `sha256` identifies the content: of the file's bytes, except for audio, where it is of the samples.
    `meta` holds a few small facts that decide what happens next (duration, language), never scores or text.
    """

    kind: Kind
    path: str
    """Relative to the store's root, so that a store can be moved or mounted elsewhere."""
    sha256: str
    bytes: int
    meta: dict[str, Any] = Field(default_factory=dict)

    @property
    def in_place(self) -> bool:
        """Whether its path is the one that its name leads to. A record from another writer may point anywhere."""
        return _SHA256.fullmatch(self.sha256) is not None and self.path == artifact_path(self.kind, self.sha256)


class StageOutcome(Frozen):
    """What a computed stage leaves: the artifact's reference and what it cost."""

    artifact: ArtifactRef
    seconds: float
    """Wall seconds of the stage's own work, loading models included."""
    load_seconds: float = 0.0
    """The part of `seconds` spent loading models."""
    backend: str = "local"
    device: str = "cpu"
    batch_size: int | None = None
    shards: int = 1
    """Into how many shards the stage was divided."""
    worker_seconds: float | None = None
    """The seconds of all shards together, which several workers shared; None for an undivided stage."""
    key: str = ""
    run: str = ""
    """The flow run that computed it."""
    gpu: str = ""
    """The type of the rented GPU, as `infra.prices` names it; empty without one."""
    cores: float = 0.0
    """Physical CPU cores that were rented."""
    memory: float = 0.0
    """GiB of memory that were rented."""
    price_factor: float = Field(1.0, exclude_if=lambda factor: factor == 1.0)
    """What the rented machine's prices were multiplied by, for the regions that were chosen. Not written where it is 1, for
    release 0.1, which refuses fields that it does not know."""
