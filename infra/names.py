"""Names for sources that may be shown, logged and used for files: never a query, credentials or control characters."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote

STDIN = "-"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SUFFIX = re.compile(r"\.(?=[0-9]*[A-Za-z])[A-Za-z0-9]{1,5}\Z")
_UNSAFE_IN_FILES = re.compile(r'[/\\:*?"<>|]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_LONGEST_NAME = 120
_LONGEST_STEM_BYTES = 150


def scheme_of(source: str) -> str | None:
    """The URL scheme in lower case, or None for a path."""
    match = _SCHEME.match(source)
    return match[1].lower() if match else None


def display_name(source: str) -> str:
    """A short name for people: the last part of the path, or the host where there is no path; `stdin` for `-`."""
    if source == STDIN:
        return "stdin"
    match = _SCHEME.match(source)
    if match is None:
        return _cleaned(source.rstrip("/").rpartition("/")[2]) or "recording"
    rest = source[match.end() :]
    if match[1].lower() != "file":
        rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    authority, _, path = rest.partition("/")
    last = unquote(path.rstrip("/").rpartition("/")[2], errors="replace").replace("\\", "/").rstrip("/").rpartition("/")[2]
    return _cleaned(last) or _cleaned(authority.rpartition("@")[2]) or "recording"


def output_stem(source: str) -> str:
    """The name that output files start with: safe on every file system, never hidden, never empty."""
    name = _UNSAFE_IN_FILES.sub("_", _SUFFIX.sub("", display_name(source))).lstrip(". ").rstrip(". ")
    name = name.encode()[:_LONGEST_STEM_BYTES].decode(errors="ignore").rstrip(". ")
    return f"_{name}" if _RESERVED.fullmatch(name) else name or "recording"


def file_suffix(source: str) -> str:
    """The source's extension if it looks like one, else nothing."""
    match = _SUFFIX.search(display_name(source))
    return match[0].lower() if match else ""


def _cleaned(name: str) -> str:
    """Without control, formatting (such as text direction) and unassigned characters or lone surrogates."""
    shown = "".join(
        " " if character.isspace() else character
        for character in name
        if character.isspace() or unicodedata.category(character)[0] != "C"
    )
    shown = " ".join(shown.split())
    return shown if len(shown) <= _LONGEST_NAME else f"{shown[: _LONGEST_NAME // 2]}…{shown[-_LONGEST_NAME // 2 :]}"
