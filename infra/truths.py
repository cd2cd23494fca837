"""The files that say what is true of a recording: beside it, by its name, or where a manifest's row says."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from infra.listing.entry import Item
from infra.names import display_name, expanded, path_of, scheme_of
from infra.settings import StenoSettings
from infra.sources import fetch_source
from infra.storage import SOURCES
from stenoflow.errors import EmptyMedia, SourceForbidden, SourceNotFound

COLUMN = "reference"
"""Of a manifest: one or more paths or addresses, separated by semicolons."""
_MAX_BYTES = 64 * 2**20


def truth_files(item: Item, listed_in: str, settings: StenoSettings, suffixes: Collection[str]) -> dict[str, bytes]:
    """Name → content of the files about the recording `item`, which `listed_in` listed; empty when there is none.

    Those that a manifest names must be there; beside a recording any of `suffixes` may be. Raises the errors of sources.
    """
    named = str(item.options.get(COLUMN) or "")
    if named:
        addresses = [_relative_to(listed_in, part.strip()) for part in named.split(";") if part.strip()]
        return {display_name(address): _read(address, settings) for address in addresses}
    found = {}
    for address in _beside(item.source, suffixes):
        try:
            found[display_name(address)] = _read(address, settings)
        except SourceNotFound:
            continue
    return found


def _beside(source: str, suffixes: Collection[str]) -> list[str]:
    """`s3://calls/a.wav` → `s3://calls/a.json`, …; nothing for what has no place that other files share."""
    scheme = scheme_of(source)
    if scheme in (None, "file"):
        path = Path(path_of(source))
        return [str(path.with_suffix(suffix)) for suffix in suffixes]
    if scheme in SOURCES:
        protocol, _, place = source.partition("://")
        return [f"{protocol}://{PurePosixPath(place).with_suffix(suffix)}" for suffix in suffixes]
    return []


def _relative_to(manifest: str, address: str) -> str:
    """The address as the manifest means it. Raises SourceForbidden when one from the web names a file of this machine."""
    remote = scheme_of(manifest) not in (None, "file")
    if scheme_of(address) not in (None, "file"):
        return address
    if not remote:
        base = expanded(path_of(manifest)).absolute().parent
        return str(base / expanded(path_of(address)))
    if scheme_of(address) == "file" or address.startswith(("/", "~")):
        raise SourceForbidden("A manifest from another machine cannot name files on this one; give an address.")
    return f"{manifest.partition('?')[0].rpartition('/')[0]}/{address}"


def _read(address: str, settings: StenoSettings) -> bytes:
    limits = settings.limits.model_copy(update={"max_bytes": _MAX_BYTES})
    with tempfile.TemporaryDirectory(prefix="steno-truth-") as folder:
        try:
            return fetch_source(address, Path(folder), settings.model_copy(update={"limits": limits})).path.read_bytes()
        except EmptyMedia:
            return b""
