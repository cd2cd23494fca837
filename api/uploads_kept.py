"""Uploaded recordings in the store, and how long they stay there."""

from __future__ import annotations

import time

from infra.compute import get_store
from infra.names import file_suffix

FOLDER = "uploads"


def place_of(sha256: str, name: str) -> str:
    """Where an upload is kept: by its content, with the extension that decoders may want."""
    return f"{FOLDER}/{sha256[:2]}/{sha256}{file_suffix(name)}"


def remove_upload(sha256: str) -> None:
    """Delete the recording, under whichever extension."""
    store = get_store()
    for file in list(store.files(f"{FOLDER}/{sha256[:2]}")):
        if file.path.rpartition("/")[2].partition(".")[0] == sha256:
            store.delete(file.path)


def expired_uploads(days: float) -> int:
    """Delete what was uploaded so many days ago; how many. An upload that is repeated counts anew."""
    store, before = get_store(), time.time() - days * 86_400
    old = [file.path for file in store.files(FOLDER) if file.modified < before]
    for path in old:
        store.delete(path)
    return len(old)
