"""Transcribing on this machine, from a program."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Unpack

from stenoflow import isolated
from stenoflow.client.options import Options
from stenoflow.errors import InvalidOption, StenoError
from stenoflow.types import Transcript

__all__ = ["TranscribeFailed", "transcribe"]
_GRACE = 30.0
"""Seconds that the process has to end in order when it is not waited for any longer."""


class TranscribeFailed(StenoError):
    """Transcription failed with an error that has no class in `stenoflow.errors`."""

    code = "transcribe_failed"

    def __init__(self, message: str, reason: str, transcript: Transcript | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        """The error code of `steno transcribe`, such as `diarization_failed`."""
        self.transcript = transcript
        """The transcript without speakers, if only diarization failed."""


def transcribe(
    source: str | os.PathLike[str] | bytes,
    *,
    on_event: Callable[[dict[str, Any]], object] | None = None,
    **options: Unpack[Options],
) -> Transcript:
    """Transcribe one recording on this machine, in a process of its own that runs `steno transcribe`.

    Finished stages are reused from the store (`STENO_HOME`, `STENO_STORE`), so a second call costs little. Each call loads the
    models; for many recordings use `steno batch`, or a service and `StenoClient`. The call blocks: in an event loop, await
    `asyncio.to_thread(transcribe, source)`.

    Args:
        source: A path, an http(s), s3 or other fsspec URL, or the bytes of a media file in any container and codec.
        on_event: Called with each line of `steno transcribe --json`: stages as they start, progress and end.
        options: The command's options, with its defaults. Speakers are identified unless `diarize=False`.

    Returns:
        The transcript. Times are floats, in seconds from the start of the recording. `segments` are in order; each is one
        speaker's sentence, or part of one. Silence gives no segments and a warning.

    Raises:
        StenoError: The subclass in `stenoflow.errors` for what went wrong: MediaError if the recording is unusable,
            TransientError if a retry may help, and so on.
        TranscribeFailed: An error that has no class in `stenoflow.errors`.
    """
    if "formats" in options:
        raise InvalidOption("`transcribe` returns the transcript and writes no files; leave `formats` out.")
    with tempfile.TemporaryDirectory(prefix="stenoflow-") as folder:
        output = Path(folder) / "transcript.json"
        command = isolated.command("stenoflow.cli.main", "transcribe", "--json", "--output-file", str(output))
        command += [*_flags(options), "--", "-" if isinstance(source, bytes) else os.fspath(source)]
        failure: dict[str, Any] | None = None
        for event in _events(command, source if isinstance(source, bytes) else b""):
            if event.get("type") == "error":
                failure = event
            if on_event is not None:
                on_event(event)
        transcript = Transcript.model_validate_json(output.read_bytes()) if output.exists() else None
        if failure is not None:
            raise _error(failure, transcript)
        if transcript is None:
            raise TranscribeFailed("`steno transcribe` ended without a transcript or an error; please report it.", "unknown")
        return transcript


def _flags(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        elif value is not None:
            yield f"--{flag}={value}"


def _events(command: list[str], given: bytes) -> Iterator[dict[str, Any]]:
    """Each line that the process prints; it ends before this does."""
    pipe = subprocess.PIPE
    with tempfile.TemporaryFile() as said, subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=said) as process:
        threading.Thread(target=_feed, args=(process.stdin, given), daemon=True).start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                yield json.loads(line)
        except BaseException:
            process.terminate()
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
        if process.wait() not in range(256):
            raise TranscribeFailed(f"The process was killed by signal {-process.returncode}.", "killed")
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
        if process.returncode and lines:
            yield {"type": "error", "code": "unknown", "message": lines[-1]}


def _feed(pipe: Any, given: bytes) -> None:
    try:
        with pipe:
            pipe.write(given)
    except OSError:
        pass  # it has ended, and says why


def _error(failure: Mapping[str, Any], transcript: Transcript | None) -> StenoError:
    code, message = str(failure.get("code")), str(failure.get("message"))
    kinds: list[type[StenoError]] = [StenoError]
    while kinds:
        kind = kinds.pop()
        if kind.code == code and kind.__init__ is StenoError.__init__:
            return kind(message)
        kinds += kind.__subclasses__()
    return TranscribeFailed(message, code, transcript)
