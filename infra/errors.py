"""Errors of sources, the store, compute and the orchestrator; branches of the tree drawn in `speech.errors`.

    InputError
    ├── SourceError              the source cannot be read as asked; never retried
    │   ├── SourceNotFound       no such file, object or page (404, 410)
    │   ├── SourceDenied         401, 403, or no permission to read
    │   ├── SourceForbidden      an address or scheme that is never fetched (private, loopback, metadata)
    │   ├── SourceTooLarge       above the byte cap
    │   ├── UnreadableList       neither a folder nor a manifest nor a feed that recordings could be listed from
    │   └── ListTooLong          more recordings than one batch may list
    ├── OutputNotWritable        the output folder cannot be written
    │   ├── OutputExists         a file is there that was not written for this recording; it is kept unless told otherwise
    │   └── OutputIsRecording    a file to be written is a recording; it is never written over
    ├── PortTaken                another program listens on the port that the server was to have
    └── NoApi                    there is no Prefect API to deploy to
    AccessError
    ├── ApiDenied                the Prefect API refuses these credentials
    ├── ModalDenied              no Modal token here, or Modal refuses it
    └── ModalNotDeployed         the app is not deployed, or what is deployed is not this version's
    ApiRefused                   the Prefect API understood and said no
    DatabaseDamaged              the database of Prefect's server cannot be read
    DatabaseNewer                the database of Prefect's server was made by a later version of Prefect
    ProcessKeepsEnding           the server or the worker of `steno up` ended again and again
    StorageFull                  no space left where the store or the output lives
    Quarantined                  the run's process died too often; set aside until a person retries it
    StageNotBegun                a stage waited too long for a slot or a container; it would wait again
    StageFailed                  an error inside a stage that nobody foresaw: a defect, whose details stay out of logs and views
    ArtifactMissing              a reference whose artifact is gone (garbage-collected); the run recomputes it
    TransientError
    ├── ApiUnreachable           the Prefect API does not answer, or the temporary one does not start
    ├── DownloadFailed           stalled, cut short, or a 5xx, after the download's own resumes
    ├── WorkerLost               a remote worker died or was stopped under a stage, more often than is put up with
    └── StageTimeout             a stage hangs, or has worked for longer than the recording's duration allows

Each says by `retry` whether trying again can help.
"""

from __future__ import annotations

from speech.errors import AccessError, InputError, StenoError, TransientError


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
