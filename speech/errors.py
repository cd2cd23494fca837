"""Every error the engine raises, and whether trying again can help.

    StenoError
    ├── InputError               the request or the recording is at fault; never retried
    │   ├── InvalidOption        an option's value is refused (unknown language, min_speakers > max_speakers)
    │   ├── UnknownModel         no model of that name, hub id or folder
    │   ├── InvalidReference     the truth that a transcript is scored against is missing or malformed
    │   └── MediaError           the recording cannot be used
    │       ├── EmptyMedia       zero bytes, or a container without a single sample
    │       ├── UnreadableMedia  no decoder recognises the bytes, or they are a web page or another document
    │       ├── CorruptMedia     recognised, but the payload does not decode
    │       ├── TruncatedMedia   less audio than the container promises
    │       ├── NoAudioTrack     a video without sound
    │       ├── NoSuchTrack      the audio track that was asked for is not there
    │       ├── ForbiddenMedia   playlists and containers that point at other files or hosts
    │       ├── UnsuitableMedia  sampled too slowly or too fast for speech, or with too many channels
    │       └── MediaTooLong     above the duration cap
    ├── AccessError              a model may not be read with these credentials; never retried
    │   ├── GatedModel           the licence was not accepted, or the token is missing or wrong
    │   └── ModelUnavailable     not on this machine, and the hub may not or cannot be asked
    ├── EngineMissing            the `[engine]` extra is not installed here
    ├── UnreadableArtifact       what an earlier stage wrote does not parse, or is gone: it is made again
    ├── ChecksumMismatch         weights on disk are not the ones that were pinned
    ├── OutOfMemory              again, with half the batch
    ├── StageCancelled           the run was cancelled while the stage was at work
    └── TransientError           again, with back-off: network, preemption, a lost worker

`infra.errors` grows the same tree by what sources, the store and remote compute can raise.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import ClassVar


class Retry(Enum):
    """Whether trying the same thing again can help."""

    NEVER = "never"
    SMALLER = "smaller"
    """Again, with half the batch."""
    LATER = "later"
    """Again, after a back-off."""


class StenoError(Exception):
    """Root of all errors a user can meet.

    The message is one clear sentence that says what is wrong and what to do. `code` is stable and
    machine-readable; `exit_code` is the command line's.

    A cure that names an option, a setting or a command is given apart, as `cure`: it is of use to whoever runs the command or
    the machine. Other doors say what `happened`, and a cure of their own (`api.cures`).
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    retry: ClassVar[Retry] = Retry.NEVER

    def __init__(self, what: str = "", *, cure: str = "") -> None:
        super().__init__(f"{what}; {cure if cure.endswith('?') else f'{cure}.'}" if cure else what)
        self.cure = cure
        self.happened = f"{what}." if cure else what

    @property
    def message(self) -> str:
        return str(self)


class InputError(StenoError):
    code = "input"
    exit_code = 3


class InvalidOption(InputError):
    code = "invalid_option"
    exit_code = 2


class UnknownModel(InputError):
    code = "unknown_model"
    exit_code = 2


class InvalidReference(InputError):
    code = "invalid_reference"


class MediaError(InputError):
    code = "media"


class EmptyMedia(MediaError):
    code = "empty_media"


class UnreadableMedia(MediaError):
    code = "unreadable_media"


class CorruptMedia(MediaError):
    code = "corrupt_media"


class TruncatedMedia(MediaError):
    code = "truncated_media"


class NoAudioTrack(MediaError):
    code = "no_audio_track"


class NoSuchTrack(MediaError):
    code = "no_such_track"


class ForbiddenMedia(MediaError):
    code = "forbidden_media"


class UnsuitableMedia(MediaError):
    code = "unsuitable_media"


class MediaTooLong(MediaError):
    code = "media_too_long"


class AccessError(StenoError):
    code = "access"
    exit_code = 4


class GatedModel(AccessError):
    code = "gated_model"


class ModelUnavailable(AccessError):
    code = "model_unavailable"


class EngineMissing(StenoError):
    code = "engine_missing"
    exit_code = 4


class UnreadableArtifact(StenoError):
    """An input of a stage that cannot be read. The store that it came from (`infra.store.Store.local`) removes it."""

    code = "unreadable_artifact"

    def __init__(self, path: Path) -> None:
        super().__init__(f"The file {path.name} of an earlier stage cannot be read; run again to recompute it.")
        self.path = path


class ChecksumMismatch(StenoError):
    code = "checksum_mismatch"
    exit_code = 4


class OutOfMemory(StenoError):
    code = "out_of_memory"
    exit_code = 5
    retry = Retry.SMALLER


class StageCancelled(StenoError):
    code = "cancelled"
    exit_code = 130


class TransientError(StenoError):
    code = "transient"
    exit_code = 6
    retry = Retry.LATER
