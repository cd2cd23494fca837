"""Recordings in, speaker-attributed, word-timed transcripts out: what programs import.

    from stenoflow import transcribe

    transcript = transcribe("meeting.m4a", language="en", max_speakers=4)
    for segment in transcript.segments:
        print(f"{segment.start:7.2f}  {segment.speaker}  {segment.text}")

`transcribe` runs here, in a process of its own; `StenoClient` and `AsyncStenoClient` have it done by the REST API. Both give a
`Transcript`, and raise classes of `stenoflow.errors`. What is named here stays; any other module may change.

Nothing but httpx and pydantic is imported, and that when a name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stenoflow.client import AsyncStenoClient, ClientError, Progress, StenoClient
    from stenoflow.errors import AccessError, InputError, MediaError, StenoError, TransientError
    from stenoflow.here import TranscribeFailed, transcribe
    from stenoflow.types import ModelInfo, Segment, Stretch, Transcript, Turn, Word

__all__ = [
    "AccessError",
    "AsyncStenoClient",
    "ClientError",
    "InputError",
    "MediaError",
    "ModelInfo",
    "Progress",
    "Segment",
    "StenoClient",
    "StenoError",
    "Stretch",
    "TranscribeFailed",
    "Transcript",
    "TransientError",
    "Turn",
    "Word",
    "transcribe",
]

_HOMES = {
    "client": ("AsyncStenoClient", "ClientError", "Progress", "StenoClient"),
    "errors": ("AccessError", "InputError", "MediaError", "StenoError", "TransientError"),
    "here": ("TranscribeFailed", "transcribe"),
    "types": ("ModelInfo", "Segment", "Stretch", "Transcript", "Turn", "Word"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
