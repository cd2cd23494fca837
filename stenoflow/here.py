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
    """The recording could not be transcribed for a reason that has no class of its own in `stenoflow.errors`."""

    code = "transcribe_failed"

    def __init__(self, message: str, reason: str, transcript: Transcript | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        """The code that `steno transcribe` gave, as `diarization_failed`."""
        self.transcript = transcript
        """Where speakers could not be told apart: the words without them."""


def transcribe(
    source: str | os.PathLike[str] | bytes,
    *,
    on_event: Callable[[dict[str, Any]], object] | None = None,
    **options: Unpack[Options],
) -> Transcript:
    """The transcript of one recording, made on this machine by `steno transcribe` in a process of its own.

    `source` is a path, an http(s), s3 or any fsspec URL, or the bytes of a file in any container and codec. `options` are those
    of the command, with its defaults: speakers are told apart unless `diarize=False`. `on_event` is called with each line of
    `steno transcribe --json`, as docs/cli.md describes them: stages that begin, get on and end.

    Times in the transcript are seconds from the recording's beginning, as floats; `segments` are in order, each a sentence (or a
    part of one) of one speaker, and `word_segments` are all their words. Silence gives a transcript without segments, and a warning.

    Stages that were computed before are taken from the store (`STENO_HOME`, `STENO_STORE`), so asking again costs little. Models
    are loaded anew by each call: for many recordings at once use `steno batch`, or a service and `StenoClient`. It blocks; in an
    event loop, await `asyncio.to_thread(transcribe, source)`.

    Raises the class of `stenoflow.errors` that says what went wrong (`MediaError` for a recording that cannot be used,
    `TransientError` where trying again may help, …), and TranscribeFailed for what has none there.
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
            raise TranscribeFailed("`steno transcribe` ended without a transcript and without saying why.", "unknown")
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
            raise TranscribeFailed(f"The process was ended by signal {-process.returncode}.", "killed")
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
