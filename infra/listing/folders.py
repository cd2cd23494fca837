"""Recordings in folders of this machine. Files that are still being written are left for the next batch."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator
from pathlib import Path

from infra.listing.entry import Entry, Item, Left, Refused
from infra.listing.looking import judged
from infra.names import expanded, full_address, portable, readable
from stenoflow.errors import SourceDenied, SourceError, SourceNotFound

has_wildcard = glob.has_magic
_GLANCE = 2.0
"""Seconds between two looks at a file whose time of change lies in the future, whose age is therefore unknown."""
Found = Path | Refused | Left


def folder_entries(folder: Path, settle: float, *, recursive: bool) -> Iterator[Entry]:
    """The recordings in `folder`, by name; with `recursive`, those in the folders below it too.

    Links to files are followed, links to folders are not. What cannot be read is an entry of its own. Raises SourceDenied
    when the folder itself may not be read, SourceError when it cannot be.
    """
    root = folder.absolute()
    return _settled(_walk(root, recursive, root=root), root, settle)


def glob_entries(pattern: str, settle: float, *, recursive: bool) -> Iterator[Entry]:
    """The recordings that the pattern matches, `**` over folders too, and those in the folders that it matches.

    Raises SourceNotFound when it matches nothing.
    """
    root, literal = _literal_part(expanded(pattern).absolute())
    found = sorted(glob.glob(literal, recursive=True))  # noqa: PTH207  Path.glob takes no absolute patterns
    if not found:
        raise SourceNotFound(f"Nothing matches {full_address(pattern)}; check its spelling.")
    return _settled(_matches(found, recursive), root, settle)


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


def _matches(found: list[str], recursive: bool) -> Iterator[Found]:
    seen: set[Path] = set()
    for name in found:
        path = Path(name).absolute()
        try:
            folder = path.is_dir()
        except OSError as error:
            yield _refused(path, error)
            continue
        if folder and not recursive:
            continue  # `**` names the folders below by itself
        for entry in _walk(path, recursive) if folder else judged(path):
            if isinstance(entry, Path):
                if entry in seen:
                    continue
                seen.add(entry)
            yield entry


def _walk(folder: Path, recursive: bool, *, root: Path | None = None) -> Iterator[Found]:
    """The files below `folder`. Trouble with one entry ends neither its folder nor the others, unless it is the `root`."""
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        children, trouble = _children(here)
        if trouble is not None:
            if here == root and not children:
                raise _of_root(here, trouble)
            yield _refused(here, trouble, "/")
        folders: list[Path] = []
        for child in children:
            path = Path(child.path)
            try:
                if child.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif child.is_file():
                    yield from judged(path)
                elif child.is_symlink() and not path.exists():
                    yield Refused(name=readable(child.name), message="The link is broken; remove it, or restore its target.")
            except OSError as error:
                yield _refused(path, error)
        if recursive:
            waiting += reversed(folders)


def _children(folder: Path) -> tuple[list[os.DirEntry[str]], OSError | None]:
    """What is in the folder and not hidden, by name, as far as it can be listed; and what ended that."""
    children: list[os.DirEntry[str]] = []
    trouble = None
    try:
        with os.scandir(folder) as scan:
            for child in scan:
                if not child.name.startswith("."):
                    children.append(child)
    except FileNotFoundError:
        pass  # removed since it was found
    except OSError as error:
        trouble = error
    return sorted(children, key=lambda child: child.name), trouble


def _of_root(folder: Path, error: OSError) -> SourceError:
    if isinstance(error, PermissionError):
        return SourceDenied(f"The folder {readable(str(folder))} is not readable by this user; check its permissions.")
    return SourceError(f"The folder {readable(str(folder))} cannot be listed ({error.strerror}).")


def _refused(path: Path, error: OSError, mark: str = "") -> Refused:
    what = "folder" if mark else "file"
    if isinstance(error, PermissionError):
        why = f"This {what} may not be read by this user; check the permissions of it and of the folder that holds it."
    else:
        why = f"This {what} cannot be read ({error.strerror or type(error).__name__})."
    return Refused(name=f"{readable(path.name)}{mark}", message=why)


def _settled(found: Iterator[Found], root: Path, settle: float) -> Iterator[Entry]:
    """The complete files; one changed just now is checked again at the end, once it could have grown."""
    fresh: list[tuple[Path, Item]] = []
    for entry in found:
        if not isinstance(entry, Path):
            yield entry
            continue
        item = _looked_at(entry, root)
        if isinstance(item, Item) and _pause(item, settle) > 0:
            fresh.append((entry, item))
        else:
            yield item
    if fresh:
        time.sleep(max(_pause(item, settle) for _, item in fresh))
    for path, before in fresh:
        now = _looked_at(path, root)
        if isinstance(now, Item) and now.version != before.version:
            yield Refused(name=now.name, message="The file is still growing; it is left for the next batch.", later=True)
        else:
            yield now


def _looked_at(path: Path, root: Path) -> Item | Refused:
    try:
        return path_item(path, root)
    except FileNotFoundError:
        return Refused(name=readable(path.name), message="The file was deleted after it was listed.", later=True)
    except OSError as error:
        return _refused(path, error)


def _pause(item: Item, settle: float) -> float:
    """Seconds until a second look tells whether the file grows; 0 when it was changed so long ago that none is needed."""
    age = time.time() - (item.modified or 0.0)
    return max(settle - age, 0.0) if age >= 0 else min(settle, _GLANCE)


def _literal_part(pattern: Path) -> tuple[Path, str]:
    """The folder above the first wildcard, and the pattern with what is literal above it escaped: `[` may be in a folder's name."""
    root = Path(pattern.anchor)
    for position, part in enumerate(pattern.parts[1:], start=1):
        last = position == len(pattern.parts) - 1
        if last or (glob.has_magic(part) and not os.path.lexists(root / part)):
            return root, str(Path(glob.escape(str(root)), *pattern.parts[position:]))
        root /= part
    return root, str(pattern)
