"""What to do about each kind of error, for the person who reads a failed run's report."""

from __future__ import annotations

from collections.abc import Iterator

from stenoflow.errors import Retry, StenoError

ADVICE: dict[str, str] = {
    "error": "Read the message above; the log of this run has the details.",
    "unexpected": "This is a bug. Please report it with the log of this run.",
    # the request
    "input": "Correct the request and start a new run.",
    "invalid_option": "Correct the option and start a new run.",
    "unknown_model": "Choose a model from `steno models`, a hub repository (`owner/name`) or a folder of weights, and start a new run.",
    "unknown_glossary": "Choose one of the glossaries that `steno glossary list` shows, or make it, and start a new run.",
    "unknown_voice": "Choose one of the voices that `steno voices list` shows.",
    "invalid_reference": "Correct the reference of the recording.",
    # the recording
    "media": "Listen to the recording; if it plays elsewhere, convert it to WAV or FLAC and start a new run.",
    "empty_media": "Upload the recording again: the file is empty.",
    "unreadable_media": "Check that the file is audio or video; if it plays elsewhere, convert it to WAV or FLAC.",
    "corrupt_media": "Copy or download the recording again; if it plays elsewhere, convert it to WAV or FLAC.",
    "truncated_media": "Copy or download the recording again, or start a new run with `allow_truncated` to transcribe the part that exists.",
    "no_such_track": "Choose one of the tracks that the message lists, or omit `track`.",
    "no_audio_track": "Choose the file that has the audio: this video has none.",
    "forbidden_media": "Give the recording itself instead of a playlist or a file that refers to others.",
    "unsuitable_media": "Give audio with a sample rate of 4 kHz or more; if the header has the wrong rate, export the file again.",
    "unusable_voice": "Give a recording of one person alone with some seconds of clear speech.",
    "media_too_long": "Split the recording, or raise `STENO_LIMITS__MAX_DURATION` on the worker.",
    # where it is read from, and written to
    "source": "Correct the source and start a new run.",
    "source_not_found": "Check the path or URL, and that the worker can read it: paths refer to the worker's machine.",
    "source_denied": "Give the worker access: a new signed URL, S3 credentials (`STENO_S3__KEY`, `STENO_S3__SECRET`), or permissions.",
    "source_forbidden": "If the worker should read this address, add its host to `STENO_NET__ALLOW_HOSTS` on the worker.",
    "source_too_large": "Split the recording, extract its audio, or raise `STENO_LIMITS__MAX_BYTES` on the worker.",
    "unreadable_list": "Give a folder, an S3 prefix, a CSV or JSONL manifest, or the address of a podcast feed.",
    "list_too_long": "Narrow the list, or split it into several batches.",
    "output_not_writable": "Choose another output folder, or make this one writable for the worker, then Retry.",
    "storage_full": "Free space on the worker (`steno gc` deletes old artifacts), then Retry.",
    # models
    "access": "Check `HF_TOKEN` on the worker, then Retry.",
    "gated_model": "Accept the licence of the model on its hub page, set `HF_TOKEN` on the worker, then Retry.",
    "model_unavailable": "Run `steno models fetch` on the worker (`steno doctor` says what is missing), then Retry.",
    "engine_missing": "Install what the message names where the stages run, then Retry.",
    "checksum_mismatch": "Delete the damaged weights that the message names, then Retry: they are downloaded again.",
    # the machine
    "out_of_memory": "Choose a smaller model or a machine with more memory: even a batch size of 1 did not fit.",
    "cancelled": "Nothing, if you cancelled it; otherwise Retry.",
    "quarantined": "Find out what kills the worker's process (usually memory; `steno doctor` helps), then Retry.",
    "stage_failed": "This is a bug. Please report it with the log of this run.",
    # Modal
    "modal_denied": "Set `MODAL_TOKEN_ID` and `MODAL_TOKEN_SECRET` on the worker (`modal token new` makes them), then Retry.",
    "modal_not_deployed": "Deploy the GPU stages (`steno modal deploy`), then Retry.",
    "output_exists": "Choose another output folder or name, or allow overwriting, then try again.",
    "output_is_recording": "Choose another output folder, name or format that does not overwrite a recording, then try again.",
    # Prefect, and what is started beside it
    "prefect_denied": "Set `PREFECT_API_KEY` (Cloud) or `PREFECT_API_AUTH_STRING` (your own server), then try again.",
    "prefect_refused": "Do what the message of the server says, then try again.",
    "no_prefect_api": "Set `PREFECT_API_URL`, or start a server with `steno up`.",
    "port_taken": "Stop the program that listens on the port, or choose another port.",
    "process_keeps_ending": "Read the log that the message names, then start again.",
    # what may pass
    "transient": "Retry in a few minutes. If it keeps failing, check the network and the machines.",
    "worker_lost": "Retry. If it recurs, find out what stops the workers: usually memory or preemption.",
    "prefect_unreachable": "Start the Prefect server or correct `PREFECT_API_URL`, then try again.",
    "prefect_database_damaged": "Restore a backup of the database that the message names, or move it away, then try again.",
    "prefect_database_newer": "Reinstall the later version of Prefect, or point `PREFECT_HOME` to another folder.",
    "artifact_missing": "Retry: deleted artifacts are recomputed. If it recurs, keep artifacts longer (`retention_days`).",
    "unreadable_artifact": "Retry: damaged artifacts are recomputed. If it recurs, check the disk or bucket of the store.",
    "download_failed": "Retry when the server of the recording responds again.",
    "stage_timeout": "Raise the limit that the message names, or choose a smaller model or a faster machine, then Retry.",
    "stage_not_begun": "Allow more concurrent stages or a longer wait, with the settings that the message names, then Retry.",
    "diarization_failed": "Fix the cause of the failed diarization, then Retry: the text is kept.",
}
"""Error code to a sentence. Complete: a test walks the trees of errors."""

HELPS: dict[Retry, str] = {
    Retry.NEVER: "No: it fails again until the cause is fixed.",
    Retry.SMALLER: "Only with more memory or a smaller model: the batch size was already halved down to 1.",
    Retry.LATER: "Yes: the cause may be temporary.",
}
"""Whether a Retry helps, in words."""


def kinds(root: type[StenoError] = StenoError) -> Iterator[type[StenoError]]:
    """Every class of error there is."""
    yield root
    for kind in root.__subclasses__():
        yield from kinds(kind)


def advice_for(code: str) -> str:
    """What to do about an error of this code, or of the nearest kind above it that there is advice for."""
    if code in ADVICE:
        return ADVICE[code]
    for kind in kinds():
        if kind.code == code:
            return next(ADVICE[above.code] for above in kind.__mro__ if issubclass(above, StenoError) and above.code in ADVICE)
    return ADVICE["unexpected"]


def retry_of(code: str) -> Retry:
    """Whether trying again can help after an error of this code."""
    return next((kind.retry for kind in kinds() if kind.code == code), Retry.NEVER)
