"""Glossaries in the store: `records/glossaries/<owner>/<name>`, each its owner's."""

from __future__ import annotations

import re

from infra.store import Store
from infra.voices import set_of
from speech.glossary import Glossary, parsed_glossary
from speech.stored import parsed
from stenoflow.errors import InvalidOption, UnknownGlossary

FOLDER = "glossaries"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def keep(store: Store, owner: str, name: str, text: str) -> Glossary:
    """Keep the glossary, in place of one of that name. Raises InvalidOption."""
    record = _record(owner, name)
    glossary = parsed_glossary(name, text)
    store.write_record(record, glossary.model_dump_json().encode(), private=True)
    return glossary


def find(store: Store, owner: str, name: str) -> Glossary:
    """Raises UnknownGlossary."""
    content = store.read_record(_record(owner, name))
    try:
        found = parsed(Glossary, content) if content else None
    except ValueError:
        found = None
    if found is None:
        raise UnknownGlossary(f"There is no glossary {name!r}", cure="`steno glossary list` shows those there are")
    return found


def all_of(store: Store, owner: str) -> list[Glossary]:
    """The owner's glossaries, by name."""
    names = sorted(file.path.rpartition("/")[2] for file in store.files(f"records/{FOLDER}/{set_of(owner)}"))
    return [find(store, owner, name) for name in names]


def remove(store: Store, owner: str, name: str) -> None:
    """Raises UnknownGlossary."""
    find(store, owner, name)
    store.delete_record(_record(owner, name))


def _record(owner: str, name: str) -> str:
    """Raises InvalidOption for what is no name."""
    if not _NAME.fullmatch(name):
        raise InvalidOption("A glossary's name has up to 64 letters, digits, dots, hyphens and underscores.")
    return f"{FOLDER}/{set_of(owner)}/{name}"
