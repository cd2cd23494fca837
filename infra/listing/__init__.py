"""What many recordings are listed from: a folder, a glob, an object store, a manifest, a podcast feed.

`entries` is the one door. It yields lazily, page by page, so that a bucket of any size costs the memory of one page; it
blocks, so call it from a worker thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from infra.listing.entry import Entry, Item, Left, Refused
from infra.listing.feeds import feed_entries
from infra.listing.folders import folder_entries, glob_entries, has_wildcard, path_item
from infra.listing.looking import judged
from infra.listing.manifests import is_manifest, manifest_entries
from infra.listing.objects import object_entries
from infra.names import STDIN, display_name, expanded, full_address, is_media, path_of, readable, scheme_of
from infra.settings import StenoSettings
from stenoflow.errors import ListTooLong, SourceDenied, SourceForbidden, SourceNotFound, UnreadableList

__all__ = ["Entry", "Item", "Left", "Refused", "entries", "is_media"]

_FEED_FILES = (".rss", ".xml", ".atom")


def entries(
    source: str, settings: StenoSettings, *, recursive: bool = False, columns: Collection[str] | None = None
) -> Iterator[Entry]:
    """The recordings that `source` lists, what of it cannot be taken (`Refused`) and what is none (`Left`), in the order found.

    `columns` are the options that a manifest's rows may carry; any when None. Raises SourceNotFound, SourceDenied,
    SourceForbidden, UnreadableList, DownloadFailed and the other errors of fetching a source, and ListTooLong beyond
    `settings.batch.max_items` entries.
    """
    count = 0
    for entry in _entries(source, settings, recursive, columns):
        count += not isinstance(entry, Left)
        if count > settings.batch.max_items:
            raise ListTooLong(
                f"{display_name(source)} lists more than {settings.batch.max_items} recordings; narrow it, or raise STENO_BATCH__MAX_ITEMS."
            )
        yield entry


def _entries(source: str, settings: StenoSettings, recursive: bool, columns: Collection[str] | None) -> Iterator[Entry]:
    scheme = scheme_of(source)
    if source == STDIN:
        raise SourceForbidden("A batch cannot be read from standard input; give a folder, a glob, a URL or a manifest.")
    if scheme in ("http", "https", "feed"):
        address = f"https://{source.partition('://')[2]}" if scheme == "feed" else source
        if is_manifest(urlsplit(address).path):
            return manifest_entries(address, settings, columns)
        return feed_entries(address, settings)
    if scheme not in (None, "file"):
        # A question mark or hash in a bucket is part of a name.
        return (
            manifest_entries(source, settings, columns) if is_manifest(source) else object_entries(source, settings, recursive)
        )
    return _local_entries(expanded(path_of(source)), settings, recursive, columns)


def _local_entries(path: Path, settings: StenoSettings, recursive: bool, columns: Collection[str] | None) -> Iterator[Entry]:
    settle = settings.batch.settle_seconds
    try:
        path.is_dir()
    except OSError as error:
        raise SourceDenied(
            f"{readable(str(path))} is not readable by this user ({error.strerror}); check its permissions."
        ) from None
    if path.is_dir():
        return folder_entries(path, settle, recursive=recursive)
    if path.is_file():
        if is_manifest(path.name):
            return manifest_entries(str(path), settings, columns)
        if path.suffix.lower() in _FEED_FILES:
            return feed_entries(str(path.absolute()), settings)
        if any(isinstance(found, Path) for found in judged(path)):
            return iter([path_item(path.absolute())])
        raise UnreadableList(
            f"{path.name} is not a list of recordings; give a folder, a glob, a .csv or .jsonl manifest, or a feed."
        )
    if has_wildcard(str(path)):
        return glob_entries(str(path), settle, recursive=recursive)
    raise SourceNotFound(f"There is no folder or file {full_address(str(path))}; check its spelling.")
