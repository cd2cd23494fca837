"""Recordings in object stores: everything below a prefix, or what a glob matches. Pages are asked for as they are needed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from infra.connections import Broken, back_off
from infra.listing.entry import Entry, Item, Left, Refused
from infra.listing.looking import known_otherwise, why_left
from infra.names import display_name, full_address, is_media, scheme_of
from infra.objects import call, open_filesystem
from infra.settings import StenoSettings
from infra.storage import SOURCES, source_kind
from speech.sniff import HEAD
from stenoflow.errors import DownloadFailed, SourceDenied, SourceError, SourceNotFound

_WILDCARD = re.compile(r"[*?\[]")

T = TypeVar("T")


class _Object(NamedTuple):
    path: str
    """Bucket and key."""
    info: dict[str, Any]
    head: Callable[[], bytes]
    """Reads its first bytes. Raises SourceError."""


def object_entries(url: str, settings: StenoSettings, recursive: bool) -> Iterator[Entry]:
    """The recordings below the prefix `url` (taken as a folder), or those that a glob matches.

    A name that is there is taken as it is written, whatever it holds; else `*` and `?` stop at slashes, `**` does not. Raises SourceNotFound when nothing at all is there, SourceDenied,
    SourceForbidden (protocol), and DownloadFailed when the store does not answer.
    """
    protocol, _, place = url.partition("://")
    fixed, glob = _split(protocol, place.rstrip("/"), settings)
    matches = re.compile(re.escape(f"{fixed}/") + _pattern(glob), re.DOTALL) if glob else None
    deep = recursive or "/" in glob or "**" in glob
    seen = 0
    for found in _objects(f"{protocol}://{fixed}", settings, deep=deep):
        seen += 1
        name = found.path.rpartition("/")[2]
        if _visible(found.path, fixed) and (matches is None or matches.fullmatch(found.path)):
            yield _left(name, found) or _item(protocol, found, fixed)
    if not seen:
        raise SourceNotFound(f"Nothing found at {full_address(url)}; check the bucket and the prefix.")


def _left(name: str, found: _Object) -> Left | Refused | None:
    """Why the object is not taken; None when it may be a recording. One that its name says nothing of costs a small request."""
    if is_media(name):
        return None
    if known_otherwise(name):
        return Left(name=name, message="not a recording, by its name")
    try:
        why = why_left(name, found.head)
    except SourceError as error:
        return Refused(name=name, message=error.message)
    return Left(name=name, message=why) if why else None


def _split(protocol: str, place: str, settings: StenoSettings) -> tuple[str, str]:
    """The folder whose name is literal, and the glob below it: names with `[` or `?` are no globs when they are there."""
    parts = place.split("/")
    for position, part in enumerate(parts[1:], start=1):
        if _WILDCARD.search(part) and not _is_there(f"{protocol}://{'/'.join(parts[: position + 1])}", settings):
            return "/".join(parts[:position]), "/".join(parts[position:])
    return place, ""


def _is_there(url: str, settings: StenoSettings) -> bool:
    try:
        return next(_objects(url, settings, deep=True), None) is not None
    except SourceNotFound:
        return False


def _item(protocol: str, found: _Object, fixed: str) -> Item:
    source = f"{protocol}://{found.path}"
    info = found.info
    etag = next((str(info[name]) for name in ("ETag", "etag", "md5Hash", "content_md5") if info.get(name)), "")
    modified = _timestamp(
        next((info[name] for name in ("LastModified", "last_modified", "updated", "mtime") if info.get(name)), None)
    )
    below = found.path.rpartition("/")[0].removeprefix(fixed.rstrip("/")).strip("/")
    return Item(
        source=source,
        name=found.path.rpartition("/")[2],
        origin=source,
        version=f"{info.get('size')}-{etag.strip(chr(34)) or modified}",
        folder=below,
        modified=modified,
    )


def _objects(url: str, settings: StenoSettings, *, deep: bool) -> Iterator[_Object]:
    bucket, _, below = url.partition("://")[2].partition("/")
    where = f"folder {full_address(url)}" if below else f"bucket {bucket.rpartition('@')[2]}"
    public = scheme_of(url) in SOURCES and source_kind(scheme_of(url) or "").public
    try:
        yield from _open_and_list(url, settings, where, deep=deep)
    except SourceDenied:
        if not public or settings.s3.key:
            raise
        yield from _open_and_list(url, settings, where, deep=deep, anonymous=True)


def _open_and_list(url: str, settings: StenoSettings, where: str, *, deep: bool, anonymous: bool = False) -> Iterator[_Object]:
    fs, path = open_filesystem(url, settings, where, folder=True, anonymous=anonymous)

    def ask(function: Callable[..., T], *args: Any, **options: Any) -> T:
        return _patiently(lambda: call(where, function, *args, **options), settings, where)

    for found in source_kind(url.partition("://")[0].lower()).recordings(fs, path, ask, deep=deep):
        yield _Object(found.path, found.info, _reader(fs, found.path, settings))


def _reader(fs: Any, place: str, settings: StenoSettings) -> Callable[[], bytes]:
    where = f"object {display_name(f's3://{place}')!r}"
    return lambda: bytes(_patiently(lambda: call(where, fs.cat_file, place, start=0, end=HEAD), settings, where))


def _patiently(ask: Callable[[], T], settings: StenoSettings, where: str) -> T:
    for attempt in range(settings.net.resumes + 1):
        try:
            return ask()
        except Broken as broken:
            if attempt >= settings.net.resumes:
                raise DownloadFailed(f"The {where} {broken} when it was listed; try again later.") from None
            back_off(attempt, lambda: None)
    raise AssertionError("the last attempt returns or raises")


def _visible(path: str, fixed: str) -> bool:
    below = path.removeprefix(fixed)
    return not any(part.startswith(".") for part in below.split("/"))


def _pattern(place: str) -> str:
    """The glob as a regular expression."""
    pattern, position = "", 0
    while position < len(place):
        if place.startswith("**/", position):
            pattern, position = pattern + "(?:.*/)?", position + 3
        elif place.startswith("**", position):
            pattern, position = pattern + ".*", position + 2
        elif place[position] == "[" and (end := place.find("]", position + 2)) > 0:
            inside = place[position + 1 : end].replace("\\", "\\\\")
            pattern += f"[{'^' + inside[1:] if inside[0] in '!^' else inside}]"
            position = end + 1
        else:
            pattern += {"*": "[^/]*", "?": "[^/]"}.get(place[position], re.escape(place[position]))
            position += 1
    return pattern


def _timestamp(value: object) -> float | None:
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value).timestamp()
        except ValueError:
            return None
    return float(value) if isinstance(value, int | float) else None
