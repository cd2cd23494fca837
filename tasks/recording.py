"""The recording that a run works on, once it is fetched and decoded."""

from __future__ import annotations

from infra.artifacts import ArtifactRef
from speech.schema import ChosenTrack
from stenoflow.types import Frozen


class Recording(Frozen):
    audio: ArtifactRef
    name: str
    """For people: the source without credentials and query."""
    stem: str
    """What the exported files are called."""
    duration: float
    """Seconds."""
    warnings: tuple[str, ...] = ()
    track: ChosenTrack | None = None
    """Which audio track it is, where the file has several."""
    reused: bool = False
    """The same bytes had been decoded before."""
