"""Output files of a recording: never overwrite a recording, nor files of others.

What was written is kept in the store, under `records/written/<hash of the place>`: for which recording, and the hash of the
content. So a file is known again as ours, and one that was edited or came from elsewhere is not.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Collection
from pathlib import Path

from pydantic import ValidationError

from infra import outputs
from infra.compute import get_store
from infra.names import STDIN, WEB, path_of, scheme_of, without_secrets
from infra.settings import StenoSettings
from infra.storage import canonical
from speech.sniff import HEAD, looks_like_media
from stenoflow.errors import OutputExists, OutputIsRecording, OutputNotWritable, StorageFull
from stenoflow.types import Frozen

_ELSEWHERE = "choose another --output-dir or --name"
_LARGEST = 256 << 20
"""Bytes; no transcript is larger, so that a larger file is not read to find out whether it is ours."""


class _Record(Frozen):
    recordings: tuple[str, ...]
    """Of the recording that the file was written for: where it was, and its samples."""
    contents: tuple[str, ...]
    """SHA-256 of what was written last, and of what was there before if that was ours."""


def known_as(source: str, audio: str) -> tuple[str, ...]:
    """What a recording is known by: its address (apart from a query, which may be a signature) and the hash of its samples."""
    plain = source.partition("?")[0] if scheme_of(source) in WEB else path_of(source)
    return (audio,) if source == STDIN else (_digest(os.fsencode(plain)), audio)


def refuse_source(target: str, source: str) -> None:
    """Raise OutputIsRecording when the file to be written is the recording itself, by whatever name or link."""
    if _same_file(target, source):
        raise OutputIsRecording(_over_recording(target), cure=_ELSEWHERE)


def refuse_others(
    target: str, recordings: Collection[str], settings: StenoSettings, *, overwrite: bool, content: bytes | None = None
) -> None:
    """Refuse to replace a file that is not this recording's, unless it holds `content` already.

    Raises OutputIsRecording for a recording, in any case, and OutputExists for another file unless it is to be overwritten.
    """
    there = outputs.read(target, settings, most=_LARGEST)
    if there is None or there == content:
        return
    record = _read(target)
    if record is not None and _digest(there) in record.contents and set(recordings) & set(record.recordings):
        return
    if looks_like_media(there[:HEAD], target):
        raise OutputIsRecording(_over_recording(target), cure=_ELSEWHERE)
    if not overwrite:
        raise OutputExists(
            f"The file {without_secrets(target)} already exists and was not written for this recording, or was changed since; it is left as it is",
            cure="choose another --output-dir or --name, or replace it with --overwrite",
        )


def write_for(target: str, recordings: Collection[str], content: bytes, settings: StenoSettings, *, overwrite: bool) -> None:
    """Write a recording's file, and keep that it is ours. Raises the errors of `refuse_others` and of writing."""
    refuse_others(target, recordings, settings, overwrite=overwrite, content=content)
    before, after = _read(target), _digest(content)
    contents = (after, *(before.contents[:1] if before is not None else ()))
    record = _Record(recordings=tuple(recordings), contents=tuple(dict.fromkeys(contents)))
    if record != before:
        # Before the file, so that one that a kill leaves behind is ours in any case.
        # In a store that may only be read, or is full, none can be kept: what is there is then somebody else's the next time.
        with contextlib.suppress(OutputNotWritable, StorageFull):
            get_store(settings).write_record(_place(target), record.model_dump_json().encode())
    outputs.write(target, content, settings)


def _same_file(target: str, source: str) -> bool:
    if outputs.is_url(target) or scheme_of(source) not in (None, "file"):
        return canonical(target) == canonical(source)
    try:
        return Path(target).samefile(path_of(source))
    except (OSError, ValueError):
        return os.path.realpath(target) == os.path.realpath(path_of(source))


def _over_recording(target: str) -> str:
    return f"{without_secrets(target)} is a recording, which is never overwritten"


def _place(target: str) -> str:
    return f"written/{_digest(os.fsencode(target if outputs.is_url(target) else os.path.realpath(target)))}"


def _read(target: str) -> _Record | None:
    content = get_store().read_record(_place(target))
    try:
        return _Record.model_validate_json(content) if content else None
    except ValidationError:
        return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
