"""Every error that a user can meet, and whether trying again can help.

    StenoError
    ├── InputError                 the request or the recording is at fault; never retried
    │   ├── InvalidOption          an option's value is not valid (unknown language, min_speakers > max_speakers)
    │   ├── UnknownModel           no model with that name, hub id or folder
    │   ├── UnknownGlossary        no glossary of that name
    │   ├── UnknownVoice           no enrolled voice of that name
    │   ├── InvalidReference       the reference transcript is missing or malformed
    │   ├── MediaError             the recording cannot be used
    │   │   ├── EmptyMedia         zero bytes, or a container without a single sample
    │   │   ├── UnreadableMedia    no decoder recognises the bytes, or they are a web page or another document
    │   │   ├── CorruptMedia       recognised, but the payload does not decode
    │   │   ├── TruncatedMedia     less audio than the container promises
    │   │   ├── NoAudioTrack       a video without sound
    │   │   ├── NoSuchTrack        the requested audio track does not exist
    │   │   ├── ForbiddenMedia     playlists and containers that point at other files or hosts
    │   │   ├── UnusableVoice      too little speech to enrol a voice, or that of several people
    │   │   ├── UnsuitableMedia    sampled too slowly or too fast for speech, or with too many channels
    │   │   └── MediaTooLong       above the duration cap
    │   ├── SourceError            the source is not readable; never retried
    │   │   ├── SourceNotFound     no such file, object or page (404, 410)
    │   │   ├── SourceDenied       401, 403, or no permission to read
    │   │   ├── SourceForbidden    an address or scheme that is never fetched (private, loopback, metadata)
    │   │   ├── SourceTooLarge     above the byte cap
    │   │   ├── UnreadableList     not a folder, manifest or feed
    │   │   └── ListTooLong        more recordings than one batch may list
    │   ├── OutputNotWritable      the output folder cannot be written
    │   │   ├── OutputExists       a file exists that was not written for this recording; kept unless `overwrite` is set
    │   │   └── OutputIsRecording  a file to be written is a recording; it is never written over
    │   ├── PortTaken              another program listens on the port
    │   └── NoApi                  there is no Prefect API to deploy to
    ├── AccessError                the credentials do not give access to a model or an account; never retried
    │   ├── GatedModel             the licence was not accepted, or the token is missing or wrong
    │   ├── ModelUnavailable       not on this machine, and the hub is unreachable or STENO_OFFLINE is set
    │   ├── ApiDenied              the Prefect API refuses these credentials
    │   ├── ModalDenied            no Modal token, or Modal rejects it
    │   └── ModalNotDeployed       the app is not deployed, or has another version
    ├── EngineMissing              the `[cpu]` or `[gpu]` extra is not installed here
    ├── UnreadableArtifact         what an earlier stage wrote is missing or does not parse: it is recomputed
    ├── ChecksumMismatch           weights on disk are not the ones that were pinned
    ├── OutOfMemory                again, with half the batch
    ├── StageCancelled             the run was cancelled during the stage
    ├── ApiRefused                 the Prefect API understood the request and rejected it
    ├── DatabaseDamaged            the database of Prefect's server cannot be read
    ├── DatabaseNewer              the database of Prefect's server was created by a later version of Prefect
    ├── ProcessKeepsEnding         the server or the worker of `steno up` keeps stopping
    ├── StorageFull                no space left where the store or the output lives
    ├── Quarantined                the run's process died too often; not restarted until a person retries it
    ├── StageNotBegun              a stage waited too long for a slot or a container
    ├── StageFailed                an unexpected error inside a stage: a bug, whose details stay out of logs and views
    └── TransientError             again, with back-off: network, preemption, a lost worker
        ├── ArtifactMissing        the artifact was deleted (by gc); the run recomputes it
        ├── ApiUnreachable         the Prefect API does not answer, or the temporary one does not start
        ├── DownloadFailed         stalled, cut short, or a 5xx, after the download was resumed several times
        ├── WorkerLost             a remote worker died or was stopped during a stage, more often than allowed
        └── StageTimeout           a stage hangs, or exceeds the time limit for the recording's duration

The REST API's client adds a branch of its own (`stenoflow.client.errors`).
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

    The message says what is wrong and what to do, in one sentence. `code` is stable and
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


class UnknownGlossary(InputError):
    code = "unknown_glossary"
    exit_code = 2


class UnknownVoice(InputError):
    code = "unknown_voice"


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


class UnusableVoice(MediaError):
    code = "unusable_voice"


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
        super().__init__(f"The file {path.name} of an earlier stage is not readable; run again to recompute it.")
        self.path = path


class ChecksumMismatch(StenoError):
    code = "checksum_mismatch"
    exit_code = 4


class OutOfMemory(StenoError):
    code = "out_of_memory"
    exit_code = 5
    retry = Retry.SMALLER
    tried: int | None = None
    """The batch that did not fit, if the stage chose it itself."""


class StageCancelled(StenoError):
    code = "cancelled"
    exit_code = 130


class TransientError(StenoError):
    code = "transient"
    exit_code = 6
    retry = Retry.LATER


class SourceError(InputError):
    code = "source"


class SourceNotFound(SourceError):
    code = "source_not_found"


class SourceDenied(SourceError):
    code = "source_denied"


class SourceForbidden(SourceError):
    code = "source_forbidden"


class SourceTooLarge(SourceError):
    code = "source_too_large"


class UnreadableList(SourceError):
    code = "unreadable_list"


class ListTooLong(SourceError):
    code = "list_too_long"


class OutputNotWritable(InputError):
    code = "output_not_writable"


class OutputExists(OutputNotWritable):
    code = "output_exists"


class OutputIsRecording(OutputNotWritable):
    code = "output_is_recording"


class PortTaken(InputError):
    code = "port_taken"


class NoApi(InputError):
    code = "no_prefect_api"
    exit_code = 2


class ApiDenied(AccessError):
    code = "prefect_denied"


class ApiRefused(StenoError):
    code = "prefect_refused"


class DatabaseDamaged(StenoError):
    code = "prefect_database_damaged"
    exit_code = 6


class DatabaseNewer(StenoError):
    code = "prefect_database_newer"
    exit_code = 6


class ProcessKeepsEnding(StenoError):
    code = "process_keeps_ending"


class StorageFull(StenoError):
    code = "storage_full"
    exit_code = 5


class Quarantined(StenoError):
    code = "quarantined"
    exit_code = 8


class StageNotBegun(StenoError):
    code = "stage_not_begun"
    exit_code = 6


class StageFailed(StenoError):
    code = "stage_failed"


class ArtifactMissing(TransientError):
    code = "artifact_missing"


class ApiUnreachable(TransientError):
    code = "prefect_unreachable"


class DownloadFailed(TransientError):
    code = "download_failed"


class StageTimeout(TransientError):
    code = "stage_timeout"


class ModalDenied(AccessError):
    code = "modal_denied"


class ModalNotDeployed(AccessError):
    code = "modal_not_deployed"


class WorkerLost(TransientError):
    code = "worker_lost"
