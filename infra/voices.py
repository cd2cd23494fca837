"""Enrolled voices in the store: `records/voices/<set>/<voice>`, private records that garbage collection leaves alone.

A set is an owner's, or one call's (OpenAI's `known_speaker_references`). An embedding is biometric data: it is in no artifact, log,
parameter or event, and forgetting a voice removes all that there is of it.
"""

from __future__ import annotations

import hashlib
import re
import time
import unicodedata
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime

from infra.store import Store
from speech.enrolled import Consent, EnrolledVoice, Voiceprint
from speech.stored import parsed
from stenoflow.errors import InvalidOption, UnknownVoice
from stenoflow.types import Frozen, VoiceMatch

FOLDER = "voices"
CALL = "call-"
"""Sets of one call begin so."""
NAMES = "names"
"""Folder of records that name the speakers of ended runs."""


class _Names(Frozen):
    speakers: dict[str, VoiceMatch]


def set_of(owner: str) -> str:
    """The name of the owner's set."""
    return hashlib.sha256(owner.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def voices_in(store: Store, sets: Iterable[str]) -> list[EnrolledVoice]:
    """All voices of the sets, by name. A damaged one is left out."""
    found = []
    for name in sets:
        for file in list(store.files(f"records/{FOLDER}/{name}")):
            voice = _read(store, file.path.removeprefix("records/"))
            if voice is not None:
                found.append(voice)
    return sorted(found, key=lambda voice: voice.name.casefold())


def enrol(store: Store, voices: str, name: str, prints: Sequence[Voiceprint], consent: Consent) -> EnrolledVoice:
    """Add what recordings say of the voice to the set; the voice as it is then. Raises InvalidOption for what is no name."""
    plain = checked_name(name)
    with _changing(store, voices):
        before = named(voices_in(store, [voices]), plain)
        voice = EnrolledVoice(
            id=before.id if before else uuid.uuid4().hex,
            name=plain,
            prints=(*(before.prints if before else ()), *prints),
            consents=(*(before.consents if before else ()), consent),
        )
        store.write_record(_record(voices, voice.id), voice.model_dump_json().encode(), private=True)
    return voice


def named(voices: Iterable[EnrolledVoice], name: str) -> EnrolledVoice | None:
    """The voice of that name, however it is capitalised."""
    return next((voice for voice in voices if voice.name.casefold() == name.casefold()), None)


def forget(store: Store, voices: str, id_or_name: str) -> EnrolledVoice:
    """Delete all that is stored of the voice; what it was. Raises UnknownVoice."""
    with _changing(store, voices):
        known = voices_in(store, [voices])
        voice = next((one for one in known if one.id == id_or_name), None) or named(known, checked_name(id_or_name))
        if voice is None:
            raise UnknownVoice(f"There is no enrolled voice {id_or_name!r}.")
        store.delete_record(_record(voices, voice.id))
    return voice


def forget_all(store: Store, voices: str) -> None:
    """Delete a whole set."""
    for file in list(store.files(f"records/{FOLDER}/{voices}")):
        store.delete_record(file.path.removeprefix("records/"))


def forget_calls(store: Store, older_than: float) -> None:
    """Delete the sets of calls that are older than so many seconds: a job that was not deleted is not retried after that."""
    for file in list(store.files(f"records/{FOLDER}")):
        name = file.path.removeprefix("records/")
        if name.startswith(f"{FOLDER}/{CALL}") and time.time() - file.modified > older_than:
            store.delete_record(name)


def set_of_call() -> str:
    """The name of a set for voices that come with one call."""
    return f"{CALL}{uuid.uuid4().hex}"


def keep_names(store: Store, run: str, speakers: Mapping[str, VoiceMatch]) -> None:
    """Who the speakers of an ended run are, as voices that were enrolled since say: in place of what it found itself."""
    content = _Names(speakers=dict(speakers)).model_dump_json().encode()
    store.write_record(f"{NAMES}/{run}", content, private=True)


def names_of(store: Store, run: str) -> dict[str, VoiceMatch] | None:
    """What `keep_names` kept of the run; None where nothing was."""
    content = store.read_record(f"{NAMES}/{run}")
    try:
        return parsed(_Names, content).speakers if content else None
    except ValueError:
        return None


def forget_names(store: Store, run: str) -> None:
    store.delete_record(f"{NAMES}/{run}")


def consent_of(note: str, by: str) -> Consent:
    """Raises InvalidOption for an empty note."""
    if not note.strip() or len(note.strip()) > 500:
        raise InvalidOption("Say in up to 500 characters how the person consented to be recognised by their voice.")
    return Consent(note=note.strip(), by=by, at=datetime.now(UTC).replace(microsecond=0))


def checked_name(name: str) -> str:
    """The name as it is shown. Raises InvalidOption for what could not be."""
    plain = re.sub(r"\s+", " ", unicodedata.normalize("NFC", name)).strip()
    if not plain or len(plain) > 100 or not plain.isprintable():
        raise InvalidOption("A voice's name has 1 to 100 printable characters.")
    return plain


def _record(voices: str, id_: str) -> str:
    return f"{FOLDER}/{voices}/{id_}"


def _read(store: Store, record: str) -> EnrolledVoice | None:
    content = store.read_record(record)
    try:
        return parsed(EnrolledVoice, content) if content else None
    except ValueError:
        return None


def _changing(store: Store, voices: str) -> AbstractContextManager[None]:
    """Keep others from changing the set inside the block, which raises TransientError when another keeps us from it."""
    return store.locks.held(f"voices-{voices}", "Someone else is changing the enrolled voices; try again in a moment.")
