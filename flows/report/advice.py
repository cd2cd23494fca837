"""What to do about each kind of error, for the person who reads a failed run's report."""

from __future__ import annotations

from collections.abc import Iterator

from stenoflow.errors import Retry, StenoError

ADVICE: dict[str, str] = {
    "error": "Read the message above; the log of this run says more.",
    "unexpected": "This is a defect. Please report it with the log of this run.",
    # the request
    "input": "Correct the request and start a new run.",
    "invalid_option": "Correct the option and start a new run.",
    "unknown_model": "Choose one of the models that `steno models` lists, a repository of huggingface.co, or a folder of weights; start a new run.",
    "invalid_reference": "Correct the file of truth that the recording is compared with.",
    # the recording
    "media": "Listen to the recording; if it plays elsewhere, convert it to WAV or FLAC and start a new run.",
    "empty_media": "Upload the recording again: nothing arrived of it.",
    "unreadable_media": "Check that the file is audio or video; if it plays elsewhere, convert it to WAV or FLAC.",
    "corrupt_media": "Fetch the recording from its origin again; if it plays elsewhere, convert it to WAV or FLAC.",
    "truncated_media": "Fetch the recording again, or start a new run with `allow_truncated` to transcribe what is there.",
    "no_such_track": "Choose one of the tracks that the message names, or leave `track` out.",
    "no_audio_track": "Choose the file that has the sound: this video has none.",
    "forbidden_media": "Give the recording itself rather than a playlist or a file that points at others.",
    "unsuitable_media": "Give sound of 4 kHz or more; a file whose header gives another rate than it was recorded at has to be exported again.",
    "media_too_long": "Cut the recording, or raise `STENO_LIMITS__MAX_DURATION` on the worker.",
    # where it is read from, and written to
    "source": "Correct the source and start a new run.",
    "source_not_found": "Check the path or address, and that the worker can see it: paths are those of the worker's machine.",
    "source_denied": "Give the worker access: a fresh signed address, S3 credentials (`STENO_S3__KEY`, `STENO_S3__SECRET`), or permissions.",
    "source_forbidden": "If the address is yours and meant to be read, add its host to `STENO_NET__ALLOW_HOSTS` on the worker.",
    "source_too_large": "Cut the recording or extract its sound, or raise `STENO_LIMITS__MAX_BYTES` on the worker.",
    "unreadable_list": "Give a folder, an S3 prefix, a CSV or JSONL manifest, or the address of a podcast feed.",
    "list_too_long": "Narrow the list, or divide it into several batches.",
    "output_not_writable": "Choose another output folder, or make this one writable for the worker; then Retry.",
    "storage_full": "Free space on the worker (`steno gc` removes old artifacts), then Retry.",
    # models
    "access": "Check `HF_TOKEN` on the worker, then Retry.",
    "gated_model": "Accept the model's licence on its hub page and set `HF_TOKEN` on the worker, then Retry.",
    "model_unavailable": "Run `steno models fetch` on the worker (`steno doctor` says what is missing), then Retry.",
    "engine_missing": "Install what the message names where the stages run, then Retry.",
    "checksum_mismatch": "Remove the damaged weights that the message names, so that they are fetched again; then Retry.",
    # the machine
    "out_of_memory": "Choose a smaller model or a machine with more memory; a batch of one was too much already.",
    "cancelled": "Nothing, if it was meant; otherwise Retry.",
    "quarantined": "Look for what ends the worker's process (memory, mostly) before you Retry; set `steno doctor` on it.",
    "stage_failed": "This is a defect. Please report it with the log of this run.",
    # Modal
    "modal_denied": "Set `MODAL_TOKEN_ID` and `MODAL_TOKEN_SECRET` on the worker (`modal token new` makes them), then Retry.",
    "modal_not_deployed": "Deploy the GPU stages (`steno modal deploy`), then Retry.",
    "output_exists": "Choose another output folder or name, or say that what is there may be overwritten; then try again.",
    "output_is_recording": "Choose another output folder, name or format, so that no recording is written over; then try again.",
    # Prefect, and what is started beside it
    "prefect_denied": "Set `PREFECT_API_KEY` (Cloud) or `PREFECT_API_AUTH_STRING` (your own server), then try again.",
    "prefect_refused": "Do what the server's sentence asks for, then try again.",
    "no_prefect_api": "Set `PREFECT_API_URL`, or start a server with `steno up`.",
    "port_taken": "Stop what listens on the port, or choose another one.",
    "process_keeps_ending": "Read the log of the process that the message names; then start again.",
    # what may pass
    "transient": "Retry in a few minutes. If it keeps failing, look at the network and at the machine that was lost.",
    "worker_lost": "Retry. If it recurs, look at what ends the workers: memory, mostly, or preemption.",
    "prefect_unreachable": "Start the Prefect server, or correct `PREFECT_API_URL`; then try again.",
    "prefect_database_damaged": "Put back a copy of the database that the message names, or move it away; then try again.",
    "prefect_database_newer": "Install the later version of Prefect again, or point `PREFECT_HOME` to another folder.",
    "artifact_missing": "Retry: what was removed is computed again. If it recurs, keep artifacts longer (`retention_days`).",
    "unreadable_artifact": "Retry: what was damaged is computed again. If it recurs, check the disk or bucket of the store.",
    "download_failed": "Retry when the server that holds the recording answers again.",
    "stage_timeout": "Raise the limit that the message names, or choose a smaller model or a faster machine, then Retry.",
    "stage_not_begun": "Let more stages run at once, or wait longer, by the settings that the message names; then Retry.",
    "diarization_failed": "See to what failed in the branch of the speakers, then Retry: the text is kept.",
}
"""Error code to a sentence. Complete: a test walks the trees of errors."""

HELPS: dict[Retry, str] = {
    Retry.NEVER: "No, not as it is: the same would happen again until the cause is seen to.",
    Retry.SMALLER: "Only with more memory or less work: the batch was halved down to one here.",
    Retry.LATER: "Yes: the cause may have passed since.",
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
