"""Recordings in folders of this machine. A file that somebody still writes is left for the next time."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator
from pathlib import Path

from infra.errors import SourceDenied, SourceNotFound
from infra.listing.entry import Entry, Item, Refused
from infra.names import expanded, full_address, is_media, portable, readable

has_wildcard = glob.has_magic


def folder_entries(folder: Path, settle: float, *, recursive: bool) -> Iterator[Entry]:
    """The media files in `folder`, by name; with `recursive`, those in the folders below it too.

    Links to files are followed, links to folders are not. Raises SourceDenied when the folder may not be read.
    """
    root = folder.absolute()
    return _settled(_walk(root, root, recursive), root, settle)


def glob_entries(pattern: str, settle: float, *, recursive: bool) -> Iterator[Entry]:
    """The media files that the pattern matches, `**` over folders too, and those in the folders that it matches.

    Raises SourceNotFound when it matches nothing.
    """
    root = _fixed_part(pattern)
    found = sorted(glob.glob(str(expanded(pattern)), recursive=True))  # noqa: PTH207  Path.glob takes no absolute patterns
    if not found:
        raise SourceNotFound(f"Nothing matches {full_address(pattern)}; check its spelling.")
    return _settled(_matches(found, root, recursive), root, settle)


def _matches(found: list[str], root: Path, recursive: bool) -> Iterator[Path | Refused]:
    seen: set[Path] = set()
    for name in found:
        path = Path(name).absolute()
        if not path.is_dir():
            below: Iterator[Path | Refused] = iter([path] if is_media(path.name) else [])
        elif recursive:
            below = _walk(path, root, recursive)
        else:
            continue  # `**` names the folders below by itself
        for entry in below:
            if isinstance(entry, Refused) or entry not in seen:
                yield entry
            if isinstance(entry, Path):
                seen.add(entry)


def path_item(path: Path, root: Path | None = None) -> Item:
    """The recording at `path`, identified by where it is, its size and when it was changed. Raises OSError."""
    stat = path.stat()
    folder = path.parent.relative_to(root).as_posix() if root else ""
    return Item(
        source=portable(str(path)),
        name=readable(path.name),
        origin=str(path),
        version=f"{stat.st_size}-{stat.st_mtime_ns}",
        folder="" if folder == "." else folder,
        modified=stat.st_mtime,
    )


def _walk(folder: Path, root: Path, recursive: bool) -> Iterator[Path | Refused]:
    try:
        with os.scandir(folder) as scan:
            children = sorted(scan, key=lambda child: child.name)
    except PermissionError:
        if folder == root:
            raise SourceDenied(f"The folder {folder} may not be read by this user; check its permissions.") from None
        yield Refused(name=f"{folder.name}/", message="This folder may not be read by this user; check its permissions.")
        return
    except FileNotFoundError:
        return
    for child in children:
        if child.name.startswith("."):
            continue
        if child.is_dir(follow_symlinks=False):
            if recursive:
                yield from _walk(Path(child.path), root, recursive)
        elif is_media(child.name) and child.is_file():
            yield Path(child.path)


def _settled(paths: Iterator[Path | Refused], root: Path, settle: float) -> Iterator[Entry]:
    """The files that nobody writes any more; one changed just now is looked at again at the end, once it could have grown."""
    fresh: list[tuple[Path, Item]] = []
    for path in paths:
        if isinstance(path, Refused):
            yield path
            continue
        try:
            item = path_item(path, root)
        except OSError:
            continue  # gone since it was listed
        if _age(item) < settle:
            fresh.append((path, item))
        else:
            yield item
    if fresh:
        youngest = min(_age(item) for _, item in fresh)
        time.sleep(min(max(settle - youngest, 0.0), settle))
    for path, before in fresh:
        try:
            now = path_item(path, root)
        except OSError:
            continue
        if now.version == before.version:
            yield now
        else:
            yield Refused(name=now.name, message="The file is still growing; it is left for the next time.", later=True)


def _age(item: Item) -> float:
    """Seconds since the last change; one in the future counts as long ago, since nothing can be said of it."""
    age = time.time() - (item.modified or 0.0)
    return age if age >= 0 else float("inf")


def _fixed_part(pattern: str) -> Path:
    """The folder above the first wildcard."""
    parts = expanded(pattern).absolute().parts
    fixed = next((position for position, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return Path(*parts[:fixed])
