"""Manifests: a .csv or .jsonl file with a `source` per row, and options of their own for those that need them."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from infra.connections import Broken
from infra.listing.entry import Entry, Item, Refused
from infra.listing.folders import path_item
from infra.listing.rows import Row, csv_rows, json_rows
from infra.names import display_name, expanded, full_address, path_of, portable, readable, scheme_of
from infra.objects import call, open_filesystem
from infra.settings import StenoSettings
from infra.sources import fetch_source
from infra.storage import SOURCES
from stenoflow.errors import SourceForbidden, SourceNotFound, StenoError

OWN_COLUMNS = ("source", "id", "name")
"""What a row may say beside options. `id` names the recording where its address changes (a signed one)."""


def is_manifest(name: str) -> bool:
    return name.lower().endswith((".csv", ".jsonl", ".ndjson"))


def manifest_entries(address: str, settings: StenoSettings, columns: Collection[str] | None) -> Iterator[Entry]:
    """A recording per row; a row that is none is reported with its line. Relative paths are relative to the manifest.

    Cells left empty count as not given, columns whose name begins with `_` are notes. Raises UnreadableList for what is
    no manifest, and the errors of fetching it.
    """
    capped = settings.model_copy(
        update={"limits": settings.limits.model_copy(update={"max_bytes": settings.batch.max_list_bytes})}
    )
    with tempfile.TemporaryDirectory(prefix="steno-manifest-") as folder:
        path = fetch_source(address, Path(folder), capped).path
        rows = csv_rows if address.lower().partition("?")[0].endswith(".csv") else json_rows
        yield from _entries(rows, path, address, settings, columns)


def _entries(
    rows: Callable[[Path, str], Iterator[Row]],
    path: Path,
    address: str,
    settings: StenoSettings,
    columns: Collection[str] | None,
) -> Iterator[Entry]:
    where = _Where(address, settings)
    known = _Known()
    for line, row in rows(path, display_name(address)):
        if isinstance(row, str):
            yield Refused(name=f"line {line}", message=row, line=line)
            continue
        entry = _entry(line, row, where, columns)
        yield known.judged(entry, line) if isinstance(entry, Item) else entry


class _Known:
    """What the rows so far have named."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], int] = {}
        self._times: Counter[str] = Counter()
        self._sources: dict[str, tuple[str, int]] = {}

    def judged(self, item: Item, line: int) -> Entry:
        """The item, or why it is left: all of it has been said before, or its id is another recording's."""
        options = json.dumps(item.options, sort_keys=True, default=str)
        first = self._rows.setdefault((item.origin, options), line)
        plain = item.source.partition("?")[0] if scheme_of(item.source) in ("http", "https") else item.source
        named, named_on = self._sources.setdefault(item.origin, (plain, line))
        if named != plain:
            return Refused(
                name=item.name,
                message=f"Line {named_on} gives the same id to another recording; ids must be unique.",
                line=line,
            )
        if first != line:
            return Refused(name=item.name, message=f"The same recording and options as on line {first}.", line=line, later=True)
        self._times[item.origin] += 1
        return item.model_copy(update={"occurrence": self._times[item.origin] - 1})


def _entry(line: int, row: dict[str, Any], where: _Where, columns: Collection[str] | None) -> Entry:
    given = {
        name: value
        for name, value in row.items()
        if not name.startswith("_") and value is not None and not (isinstance(value, str) and not value.strip())
    }
    source = given.pop("source", None)
    if not isinstance(source, str):
        return Refused(name=f"line {line}", message="The row has no source; give a path or an address.", line=line)
    number, name = given.pop("id", None), given.pop("name", None)
    shown = readable(str(name)) if name else display_name(source.strip())
    unknown = [column for column in given if columns is not None and column not in columns]
    if unknown:
        return Refused(name=shown, message=f"{unknown[0]!r} is not an option; prefix columns for notes with _.", line=line)
    try:
        item = where.item(source.strip())
    except StenoError as error:
        return Refused(name=shown, message=error.message, line=line)
    own: dict[str, Any] = {"options": given, "line": line, "name": shown}
    if number is not None:
        own |= {"origin": f"{where.address}#{number}", "version": ""}
    return item.model_copy(update=own)


class _Where:
    """Where the sources of a manifest lie."""

    def __init__(self, address: str, settings: StenoSettings) -> None:
        self.address = address.partition("?")[0]
        self._settings = settings
        self._base = self.address.rpartition("/")[0] if scheme_of(address) not in (None, "file") else ""
        self._folder = expanded(path_of(address)).absolute().parent
        self._open: dict[str, Any] = {}

    def item(self, source: str) -> Item:
        """The recording that a row names. Raises the errors of sources for one that is not there or not allowed."""
        scheme = scheme_of(source)
        if scheme is None and self._base and not source.startswith(("/", "~")):
            source, scheme = f"{self._base}/{source}", scheme_of(self._base)
        if scheme in (None, "file"):
            if scheme_of(self.address) in ("http", "https"):
                raise SourceForbidden("A manifest from the web cannot name files on this machine; give an address.")
            return self._path(path_of(source))
        if scheme in SOURCES and scheme != "memory":
            return self._object(source)
        # A query may be a signature, which changes, or all that tells two recordings apart: `id` says that it is the former.
        return Item(source=source, name=display_name(source), origin=source)

    def _path(self, source: str) -> Item:
        path = expanded(source)
        path = path if path.is_absolute() else self._folder / path
        try:
            return path_item(path.absolute())
        except OSError:
            # The run says what is wrong with it, as for any other source.
            return Item(source=portable(str(path)), name=path.name, origin=str(path))
        except ValueError:
            raise SourceNotFound("The file name contains bytes that are not text; rename the file.") from None

    def _object(self, source: str) -> Item:
        where = f"object {full_address(source)}"
        key = source.partition("://")[2].partition("/")[0]
        try:
            if key not in self._open:
                self._open[key] = open_filesystem(source, self._settings, where)[0]
            info = call(where, self._open[key].info, source.partition("://")[2])
            version = f"{info.get('size')}-{str(info.get('ETag') or info.get('etag') or '').strip(chr(34))}"
        except (StenoError, Broken):
            version = ""  # the run says what is wrong
        return Item(source=source, name=display_name(source), origin=source, version=version)
