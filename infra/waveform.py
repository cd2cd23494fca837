"""The peaks of recordings, each computed once and kept in a record that goes with the audio: it names the artifact."""

from __future__ import annotations

import base64
import binascii
import json

from infra.artifacts import ArtifactRef
from infra.jobs import engine_required
from infra.store import Store


def record_of(sha256: str) -> str:
    """The name of the record of the peaks of that audio."""
    return f"peaks-{sha256}"


def read_peaks(store: Store, audio: ArtifactRef) -> bytes:
    """The peaks of the audio, `speech.peaks.PER_SECOND` bytes a second. Raises ArtifactMissing, and the store's errors."""
    name = record_of(audio.sha256)
    content = store.read_record(name)
    if content:
        try:
            return base64.b64decode(json.loads(content)["peaks"], validate=True)
        except (ValueError, KeyError, TypeError, binascii.Error):
            pass  # damaged; computed anew
    with engine_required(), store.local(audio) as path:
        from speech.peaks import peaks

        found = peaks(path)
    kept = {"audio": audio.path, "peaks": base64.b64encode(found).decode()}
    store.write_record(name, json.dumps(kept).encode())
    return found
